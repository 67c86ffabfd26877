"""How much of a generation has arrived, for going on with it where its stream broke.

Whichever thread reads the stream. The server keeps nothing: a token that it signed says which
stream it was, and the caller says how far it came.
"""

from hocket.client._errors import StreamError
from hocket.v1 import generation_pb2

_LEAST_BUDGET_NANOS = 1_000_000  # a budget that has passed is told by the server


class Resumption:
    """What the next attempt at one generation may leave out."""

    def __init__(self, request: generation_pb2.GenerateRequest) -> None:
        """Begin with nothing.

        Args:
            request: What is asked for; changed as attempts need it.
        """
        self._request = request
        self._budget_nanos = (
            request.time_budget.ToNanoseconds() if request.HasField("time_budget") else None
        )
        self._token = b""
        self._token_ids: list[int] = []
        self._text_bytes = 0
        self._sentences = 0
        self._is_going_on = False
        self._has_progressed = False

    @property
    def is_possible(self) -> bool:
        """Whether the server gave a token for it."""
        return bool(self._token)

    def take_progress(self) -> bool:
        """Return whether text has arrived since this was asked last."""
        has_progressed, self._has_progressed = self._has_progressed, False
        return has_progressed

    def prepare(self, spent_seconds: float) -> None:
        """Let the request say what has arrived, and leave it the time that is left.

        Args:
            spent_seconds: Since the server had the request first.
        """
        self._is_going_on = True
        self._request.resume.CopyFrom(
            generation_pb2.Resume(
                token=self._token,
                token_ids=self._token_ids,
                received_bytes=self._text_bytes,
                received_sentences=self._sentences,
            )
        )
        if self._budget_nanos is not None:
            left = self._budget_nanos - round(spent_seconds * 1_000_000_000)
            self._request.time_budget.FromNanoseconds(max(left, _LEAST_BUDGET_NANOS))

    def note(self, message: generation_pb2.GenerateResponse) -> bool:
        """Take note of the next message; return whether its reader has had the like of it.

        Raises:
            StreamError: It does not go on where the stream broke.
        """
        match message.WhichOneof("event"):
            case "started":
                self._token = message.started.resume_token
                if self._is_going_on and not self._token:
                    raise StreamError("this server began anew instead of going on")
                return self._is_going_on
            case "delta":
                self._note_piece(message.delta)
            case "sentence":
                self._note_piece(message.sentence)
                self._sentences += 1
        return False

    def _note_piece(self, piece: generation_pb2.Delta | generation_pb2.Sentence) -> None:
        if self._is_going_on and piece.start_byte != self._text_bytes:
            raise StreamError("the stream did not go on where it broke")
        self._token_ids += piece.token_ids
        self._text_bytes += len(piece.text.encode())
        self._has_progressed = True
