"""Tells people on a terminal how far starting has come.

One thread at a time: the engine's while it loads, before and after it the loop's.

Elsewhere than on a terminal each stage is one log line, and how far a stage has come is not told.
"""

import time
from collections.abc import Callable
from typing import TextIO

import structlog

_log = structlog.get_logger(__name__)

_REDRAW_SECONDS = 0.1
_ERASE_LINE = "\r\x1b[2K"


class Progress:
    """The stages of starting, on one line that is written over.

    Use `close` at the end: it leaves the line empty.
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a progress; `stream` is written to if it is a terminal, None says nothing."""
        self._stream = stream if stream is not None and stream.isatty() else None
        self._clock = clock
        self._stage = ""
        self._drawn_at = float("-inf")
        self._is_drawn = False

    def report(self, stage: str, fraction: float | None = None) -> None:
        """Tell the stage, and how much of it is done, from 0 to 1, where that is known."""
        is_new, self._stage = stage != self._stage, stage
        if is_new and self._stream is None:
            _log.info("starting", stage=stage)
        now = self._clock()
        is_due = is_new or fraction == 1 or now - self._drawn_at >= _REDRAW_SECONDS
        if self._stream is None or not is_due:
            return
        self._drawn_at = now
        self._is_drawn = True
        percent = "" if fraction is None else f" {100 * min(max(fraction, 0.0), 1.0):3.0f} %"
        self._write(f"{_ERASE_LINE}{stage}{percent} ...")

    def announce(self, line: str) -> bool:
        """Write a line that stays, in place of the stage; False if nobody looks."""
        if self._stream is None:
            return False
        self._write(f"{_ERASE_LINE if self._is_drawn else ''}{line}\n")
        self._is_drawn = False
        return True

    def close(self) -> None:
        """Leave nothing half written. Repeatable."""
        if self._is_drawn:
            self._write(_ERASE_LINE)
            self._is_drawn = False

    def _write(self, text: str) -> None:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:  # nobody looks any more
                self._stream = None
