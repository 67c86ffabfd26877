"""How far a job has come, on standard error: a bar for people, lines otherwise. Main thread."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_BAR_CELLS = 24
_BAR_SECONDS, _LINE_SECONDS = 0.1, 10.0
_MINUTE, _HOUR = 60, 3_600


class JobProgress:
    """Counts rows and shows what came of them."""

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        failed: int = 0,
        is_quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            total: How many rows there are.
            done: How many of them an earlier run has done, those that failed among them.
            failed: How many of these failed.
            is_quiet: Show nothing.
            stream: Where to; standard error if None.
            clock: Monotonic seconds.
        """
        self._total = total
        self._before = done
        self._done = done
        self.failed = failed
        self._tokens = 0
        self._is_quiet = is_quiet
        self._stream = stream or sys.stderr
        self._is_bar = self._stream.isatty()
        self._clock = clock
        self._began = clock()
        self._shown_at = self._began
        if done and not is_quiet:
            self._print(f"going on after {done:,} of {total:,}")

    def add(self, *, is_failed: bool, tokens: int) -> None:
        """Count a row that is done, and show it if it is time to."""
        self._done += 1
        self.failed += is_failed
        self._tokens += tokens
        now = self._clock()
        if now - self._shown_at >= (_BAR_SECONDS if self._is_bar else _LINE_SECONDS):
            self._shown_at = now
            self._show()

    def say(self, message: str) -> None:
        """Show a line of its own."""
        if not self._is_quiet:
            self._print(("\r\x1b[K" if self._is_bar else "") + message)

    def finish(self) -> None:
        """Show how it ended."""
        self._show()
        if self._is_bar and not self._is_quiet:
            self._print("")

    def line(self) -> str:
        """Return it in words."""
        seconds = max(self._clock() - self._began, 1e-9)
        rate = (self._done - self._before) / seconds
        parts = [f"{self._done:,}/{self._total:,} done", f"{self.failed:,} failed", f"{rate:.1f}/s"]
        if self._tokens:
            parts.append(f"{self._tokens / seconds:,.0f} tokens/s")
        left = max(0, self._total - self._done)
        if left and rate:
            parts.append(f"ETA {_time(left / rate)}")
        elif not left:
            parts.append(f"in {_time(seconds)}")
        return "  ".join(parts)

    def _show(self) -> None:
        if self._is_quiet:
            return
        if not self._is_bar:
            self._print(self.line())
            return
        full = _BAR_CELLS * self._done // max(self._total, self._done, 1)
        bar = "#" * full + "-" * (_BAR_CELLS - full)
        self._stream.write(f"\r\x1b[K[{bar}] {self.line()}")
        self._stream.flush()

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _time(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
