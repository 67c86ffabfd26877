"""What many generations over one stream have in common, without any I/O.

`ManyState` knows which requests are in progress, `Outbox` what is still to be sent. Both belong to
the stream's owner; the blocking stream guards them with its condition.
"""

from collections import deque
from typing import Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from hocket.client._collect import Collector
from hocket.client._errors import ClientError, StreamError, error_of_status
from hocket.client._events import Event, Finished, GenerationResult
from hocket.client._parse import parse_event
from hocket.client._requests import GenerationOptions, build_generate_request, make_request_id
from hocket.v1 import generation_pb2

ActionT = TypeVar("ActionT", bound=Message)
ManyEvent: TypeAlias = tuple[str, Event | ClientError]
ManyResult: TypeAlias = tuple[str, GenerationResult | ClientError]

MAX_UNSENT = 64
"""Actions that may wait to be sent before `submit` waits, too."""

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""What is kept for another attempt; a stream that has sent more is not opened again."""

_MOST_ID = 128


class Outbox(Generic[ActionT]):
    """Actions to send, kept until the first answer so that a new attempt can send them again.

    Its memory is bounded: few wait, and not much is kept.
    """

    def __init__(self) -> None:
        self._unsent: deque[ActionT] = deque()
        self._sent: list[ActionT] = []
        self._keeps_sent = True
        self._bytes = 0  # of all in both
        self.is_closed = False

    @property
    def keeps_sent(self) -> bool:
        """Whether a new attempt could send everything again."""
        return self._keeps_sent

    def has_room(self, *, is_served: bool) -> bool:
        """Whether a request may be added at once.

        Args:
            is_served: Whether somebody takes actions out, or will without further ado. If not,
                waiting could last for ever: the attempt has ended, and only reading the stream
                makes another or tells why. So what is submitted before is kept for that.

        Raises:
            StreamError: The stream has ended, and there will be no other attempt.
        """
        if is_served or len(self._unsent) < MAX_UNSENT:
            return len(self._unsent) < MAX_UNSENT
        if self._keeps_sent and self._bytes < MAX_KEPT_BYTES:
            return True
        raise StreamError("the stream has ended; iterating over it tells why")

    def check_open(self) -> None:
        """Return if actions may be added.

        Raises:
            StreamError: The sending side is closed.
        """
        if self.is_closed:
            raise StreamError("the sending side of the stream is closed")

    def put(self, action: ActionT) -> None:
        """Add an action.

        Raises:
            StreamError: The sending side is closed.
        """
        self.check_open()
        self._unsent.append(action)
        self._bytes += action.ByteSize()

    def take(self) -> ActionT | None:
        """Return the next action to send; None if there is none now."""
        if not self._unsent:
            return None
        action = self._unsent.popleft()
        self._sent.append(action)
        if not self._keeps_sent or self._bytes > MAX_KEPT_BYTES:
            self.forget()
        return action

    def rewind(self) -> None:
        """Send everything again, on a new attempt."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def forget(self) -> None:
        """Keep nothing of what was or will be sent: there is no new attempt. Repeatable."""
        self._keeps_sent = False
        self._bytes -= sum(action.ByteSize() for action in self._sent)
        self._sent.clear()


class ManyState:
    """The requests of one stream."""

    def __init__(self) -> None:
        self._collectors: dict[str, Collector] = {}

    @property
    def in_progress(self) -> frozenset[str]:
        """Ids of the requests that have neither finished nor failed."""
        return frozenset(self._collectors)

    def begin(
        self, prompt: str | None, options: GenerationOptions
    ) -> generation_pb2.GenerateManyRequest:
        """Make the action that starts a generation.

        Raises:
            TypeError: There is not exactly one input, or an option is unknown.
            ValueError: A value cannot be sent, or the id is in use on this stream.
        """
        request = build_generate_request(prompt, options)
        request.request_id = request.request_id or make_request_id()
        if len(request.request_id) > _MOST_ID:  # the server's answer would name another
            raise ValueError(f"a request id has at most {_MOST_ID} characters")
        if request.request_id in self._collectors:
            raise ValueError(f"request id {request.request_id!r} is in use on this stream")
        self._collectors[request.request_id] = Collector(request.request_id)
        return generation_pb2.GenerateManyRequest(generate=request)

    def cancel(self, request_id: str) -> generation_pb2.GenerateManyRequest | None:
        """Make the action that ends a generation; None if it is not in progress."""
        if request_id not in self._collectors:
            return None
        cancel = generation_pb2.CancelGeneration(request_id=request_id)
        return generation_pb2.GenerateManyRequest(cancel=cancel)

    def take(
        self, message: generation_pb2.GenerateManyResponse
    ) -> tuple[ManyEvent, ManyResult | None] | None:
        """Return what happened, and the whole generation if that was its last event.

        None for an event that this client does not know, or of a request that is not its own.
        """
        request_id = message.request_id
        collector = self._collectors.get(request_id)
        if collector is None:
            return None
        kind = message.WhichOneof("event")
        if kind in {"failed", "refused"}:  # none is refused for its like here: `begin` saw to that
            del self._collectors[request_id]
            error = error_of_status(message.failed if kind == "failed" else message.refused)
            return (request_id, error), (request_id, error)
        event = parse_event(message)
        if event is None:
            return None
        collector.add(event)
        if not isinstance(event, Finished):
            return (request_id, event), None
        del self._collectors[request_id]
        return (request_id, event), (request_id, collector.result())

    def check_ended(self) -> None:
        """Return if every request has ended.

        Raises:
            StreamError: Some have not.
        """
        if self._collectors:
            count = len(self._collectors)
            raise StreamError(f"the stream ended before {count} of its generations did")
