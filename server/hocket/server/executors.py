"""The threads behind the loop, each executor with a semaphore in front. Loop thread.

An executor's own queue has no bound, so nothing is handed over for which no thread is free. A slot
comes back when its thread has finished, not when the caller gave up waiting.
"""

import asyncio
import contextlib
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
        text_threads: Threads that tokenise prompts; as many again work for `TextService`.
        max_text_waiting: Most prompts that wait for a thread; more are refused.
        translator_threads: Threads of translators that are no language models, all together.
    """

    text_threads: Annotated[int, Ge(1), Le(64)] = 2
    max_text_waiting: Annotated[int, Ge(1), Le(65_536)] = 256
    translator_threads: Annotated[int, Ge(1), Le(256)] = 2


class Executors:
    """One thread for each engine worker, those that work on text, and those of translators.

    Attributes:
        engines: Executors of one thread each.
    """

    def __init__(self, config: ExecutorConfig, *, engine_workers: int = 1) -> None:
        self._config = config
        self.engines = tuple(
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="hocket-engine")
            for _ in range(engine_workers)
        )
        self._text = ThreadPoolExecutor(
            max_workers=2 * config.text_threads, thread_name_prefix="hocket-text"
        )
        # Two lanes, so that no prompt waits behind the texts of `TextService`.
        self._slots = asyncio.Semaphore(config.text_threads)
        self._aside_slots = asyncio.Semaphore(config.text_threads)
        self._waiting = 0
        self._aside_waiting = 0
        self._translators = ThreadPoolExecutor(
            max_workers=config.translator_threads, thread_name_prefix="hocket-translator"
        )
        self._translator_slots = asyncio.Semaphore(config.translator_threads)
        self._translator_waiting = 0

    @property
    def text_waiting(self) -> int:
        """Pieces of work that wait for a text thread."""
        return self._waiting + self._aside_waiting

    @property
    def translator_waiting(self) -> int:
        """Sentences that wait for the thread of a translator."""
        return self._translator_waiting

    async def run_text(self, work: Callable[[], _T]) -> _T:
        """Run a function on a text thread and return its result. For prompts.

        Raises:
            Overloaded: Too many wait already.
            Exception: Whatever the function raises.
        """
        if self._waiting >= self._config.max_text_waiting:
            raise Overloaded(
                scope="server",
                limit=self._config.max_text_waiting,
                noun="prompts that wait for a thread",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        return await self._run(work, self._text, self._slots)

    async def run_aside(self, work: Callable[[], _T]) -> _T:
        """Run a short function for which no prompt waits, on a text thread; return its result.

        How many wait is bounded by the admission of its callers.

        Raises:
            Exception: Whatever the function raises.
        """
        self._aside_waiting += 1
        try:
            await self._aside_slots.acquire()
        finally:
            self._aside_waiting -= 1
        return await self._run(work, self._text, self._aside_slots)

    async def run_translator(self, work: Callable[[], _T]) -> _T:
        """Run a function on the thread of a translator and return its result.

        How many wait is bounded by the admission of documents.

        Raises:
            Exception: Whatever the function raises.
        """
        self._translator_waiting += 1
        try:
            await self._translator_slots.acquire()
        finally:
            self._translator_waiting -= 1
        return await self._run(work, self._translators, self._translator_slots)

    async def _run(
        self, work: Callable[[], _T], threads: ThreadPoolExecutor, slots: asyncio.Semaphore
    ) -> _T:
        """Run a function in a slot that was taken and comes back when the thread is free."""
        loop = asyncio.get_running_loop()
        try:
            future = threads.submit(_plainly, work)
        except BaseException:
            slots.release()
            raise

        def give_back(_done: Future[_T]) -> None:
            # The loop may be gone when the last thread ends; then nobody needs the slot.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(slots.release)

        future.add_done_callback(give_back)
        return await asyncio.wrap_future(future)

    async def close(self, timeout_seconds: float) -> bool:
        """Take no more work and wait for the threads; False if they did not end in time."""
        executors = (*self.engines, self._text, self._translators)
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        threads = [thread for each in executors for thread in each._threads]  # noqa: SLF001 - to join them in time
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while any(thread.is_alive() for thread in threads):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True


def _plainly(work: Callable[[], _T]) -> _T:
    """Run a function; no future of asyncio can hold a StopIteration, its reader would hang."""
    try:
        return work()
    except StopIteration as error:
        raise RuntimeError("StopIteration left a piece of work") from error
