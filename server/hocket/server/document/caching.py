"""A writer around a writer: takes what was written before from the cache. Loop thread.

kept           its pieces, at once
in progress    its pieces as they become known; if they never come to an end, it is written here
unknown        written here, for all who ask meanwhile

What is written here is written by a task of its own, at the engine's pace: who follows waits for
nobody's reader. What a slow reader has not taken yet is kept, at most the text of its job.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from hocket.server.document.cache import Key, Result, SegmentCache
from hocket.server.document.job import Job, JobUsage, Place, Written, WrittenPiece
from hocket.server.document.writer import Writer
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import GenerationFailed

Items = AsyncGenerator[WrittenPiece | Written]
_Said = asyncio.Queue[WrittenPiece | Written | None]


class _Shown:
    """What a reader has seen of a text that may begin again."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0

    def begin(self) -> None:
        """Learn that the text begins again."""
        self._at = 0

    def news(self, piece: WrittenPiece) -> list[WrittenPiece]:
        """Return what of the next piece has not been seen, as a piece or none.

        Raises:
            GenerationFailed: It is another text than the one that was seen.
        """
        seen = self._text[self._at : self._at + len(piece.text)]
        self._at += len(piece.text)
        if not piece.text.startswith(seen):
            raise GenerationFailed("not_repeatable")
        rest = piece.text[len(seen) :]
        self._text += rest
        return [replace(piece, text=rest)] if rest else []


class CachingWriter:
    """Writes the segments of one document, those that were written before from the cache."""

    def __init__(
        self,
        writer: Writer,
        cache: SegmentCache,
        *,
        key: Callable[[Job], bytes | None],
        owner: str = "",
    ) -> None:
        """Make it.

        Args:
            writer: Writes what is not in the cache.
            cache: Shared by all documents.
            key: Tells a job's result from all that may differ; None if no other may have it.
            owner: Who asks; results are shared by one owner's documents alone.
        """
        self._writer = writer
        self._cache = cache
        self._key = key
        self._owner = owner
        self._following: dict[Place, Result] = {}
        self._cancelled: set[Place] = set()

    async def write(self, job: Job) -> Items:
        """Yield the pieces of a job, then how it ended; see `Writer.write`.

        Raises:
            HocketError: It is written here, and failed.
        """
        own = self._key(job)
        items = self._writer.write(job) if own is None else self._share(job, (self._owner, own))
        try:
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            self._cancelled.discard(job.place)

    def cancel_nowait(self, job: Job) -> None:
        """Ask that a job in progress end now; see `Writer.cancel_nowait`."""
        self._cancelled.add(job.place)
        result = self._following.get(job.place)
        if result is None:
            self._writer.cancel_nowait(job)
        else:
            result.announce()

    async def _share(self, job: Job, key: Key) -> Items:
        """Yield a job's items, from somebody else's result while there is one."""
        shown = _Shown()
        try:
            while (result := self._cache.find(key)) is not None:
                self._following[job.place] = result
                is_over = False
                async with aclosing(self._follow(job.place, result, shown)) as items:
                    async for item in items:
                        yield item
                        is_over = isinstance(item, Written)
                if is_over:
                    return
            self._following.pop(job.place, None)
            async with aclosing(self._lead(job, key, shown)) as items:
                async for item in items:
                    yield item
        finally:
            self._following.pop(job.place, None)

    async def _follow(self, place: Place, result: Result, shown: _Shown) -> Items:
        """Yield what becomes known of a result, and its end if it has one."""
        shown.begin()
        known = 0
        while True:
            while known < len(result.pieces):
                for piece in shown.news(result.pieces[known]):
                    yield piece
                known += 1
            if place in self._cancelled and result.written is None:
                yield Written(finish_reason=FinishReason.CANCELLED)
                return
            if result.written is not None:
                yield replace(result.written, is_cached=True, usage=JobUsage(), timings=None)
                return
            if result.is_over:
                return
            await result.wait_news()

    async def _lead(self, job: Job, key: Key, shown: _Shown) -> Items:
        """Yield what is written, and let others follow."""
        shown.begin()
        said: _Said = asyncio.Queue()
        result = self._cache.begin(key)
        writing = asyncio.create_task(self._write(job, result, said))

        def end(writing: asyncio.Task[None]) -> None:
            self._cache.end(key)
            said.put_nowait(None)
            if not writing.cancelled():
                writing.exception()  # is raised below, if anybody still reads

        writing.add_done_callback(end)
        try:
            while (item := await said.get()) is not None:
                if isinstance(item, Written):
                    yield item
                    continue
                for piece in shown.news(item):
                    yield piece
            await writing
        finally:
            writing.cancel()

    async def _write(self, job: Job, result: Result, said: _Said) -> None:
        """Write a job to its end, or until cancelled."""
        if job.place in self._cancelled:  # before the writer could know of it
            said.put_nowait(Written(finish_reason=FinishReason.CANCELLED))
            return
        async with aclosing(self._writer.write(job)) as items:
            async for item in items:
                result.add(item)
                said.put_nowait(item)
