"""What waits for the reader of one request. Loop thread.

One slot, not a queue: what gathers while the reader is away is merged into one output, so that a
slow reader costs few objects and gets larger deltas. Sentences stay sentences. What waits is
bounded: a reader is too slow if something that it has not taken waits, and with it more than the
bound. A single output may be as large as it likes, since nobody could have taken it earlier.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hocket.server.engine.commands import (
    Finished,
    Logprobs,
    RequestOutput,
    Started,
    TextOutput,
)
from hocket.server.errors import HocketError, ReaderTooSlow
from hocket.server.text.pieces import Piece, PieceKind

# What objects take in CPython on a machine of 64 bits.
_TOKEN_BYTES = 40
_LOGPROB_BYTES = 120
_PIECE_BYTES = 300


def weight(text: TextOutput) -> int:
    """Return about how many bytes a piece takes while it waits."""
    piece = text.piece.end_byte - text.piece.start_byte
    tokens = _TOKEN_BYTES * len(text.token_ids)
    return _PIECE_BYTES + piece + tokens + logprobs_weight(text.logprobs)


def logprobs_weight(found: Sequence[Logprobs]) -> int:
    """Return about how many bytes log probabilities take."""
    return _LOGPROB_BYTES * sum(1 + len(logprobs.top) for logprobs in found)


def _merge(texts: list[TextOutput], run: list[TextOutput]) -> None:
    """Append a run of adjacent deltas of one choice as a single one."""
    if len(run) == 1:
        texts.append(run[0])
    elif run:
        first, last = run[0].piece, run[-1].piece
        texts.append(
            TextOutput(
                choice_index=run[0].choice_index,
                piece=Piece(
                    "".join(text.piece.text for text in run),
                    first.start_byte,
                    last.end_byte,
                    PieceKind.DELTA,
                ),
                token_ids=tuple(token for text in run for token in text.token_ids),
                logprobs=tuple(logprobs for text in run for logprobs in text.logprobs),
            )
        )


def merged(texts: list[TextOutput]) -> tuple[TextOutput, ...]:
    """Return texts with the deltas of each choice joined; other pieces stay as they are.

    The order within each choice is kept. Choices do not wait for each other, so their deltas join
    even where they were interleaved.
    """
    if len(texts) <= 1:  # as it is for whoever reads as fast as it is written
        return tuple(texts)
    runs: dict[int, list[TextOutput]] = {}
    result: list[TextOutput] = []
    for text in texts:
        if text.piece.kind is PieceKind.DELTA:
            runs.setdefault(text.choice_index, []).append(text)
        else:
            result.append(text)
    for run in runs.values():
        _merge(result, run)
    return tuple(result)


@dataclass(frozen=True, slots=True)
class _End:
    finished: Finished | None
    failure: HocketError | None


class Mailbox:
    """The outputs of one request that its reader has not taken."""

    def __init__(self, request_id: str, *, max_bytes: int) -> None:
        self._request_id = request_id
        self._max_bytes = max_bytes
        self._started: Started | None = None
        self._texts: list[TextOutput] = []
        self._bytes = 0
        self._end: _End | None = None
        self._is_taken = False
        self._news = asyncio.Event()

    @property
    def has_end(self) -> bool:
        """Whether the request's last output has come."""
        return self._end is not None

    @property
    def waiting_bytes(self) -> int:
        """About how much waits for the reader."""
        return self._bytes

    def put(self, output: RequestOutput) -> None:
        """Add an output; one that comes after the end is dropped.

        Where too much waits, all of it is replaced by a failure with `ReaderTooSlow`; `has_end`
        tells. What is told of the prompt comes once, at the end, and makes nobody slow.
        """
        if self._end is not None:
            return
        waited, came = self._bytes, sum(weight(text) for text in output.texts)
        self._started = self._started or output.started
        if waited and came and waited + came > self._max_bytes:
            self._texts.clear()
            self._bytes = 0
            self._end = _End(None, ReaderTooSlow(limit_bytes=self._max_bytes))
        else:
            self._texts += output.texts
            self._bytes += came
            if output.finished is not None:
                self._bytes += logprobs_weight(output.finished.prompt_logprobs)
            if output.is_last:
                self._end = _End(output.finished, output.failure)
        self._news.set()

    def fail(self, failure: HocketError) -> None:
        """End the request with a failure, unless it has ended. What waits is still delivered."""
        if self._end is None:
            self._end = _End(None, failure)
            self._news.set()

    def check_not_failed(self) -> None:
        """Return if no failure has ended the request.

        Raises:
            HocketError: That failure.
        """
        if self._end is not None and self._end.failure is not None:
            raise self._end.failure

    async def take(self) -> RequestOutput | None:
        """Wait for news and return all of it as one output; None after the last one.

        Raises:
            HocketError: The request failed, and all that it brought before was taken.
        """
        if self._is_taken:
            return None
        await self._news.wait()
        self._news.clear()
        end = self._end
        if end is not None and end.failure is not None:
            if not (self._started or self._texts):
                self._is_taken = True
                raise end.failure
            self._news.set()
            end = None
        self._is_taken = end is not None
        output = RequestOutput(
            request_id=self._request_id,
            started=self._started,
            texts=merged(self._texts),
            finished=end.finished if end else None,
        )
        self._started, self._texts, self._bytes = None, [], 0
        return output
