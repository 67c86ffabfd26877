"""How long the messages of one call may be left unread: one timer a call, not one a message.

Loop thread. `asyncio.timeout` around each write does the same, but a message costs 14 microseconds
more, of which a batch writes thousands in a second.
"""

import asyncio
from collections.abc import Awaitable
from typing import Self

from hocket.server.errors import ReaderTooSlow


class Patience:
    """Waits for writes, in the task that it was entered in, one after the other."""

    def __init__(self, seconds: float) -> None:
        """Make it; a context manager, for one use.

        Args:
            seconds: Longest that one write takes.
        """
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None  # the write in progress
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelled_before = 0
        self._is_over = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("entered outside of a task. This is a bug.")
        self._cancelled_before = self._task.cancelling()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, write: Awaitable[None]) -> None:
        """Wait for a write.

        Raises:
            ReaderTooSlow: It took too long, and was cancelled.
        """
        self._began = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._began + self._seconds, self._look)
        try:
            await write
        except asyncio.CancelledError:
            task = self._task
            if self._is_over and task and task.uncancel() <= self._cancelled_before:
                raise ReaderTooSlow(limit_seconds=self._seconds) from None
            raise
        finally:
            self._began = None

    def _look(self) -> None:
        """Give up on a write that takes too long, or look again when it would."""
        self._timer = None
        if self._began is None or self._task is None:
            return  # the next write sets the timer
        due = self._began + self._seconds
        if due <= self._loop.time():
            self._is_over = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(due, self._look)
