"""Rows on their way: taken from the source by gRPC's thread, given back as results by the main one.

One condition guards them. A row stays known until its result was taken, so that it can be sent
again when a connection is lost.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator

from hocket.client._map.sources import Row

_MOST_AHEAD = 4_096
"""Rows past the first without a result; that bounds the journal's lines and what is in memory."""


class Feed:
    """The rows of a job that have no result yet."""

    def __init__(self, waiting: Iterable[Row], source: Iterator[Row], *, next_seq: int) -> None:
        """Make it.

        Args:
            waiting: Rows that the source has given before, in order.
            source: Gives the others.
            next_seq: All rows below it have their results.
        """
        self._waiting = deque(waiting)
        self._source = source
        self._is_source_empty = False
        self._sent: dict[int, Row] = {}
        self._next = next_seq
        self._attempt = object()
        self._changed = threading.Condition()

    @property
    def is_empty(self) -> bool:
        """Whether every row has its result."""
        with self._changed:
            return self._is_source_empty and not self._waiting and not self._sent

    def begin(self) -> Iterator[tuple[str, str]]:
        """Send what has no result, on a new attempt; the one before takes nothing more."""
        self.stop()
        with self._changed:
            self._waiting = deque(
                sorted((*self._sent.values(), *self._waiting), key=lambda row: row.seq)
            )
            self._sent.clear()
            return self._items(self._attempt)

    def stop(self) -> None:
        """End the present attempt's iteration. Repeatable."""
        with self._changed:
            self._attempt = object()
            self._changed.notify_all()

    def row(self, seq: int) -> Row:
        """Return a row that was sent."""
        with self._changed:
            return self._sent[seq]

    def end(self, seq: int, *, next_seq: int) -> None:
        """Forget a row that has its result; all below `next_seq` have."""
        with self._changed:
            del self._sent[seq]
            self._next = next_seq
            self._changed.notify_all()

    def _items(self, attempt: object) -> Iterator[tuple[str, str]]:
        while (row := self._take(attempt)) is not None:
            yield str(row.seq), row.text

    def _take(self, attempt: object) -> Row | None:
        with self._changed:
            while attempt is self._attempt:
                if not self._waiting:
                    row = next(self._source, None)
                    if row is None:
                        self._is_source_empty = True
                        return None
                    self._waiting.append(row)
                if self._waiting[0].seq < self._next + _MOST_AHEAD:
                    row = self._waiting.popleft()
                    self._sent[row.seq] = row
                    return row
                self._changed.wait()
        return None
