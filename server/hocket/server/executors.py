"""The threads behind the loop, each executor with a semaphore in front. Loop thread.

An executor's own queue has no bound, so nothing is handed over for which no thread is free. A slot
comes back when its thread has finished, not when the caller gave up waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, TypeVar

from annotated_types import Ge, Le

from hocket.server.errors import Overloaded

_T = TypeVar("_T")

_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorConfig:
    """How many threads work on text.

    Attributes:
        text_threads: Threads that tokenise and split.
        max_text_waiting: Most pieces of such work that wait for a thread; more are refused.
    """

    text_threads: Annotated[int, Ge(1), Le(64)] = 2
    max_text_waiting: Annotated[int, Ge(1), Le(65_536)] = 256


class Executors:
    """The engine's one thread, and those that work on text."""

    def __init__(self, config: ExecutorConfig) -> None:
        self._config = config
        self.engine = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hocket-engine")
        self._text = ThreadPoolExecutor(
            max_workers=config.text_threads, thread_name_prefix="hocket-text"
        )
        self._slots = asyncio.Semaphore(config.text_threads)
        self._waiting = 0

    @property
    def text_waiting(self) -> int:
        """Pieces of work that wait for a text thread."""
        return self._waiting

    async def run_text(self, work: Callable[[], _T]) -> _T:
        """Run a function on a text thread and return its result.

        Raises:
            Overloaded: Too much waits already.
            Exception: Whatever the function raises.
        """
        if self._waiting >= self._config.max_text_waiting:
            raise Overloaded(
                scope="server",
                limit=self._config.max_text_waiting,
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        try:
            future = self._text.submit(work)
        except BaseException:
            self._slots.release()
            raise

        def give_back(_done: Future[_T]) -> None:
            # The loop may be gone when the last thread ends; then nobody needs the slot.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._slots.release)

        future.add_done_callback(give_back)
        return await asyncio.wrap_future(future)

    async def close(self, timeout_seconds: float) -> bool:
        """Take no more work and wait for the threads; False if they did not end in time."""
        for executor in (self.engine, self._text):
            executor.shutdown(wait=False, cancel_futures=True)
        threads = [*self.engine._threads, *self._text._threads]  # noqa: SLF001 - to join them in time
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while any(thread.is_alive() for thread in threads):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True
