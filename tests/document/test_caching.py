"""What was written is not written again: same pieces, no tokens, one who writes for all who ask."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.scripted_writer import ScriptedWriter
from document.stories import DONE, jobs_of, piece, segments_of
from hocket.server.document.cache import Result, SegmentCache
from hocket.server.document.caching import CachingWriter
from hocket.server.document.job import JobUsage, Place, Written
from hocket.server.engine.commands import FinishReason, Timings
from hocket.server.errors import GenerationFailed

TIMINGS = Timings(queue=0, prefill=0, first_token=0, first_text=0, total=1)
WHOLE = Written(
    finish_reason=FinishReason.MAX_TOKENS,
    usage=JobUsage(prompt_tokens=3, completion_tokens=4),
    timings=TIMINGS,
    protection="kept",
)
CACHED = Written(finish_reason=FinishReason.MAX_TOKENS, is_cached=True, protection="kept")
CANCELLED = Written(finish_reason=FinishReason.CANCELLED)


def key_of(job) -> bytes | None:
    return job.segment.text.encode() if job.segment.text != "free" else None


class Scene:
    """Jobs that share a cache; each is read by a task of its own."""

    def __init__(self, *texts: str, max_bytes: int = 1 << 20) -> None:
        self.cache = SegmentCache(max_bytes)
        self.inner = ScriptedWriter()
        self.jobs = jobs_of(segments_of(texts))
        self.writer = self.document()
        self.seen = {job.place: [] for job in self.jobs}
        self._news = asyncio.Event()

    def document(self, owner: str = "") -> CachingWriter:
        return CachingWriter(self.inner, self.cache, key=key_of, owner=owner)

    async def _read(self, index: int, writer: CachingWriter) -> list:
        job = self.jobs[index]
        async with aclosing(writer.write(job)) as items:
            async for item in items:
                self.seen[job.place].append(item)
                self._news.set()
        return self.seen[job.place]

    def begin(self, index: int, writer: CachingWriter | None = None) -> asyncio.Task:
        return asyncio.create_task(self._read(index, writer or self.writer))

    async def read(self, index: int, writer: CachingWriter | None = None) -> list:
        async with asyncio.timeout(20):
            return await self._read(index, writer or self.writer)

    async def follows(self, index: int, count: int = 0) -> None:
        """Wait until a job waits for another's result and has seen so much of it."""
        place = Place(index)
        async with asyncio.timeout(20):
            while place not in self.writer._following or len(self.seen[place]) < count:
                await asyncio.sleep(0)


async def test_a_hit_gives_the_same_pieces_and_takes_no_tokens():
    scene = Scene("a", "a")
    scene.inner.say(Place(0), piece("X."), piece("Y."), WHOLE)
    assert await scene.read(0) == [piece("X."), piece("Y."), WHOLE]
    assert await scene.read(1) == [piece("X."), piece("Y."), CACHED]
    assert scene.inner.begun == [Place(0)]


async def test_other_keys_other_owners_and_what_has_no_key_are_written():
    scene = Scene("a", "b", "a", "free", "free")
    for job in scene.jobs:
        scene.inner.say(job.place, piece("X"), WHOLE)
    other = scene.document("somebody else")
    for index, writer in enumerate([scene.writer, scene.writer, other, scene.writer, other]):
        assert await scene.read(index, writer) == [piece("X"), WHOLE]
    assert scene.inner.begun == [job.place for job in scene.jobs]


async def test_who_asks_for_what_is_being_written_follows_its_pieces():
    """The newest is held back: it might be what a cancel left."""
    scene = Scene("a", "a")
    leading = scene.begin(0)
    following = scene.begin(1)
    scene.inner.say(Place(0), piece("X."), piece("Y."))
    await scene.follows(1, 1)
    assert scene.seen[Place(1)] == [piece("X.")]
    scene.inner.say(Place(0), WHOLE)
    assert await leading == [piece("X."), piece("Y."), WHOLE]
    assert await following == [piece("X."), piece("Y."), CACHED]
    assert scene.inner.begun == [Place(0)]


@given(
    st.lists(st.sampled_from(["X.", "Y. ", "Z"]), max_size=6),
    st.integers(0, 6),
    st.sampled_from([WHOLE, DONE]),
)
def test_who_follows_waits_for_nobodys_reader(texts, count, end):
    """Whoever writes may have read as little as it likes."""

    async def story() -> None:
        scene = Scene("a", "a")
        scene.inner.say(Place(0), *map(piece, texts), end)
        async with aclosing(scene.writer.write(scene.jobs[0])) as slow:
            seen = [await anext(slow) for _ in range(1 + min(count, len(texts)))]
            assert scene.inner.begun == [Place(0)]
            followed = await scene.read(1)
            assert followed[:-1] == [piece(text) for text in texts]
            assert followed[-1].is_cached
            seen += [item async for item in slow]
        assert seen == [*map(piece, texts), end]
        assert scene.inner.begun == scene.inner.closed == [Place(0)]

    asyncio.run(story())


