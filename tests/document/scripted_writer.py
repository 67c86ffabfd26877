"""A writer in a test's hands, and a door with so many places."""

import asyncio
from collections import defaultdict

from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.engine.commands import FinishReason


class ScriptedWriter:
    """Writes what it is told, when it is told: pieces, an end, or an error that it raises."""

    def __init__(self, *, obeys: bool = True) -> None:
        self.begun: list[Place] = []
        self.closed: list[Place] = []
        self.cancelled: list[Place] = []
        self._obeys = obeys
        self._said: dict[Place, asyncio.Queue] = defaultdict(asyncio.Queue)
        self._news = asyncio.Event()

    @property
    def in_progress(self) -> set[Place]:
        return set(self.begun) - set(self.closed)

    def say(self, place: Place, *items: WrittenPiece | Written | BaseException | None) -> None:
        """Let a job write this; None lets it end without a word."""
        for item in items:
            self._said[place].put_nowait(item)

    async def write(self, job: Job):
        self.begun.append(job.place)
        self._news.set()
        try:
            while (item := await self._said[job.place].get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Written):
                    return
        finally:
            self.closed.append(job.place)
            self._news.set()

    def cancel_nowait(self, job: Job) -> None:
        self.cancelled.append(job.place)
        if self._obeys:
            self.say(job.place, Written(finish_reason=FinishReason.CANCELLED))

    async def wait_for(self, condition) -> None:
        """Wait until a condition holds that jobs change as they begin or are closed."""
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Door:
    """A door with so many more places."""

    def __init__(self, free: int = 1_000) -> None:
        self.free = free
        self.asked = 0

    def try_enter(self) -> "Door | None":
        self.asked += 1
        if not self.free:
            return None
        self.free -= 1
        return self

    def release(self) -> None:
        self.free += 1
