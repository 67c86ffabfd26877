"""Results of segments by exact key, kept for all documents of a server. Loop thread.

What is bounded is the memory for results; what was used longest ago goes first. A result that is
being written is there already: who asks for it follows what is known of it so far.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from hocket.server.document.job import Written, WrittenPiece
from hocket.server.engine.commands import FinishReason

_ENTRY_BYTES = 512  # beside the text, about
_PIECE_BYTES = 128
_CUT_SHORT = {FinishReason.CANCELLED, FinishReason.ABORTED, FinishReason.TIME_BUDGET}

Key = tuple[str, bytes]  # who asks, and what


@dataclass(eq=False, slots=True)
class Result:
    """What is known of a result, while it is written and after.

    The newest piece is held back until something follows it: it may be what was left when its
    writing was cut short, which is no piece of the result.

    Attributes:
        pieces: Known so far.
        written: How it ended; None while it has not, or if it never will.
        is_over: Whether nothing more becomes known.
    """

    pieces: list[WrittenPiece] = field(default_factory=list)
    written: Written | None = None
    is_over: bool = False
    _held: WrittenPiece | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes."""
        texts = sum(len(piece.text.encode()) + _PIECE_BYTES for piece in self.pieces)
        return _ENTRY_BYTES + texts

    def add(self, item: WrittenPiece | Written) -> None:
        """Take in what is written; an end before its time is none."""
        if isinstance(item, Written):
            if item.finish_reason in _CUT_SHORT:
                return
            self.written = item
        if self._held is not None:
            self.pieces.append(self._held)
        self._held = item if isinstance(item, WrittenPiece) else None
        self.announce()

    def end(self) -> None:
        """Learn that nothing more is written."""
        self.is_over = True
        self.announce()

    def announce(self) -> None:
        """Wake all who wait for news."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait_news(self) -> None:
        """Wait until something became known."""
        await self._news.wait()


class SegmentCache:
    """Results, in a bounded amount of memory."""

    def __init__(self, max_bytes: int) -> None:
        """Make an empty one for so many bytes."""
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[Key, Result] = OrderedDict()  # longest unused first
        self._in_progress: dict[Key, Result] = {}

    @property
    def num_bytes(self) -> int:
        """About how much memory the results take that are kept."""
        return self._num_bytes

    def find(self, key: Key) -> Result | None:
        """Return a result that is kept or in progress."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        return self._in_progress.get(key)

    def begin(self, key: Key) -> Result:
        """Return a result that the caller will write and `end`.

        Raises:
            AssertionError: There is one already.
        """
        if self.find(key) is not None:
            raise AssertionError("a result is written twice. This is a bug.")
        result = self._in_progress[key] = Result()
        return result

    def end(self, key: Key) -> None:
        """Learn that a result is no longer written; keep it if it came to its own end."""
        result = self._in_progress.pop(key)
        result.end()
        size = result.num_bytes
        if result.written is None or size > self._max_bytes:
            return
        self._kept[key] = result
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