async def test_a_failure_that_nobody_reads_is_no_ones(no_leaked_tasks):
    """The reader left before it; who follows writes."""
    scene = Scene("a", "a")
    scene.inner.say(Place(0), piece("X."), piece("Y."), GenerationFailed())
    scene.inner.say(Place(1), piece("X."), DONE)
    async with aclosing(scene.writer.write(scene.jobs[0])) as left:
        assert await anext(left) == piece("X.")
        assert await scene.read(1) == [piece("X."), DONE]
    assert scene.inner.closed == [Place(0), Place(1)]


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is left"])
async def test_if_the_writer_does_not_end_the_next_one_writes(no_leaked_tasks, how):
    """It shows what it has not shown; a third follows it in turn."""
    scene = Scene("a", "a", "a")
    tasks = [scene.begin(index) for index in range(3)]
    scene.inner.say(Place(0), piece("X."), piece("Y"))
    await scene.follows(1, 1)
    await scene.follows(2, 1)
    if how == "fails":
        scene.inner.say(Place(0), GenerationFailed())
        with pytest.raises(GenerationFailed):
            await tasks[0]
    elif how == "is cancelled":
        scene.writer.cancel_nowait(scene.jobs[0])
        assert (await tasks[0])[-1] == CANCELLED
    else:
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
    scene.inner.say(Place(1), piece("X.Y. "), piece("Z."), WHOLE)
    assert await tasks[1] == [piece("X."), piece("Y. "), piece("Z."), WHOLE]
    assert await tasks[2] == [piece("X."), piece("Y. "), piece("Z."), CACHED]
    assert scene.inner.begun == [Place(0), Place(1)]


async def test_a_text_that_comes_out_differently_fails():
    """Its reader has seen the beginning of another."""
    scene = Scene("a", "a")
    leading, following = scene.begin(0), scene.begin(1)
    scene.inner.say(Place(0), piece("X."), piece("Y."))
    await scene.follows(1, 1)
    scene.inner.say(Place(0), GenerationFailed())
    with pytest.raises(GenerationFailed):
        await leading
    scene.inner.say(Place(1), piece("Other."))
    with pytest.raises(GenerationFailed) as caught:
        await following
    assert caught.value.metadata["cause"] == "not_repeatable"
    assert scene.inner.closed == [Place(0), Place(1)]


async def test_who_follows_is_cancelled_alone():
    scene = Scene("a", "a")
    leading, following = scene.begin(0), scene.begin(1)
    scene.inner.say(Place(0), piece("X."), piece("Y."))
    await scene.follows(1, 1)
    scene.writer.cancel_nowait(scene.jobs[1])
    assert await following == [piece("X."), CANCELLED]
    scene.inner.say(Place(0), WHOLE)
    assert (await leading)[-1] == WHOLE
    assert scene.inner.cancelled == []


async def test_what_is_cancelled_before_it_is_begun_is_not_written():
    """The writer does not know of it yet, so that it cannot be asked to end it."""
    scene = Scene("a", "a")
    leading = scene.writer.write(scene.jobs[0])
    asking = asyncio.create_task(anext(leading))
    await asyncio.sleep(0)
    scene.writer.cancel_nowait(scene.jobs[0])
    assert await asking == CANCELLED
    assert scene.inner.begun == []
    await leading.aclose()
    scene.inner.say(Place(1), DONE)
    assert await scene.read(1) == [DONE]


async def test_what_is_left_before_it_is_begun_stands_in_nobodys_way(no_leaked_tasks):
    scene = Scene("a", "a")
    leading = scene.begin(0)
    await asyncio.sleep(0)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    scene.inner.say(Place(1), DONE)
    assert await scene.read(1) == [DONE]


async def test_who_writes_is_cancelled_through():
    scene = Scene("free", "a")
    for index in range(2):
        task = scene.begin(index)
        await scene.inner.wait_for(lambda index=index: Place(index) in scene.inner.begun)
        scene.writer.cancel_nowait(scene.jobs[index])
        assert await task == [CANCELLED]
    assert scene.cache.num_bytes == 0


@pytest.mark.parametrize("reason", ["CANCELLED", "ABORTED", "TIME_BUDGET"])
async def test_what_was_cut_short_is_not_kept(reason):
    scene = Scene("a", "a")
    scene.inner.say(Place(0), piece("X"), Written(finish_reason=FinishReason[reason]))
    scene.inner.say(Place(1), piece("XY"), DONE)
    await scene.read(0)
    assert await scene.read(1) == [piece("XY"), DONE]


async def test_what_is_larger_than_the_cache_is_not_kept_but_shared():
    scene = Scene("a", "a", "a", max_bytes=1_000)
    leading, following = scene.begin(0), scene.begin(1)
    scene.inner.say(Place(0), piece("X" * 1_000))
    await scene.follows(1)
    scene.inner.say(Place(0), DONE)
    await leading
    assert (await following)[-1].is_cached
    assert scene.cache.num_bytes == 0
    scene.inner.say(Place(2), DONE)
    assert await scene.read(2) == [DONE]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=30))
def test_memory_is_bounded_and_what_was_used_last_stays(uses):
    """As a list of results in order of their last use says, too."""

    async def story() -> None:
        cache, order, sizes = SegmentCache(2_000), [], {}
        for name, size in uses:
            key = ("", name.encode())
            if cache.find(key) is None:
                assert name not in order
                result = cache.begin(key)
                result.add(piece("x" * size))
                result.add(DONE)
                cache.end(key)
                sizes[name] = result.num_bytes
            else:
                order.remove(name)
            order.append(name)
            while sum(sizes[each] for each in order) > 2_000:
                order.pop(0)
            assert list(cache._kept) == [("", each.encode()) for each in order]
            assert cache.num_bytes == sum(sizes[each] for each in order) <= 2_000

    asyncio.run(story())


async def test_a_result_is_written_once():
    cache = SegmentCache(1_000)
    assert isinstance(cache.begin(("", b"a")), Result)
    with pytest.raises(AssertionError, match="bug"):
        cache.begin(("", b"a"))
