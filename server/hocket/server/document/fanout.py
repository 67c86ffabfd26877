"""Runs the jobs of one document, each in a task of its own, within a window. Loop thread.

Jobs begin in order, at most a window of them before the first that is not over, so that what a
reader in order has to wait for is bounded. The first in progress stands on the document's own place
at the door; each beside it takes one more, or waits until another ended: a document is never
refused for what it grew to.

What the tasks say goes through a short queue: where the reader is slow they wait, and their writers
merge what gathers. Cancels and leaving wait for nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from hocket.server.document.job import (
    Job,
    JobEnded,
    JobEvent,
    JobPiece,
    JobStarted,
    Place,
    Written,
)
from hocket.server.document.writer import Writer
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import GenerationFailed, HocketError

_QUEUE_EVENTS = 64
_ALL_VARIANTS = -1  # as bits

OnBug = Callable[[Job, BaseException], None]


class Permit(Protocol):
    """A place at the door."""

    def release(self) -> None:
        """Give it back. Repeatable."""
        ...


class Places(Protocol):
    """The door, for a document that is inside."""

    def try_enter(self) -> Permit | None:
        """Take one more place; None if none is free."""
        ...


@dataclass(eq=False, slots=True)
class _Live:
    """A job that has begun and is not over.

    Attributes:
        position: Of the job among all.
        reason: Why it is to end before its time; None while it is not.
        has_place: Whether it counts at the door.
        is_writing: Whether its writer works on it.
    """

    job: Job
    position: int
    reason: FinishReason | None = None
    has_place: bool = False
    is_writing: bool = False


class Fanout:
    """The jobs of one document, for one use."""

    def __init__(self, writer: Writer, *, window: int, places: Places, on_bug: OnBug) -> None:
        """Make it.

        Args:
            writer: Writes each job.
            window: Most jobs that are begun from the first that is not over on, at least 1.
            places: Where a job beside the first in progress takes a place.
            on_bug: Told of what a writer raised that is no `HocketError`; must not raise.
        """
        self._writer = writer
        self._window = window
        self._places = places
        self._on_bug = on_bug
        self._live: dict[Place, _Live] = {}  # in order
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: asyncio.Queue[JobEvent | None] = asyncio.Queue(_QUEUE_EVENTS)
        self._changed = asyncio.Event()
        self._segment = 0  # of the newest job
        self._cancelled: dict[int, int] = {}  # from that segment on: its variants, as bits
        self._num_placed = 0
        self._permits: list[Permit] = []  # one fewer than jobs that have a place
        self._ended_for: FinishReason | None = None  # all of it
        self._error: Exception | None = None

    @property
    def is_expired(self) -> bool:
        """Whether the time was up."""
        return self._ended_for is FinishReason.TIME_BUDGET

    async def events(self, jobs: AsyncGenerator[Job]) -> AsyncGenerator[JobEvent]:
        """Yield the events of all jobs as they come, each job's own in order.

        Args:
            jobs: In order of their places; the next one is asked for once the last has begun.

        Raises:
            Exception: Whatever `jobs` raises, once all that came before it ended.
        """
        feeding = asyncio.create_task(self._feed(jobs))
        feeding.add_done_callback(self._wake)
        try:
            while self._tasks or not self._queue.empty() or not feeding.done():
                event = await self._queue.get()
                if event is not None:
                    yield event
            if self._error is not None:
                raise self._error
        finally:
            for task in (feeding, *self._tasks):
                task.cancel()
            while self._permits:
                self._permits.pop().release()

    def cancel_nowait(self, segment: int, variant: int | None = None) -> None:
        """End a segment in one variant or all; one that has not begun is not written. Repeatable.

        A segment that is over is left alone.
        """
        for live in tuple(self._live.values()):
            if live.job.place.segment == segment and variant in {None, live.job.place.variant}:
                self._end(live, FinishReason.CANCELLED)
        if segment >= self._segment:
            bits = _ALL_VARIANTS if variant is None else 1 << variant
            self._cancelled[segment] = self._cancelled.get(segment, 0) | bits
        self._changed.set()

    def expire_nowait(self) -> None:
        """End all that is in progress because the time is up, and write no more. Repeatable."""
        self._end_all(FinishReason.TIME_BUDGET)

    def abort_nowait(self) -> None:
        """End all that is in progress because an operator says so, and write no more."""
        self._end_all(FinishReason.ABORTED)

    def _end_all(self, reason: FinishReason) -> None:
        self._ended_for = self._ended_for or reason
        for live in tuple(self._live.values()):
            self._end(live, self._ended_for)
        self._changed.set()

    def _end(self, live: _Live, reason: FinishReason) -> None:
        if live.reason is None:
            live.reason = reason
            if live.is_writing:
                self._writer.cancel_nowait(live.job)

    async def _feed(self, jobs: AsyncGenerator[Job]) -> None:
        """Begin the jobs, one after the other, as there is room."""
        position = 0
        try:
            async with aclosing(jobs):
                async for job in jobs:
                    await self._begin(_Live(job, position))
                    position += 1
        except Exception as error:  # noqa: BLE001 - raised again once all that has begun ended
            self._error = error
        except asyncio.CancelledError:
            if _is_left():
                raise
            self._error = GenerationFailed()  # what came is not all there was

    async def _begin(self, live: _Live) -> None:
        """Wait until a job may begin, and begin it."""
        place = live.job.place
        if place.segment != self._segment:
            self._cancelled.pop(self._segment, None)
            self._segment = place.segment
        while not self._admit(live):
            self._changed.clear()
            await self._changed.wait()
        self._live[place] = live
        task = asyncio.create_task(self._run(live))
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, place))

    def _admit(self, live: _Live) -> bool:
        """Let a job begin, on a place or with a reason to need none; False if it must wait."""
        first = next(iter(self._live.values()), live)
        if live.position - first.position >= self._window:
            return False
        place = live.job.place
        if self._ended_for is not None:
            live.reason = self._ended_for
        elif self._cancelled.get(place.segment, 0) >> place.variant & 1:
            live.reason = FinishReason.CANCELLED
        elif self._num_placed:
            permit = self._places.try_enter()
            if permit is None:
                return False
            self._permits.append(permit)
        if live.reason is None:
            live.has_place = True
            self._num_placed += 1
        return True

    async def _run(self, live: _Live) -> None:
        """Run one job to its last event."""
        await self._queue.put(JobStarted(live.job))
        if live.reason is None:
            ended = await self._write(live)
        else:
            ended = JobEnded(
                job=live.job, target_bytes=0, written=Written(finish_reason=live.reason)
            )
        self._give_back(live)
        await self._queue.put(ended)

    async def _write(self, live: _Live) -> JobEnded:
        """Have a job written; return how it ended."""
        job, index, size = live.job, 0, 0
        written: Written | None = None
        failure: HocketError | None = None
        live.is_writing = True
        try:
            async with aclosing(self._writer.write(job)) as items:
                async for item in items:
                    if isinstance(item, Written):
                        written = item
                        continue
                    await self._queue.put(JobPiece(job.place, index, size, item))
                    index += 1
                    size += len(item.text.encode())
            if written is None:
                raise RuntimeError("a writer did not say how its job ended")  # noqa: TRY301 - told as all its bugs
        except HocketError as error:
            failure = error
        except (Exception, asyncio.CancelledError) as error:
            if _is_left():
                raise
            self._on_bug(job, error)
            failure = GenerationFailed()
        finally:
            live.is_writing = False
        if failure is not None:
            return JobEnded(job=job, target_bytes=size, failure=failure)
        if written is not None and written.finish_reason is FinishReason.CANCELLED:
            written = replace(written, finish_reason=live.reason or FinishReason.CANCELLED)
        return JobEnded(job=job, target_bytes=size, written=written)

    def _give_back(self, live: _Live) -> None:
        """Give the place of a job back."""
        if not live.has_place:
            return
        live.has_place = False
        self._num_placed -= 1
        if self._permits:
            self._permits.pop().release()
        self._changed.set()

    def _over(self, place: Place, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._live[place]
        self._changed.set()
        self._wake()

    def _wake(self, _task: asyncio.Task[None] | None = None) -> None:
        """Let the reader see that something is over."""
        with contextlib.suppress(asyncio.QueueFull):  # then it is not asleep
            self._queue.put_nowait(None)


def _is_left() -> bool:
    """Whether a task is cancelled because we leave, not something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
