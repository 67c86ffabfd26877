"""Jobs run within the window, lower first; each ends alone; leaving leaves nothing behind."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.scripted_writer import Door, ScriptedWriter
from document.stories import DONE, jobs_of, key, piece, segments_of
from hocket.server.document.fanout import Fanout
from hocket.server.document.job import JobEnded, JobPiece, JobStarted, Place, Written
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import EngineFailed, GenerationFailed, Overloaded

CANCELLED, TIME_BUDGET = FinishReason.CANCELLED, FinishReason.TIME_BUDGET


async def given_jobs(jobs, error: Exception | None = None):
    for job in jobs:
        yield job
    if error is not None:
        raise error


class Scene:
    """A fanout, its writer, its door, and what it said so far."""

    def __init__(self, texts: str, *, window: int = 8, variants: int = 1, **kwargs) -> None:
        self.writer = kwargs.pop("writer", None) or ScriptedWriter()
        self.door = Door(kwargs.pop("free", 1_000))
        self.bugs = []
        self.jobs = jobs_of(segments_of(list(texts)), variants)
        self.fanout = Fanout(
            self.writer,
            window=window,
            places=self.door,
            on_bug=lambda job, error: self.bugs.append((job.place, error)),
        )
        self.said = []
        self.events = self.fanout.events(kwargs.pop("source", None) or given_jobs(self.jobs))

    @property
    def started(self) -> list[Place]:
        return [event.job.place for event in self.said if isinstance(event, JobStarted)]

    @property
    def ends(self) -> dict[int, JobEnded]:
        return {e.job.place.segment: e for e in self.said if isinstance(e, JobEnded)}

    async def until(self, condition) -> None:
        """Read on until a condition of what was said holds."""
        async with asyncio.timeout(20):
            while not condition():
                self.said.append(await anext(self.events))

    async def until_more(self, place: Place) -> None:
        """Read on until a job said something more."""
        before = len(self.said)
        await self.until(lambda: any(key(event)[0] == place for event in self.said[before:]))

    async def rest(self) -> None:
        async with asyncio.timeout(20):
            async for event in self.events:
                self.said.append(event)


@given(st.data())
def test_any_course_begins_what_it_may_and_says_all(data):
    """Within window and places, in order, all that may begin has begun; no event is lost."""
    texts = data.draw(st.text("ab", min_size=1, max_size=5))
    variants, window = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5))
    free = data.draw(st.integers(0, 4))

    async def story() -> None:
        scene = Scene(texts, window=window, variants=variants, free=free)
        places = [job.place for job in scene.jobs]
        left = {
            place: [
                *map(piece, data.draw(st.lists(st.text("xé", min_size=1, max_size=2), max_size=2))),
                data.draw(st.sampled_from([DONE, GenerationFailed()])),
            ]
            for place in places
        }
        written = {place: "".join(p.text for p in items[:-1]) for place, items in left.items()}
        while left:
            first = next(index for index, place in enumerate(places) if place in left)
            over = len(places) - len(left)
            may = min(len(places), first + window, over + 1 + free)
            await scene.until(lambda may=may: len(scene.started) == may)
            await scene.writer.wait_for(lambda: len(scene.writer.begun) == len(scene.started))
            live = [place for place in scene.started if place in left]
            place = data.draw(st.sampled_from(live))
            scene.writer.say(place, left[place].pop(0))
            await scene.until_more(place)
            left = {place: items for place, items in left.items() if items}
        await scene.rest()
        assert places == scene.started == scene.writer.begun
        assert scene.door.free == free
        texts_said = dict.fromkeys(places, "")
        for event in sorted(scene.said, key=key):
            if isinstance(event, JobPiece):
                assert event.start_byte == len(texts_said[event.place].encode())
                texts_said[event.place] += event.piece.text
        assert written == texts_said
        ends = {e.job.place: e for e in scene.said if isinstance(e, JobEnded)}
        assert {p: len(text.encode()) for p, text in written.items()} == {
            p: e.target_bytes for p, e in ends.items()
        }

    asyncio.run(story())


async def test_a_failure_ends_its_job_alone_with_its_own_error(no_leaked_tasks):
    scene = Scene("abc")
    failure = EngineFailed()
    scene.writer.say(Place(0), piece("A"), failure)
    scene.writer.say(Place(1), ValueError("a bug"))
    scene.writer.say(Place(2), DONE)
    await scene.rest()
    assert scene.ends[0].failure is failure
    assert scene.ends[0].target_bytes == 1
    assert isinstance(scene.ends[1].failure, GenerationFailed)
    assert scene.ends[2].written == DONE
    ((place, error),) = scene.bugs
    assert (place, str(error)) == (Place(1), "a bug")


@pytest.mark.parametrize("item", [None, asyncio.CancelledError()], ids=["silent", "cancelled"])
async def test_a_writer_that_ends_without_a_word_or_is_cancelled_inside_failed(item):
    scene = Scene("ab")
    scene.writer.say(Place(0), piece("A"), item)
    scene.writer.say(Place(1), DONE)
    await scene.rest()
    assert isinstance(scene.ends[0].failure, GenerationFailed)
    assert scene.ends[1].written == DONE
    assert [Place(0)] == [place for place, _ in scene.bugs]


async def test_a_job_in_progress_is_cancelled_and_keeps_its_text():
    scene = Scene("ab", variants=2)
    scene.writer.say(Place(0, 1), piece("A"))
    await scene.until(lambda: len(scene.said) == 5)
    scene.fanout.cancel_nowait(0, 1)
    scene.fanout.cancel_nowait(0, 1)
    await scene.until(lambda: scene.ends)
    assert [Place(0, 1)] == scene.writer.cancelled
    assert scene.ends[0].job.place == Place(0, 1)
    assert scene.ends[0].written.finish_reason is CANCELLED
    assert scene.ends[0].target_bytes == 1
    scene.fanout.cancel_nowait(0)
    scene.fanout.cancel_nowait(1)
    await scene.rest()
    assert [Place(0, 1), Place(0, 0), Place(1, 0), Place(1, 1)] == scene.writer.cancelled


async def test_a_job_that_has_not_begun_is_never_written():
    """Whether it is known or not; and it needs no place."""
    scene = Scene("abcd", window=1)
    scene.fanout.cancel_nowait(1)
    await scene.until(lambda: scene.started)
    scene.fanout.cancel_nowait(3)
    scene.fanout.cancel_nowait(9)
    scene.writer.say(Place(0), DONE)
    scene.writer.say(Place(2), DONE)
    await scene.rest()
    assert [Place(0), Place(2)] == scene.writer.begun
    assert [DONE, Written(finish_reason=CANCELLED)] * 2 == [e.written for e in scene.ends.values()]
    assert [job.place for job in scene.jobs] == scene.started


async def test_one_variant_of_a_segment_to_come_is_cancelled():
    scene = Scene("ab", variants=3, window=1)
    scene.fanout.cancel_nowait(1, 1)
    for job in scene.jobs:
        scene.writer.say(job.place, DONE)
    await scene.rest()
    assert [job.place for job in scene.jobs if job.place != Place(1, 1)] == scene.writer.begun


async def test_a_job_that_waits_for_a_place_needs_none_once_it_is_cancelled():
    scene = Scene("abc", free=0)
    await scene.until(lambda: scene.started)
    scene.fanout.cancel_nowait(1)
    await scene.until(lambda: scene.ends)
    assert [place.segment for place in scene.started] == [0, 1]
    scene.writer.say(Place(0), DONE)
    scene.writer.say(Place(2), DONE)
    await scene.rest()
    assert [Place(0), Place(2)] == scene.writer.begun


async def test_a_cancel_of_what_is_over_changes_nothing():
    scene = Scene("ab", window=1)
    scene.writer.say(Place(0), DONE)
    await scene.until(lambda: len(scene.started) == 2)
    scene.fanout.cancel_nowait(0)
    scene.writer.say(Place(1), DONE)
    await scene.rest()
    assert scene.writer.cancelled == []
    assert [end.written for end in scene.ends.values()] == [DONE, DONE]
    assert scene.fanout._cancelled == {}


async def test_when_the_time_is_up_all_ends_and_nothing_begins():
    """What a caller had cancelled before stays cancelled; what was over stays as it was."""
    scene = Scene("abcde", window=3, writer=ScriptedWriter(obeys=False))
    scene.writer.say(Place(0), DONE)
    await scene.until(lambda: len(scene.started) == 4)
    scene.fanout.cancel_nowait(1)
    scene.fanout.expire_nowait()
    for index in (1, 2, 3):
        scene.writer.say(Place(index), Written(finish_reason=CANCELLED))
    await scene.rest()
    assert [place.segment for place in scene.writer.begun] == [0, 1, 2, 3]
    reasons = {index: end.written.finish_reason for index, end in scene.ends.items()}
    assert {0: DONE.finish_reason, 1: CANCELLED} | dict.fromkeys((2, 3, 4), TIME_BUDGET) == reasons
    assert scene.fanout.is_expired


async def test_a_job_that_ends_by_itself_just_in_time_keeps_its_reason():
    scene = Scene("a", writer=ScriptedWriter(obeys=False))
    await scene.until(lambda: scene.started)
    scene.fanout.expire_nowait()
    scene.writer.say(Place(0), DONE)
    await scene.rest()
    assert scene.ends[0].written == DONE


async def test_without_a_place_jobs_run_one_by_one():
    """The door is asked again when one ended, and never for the first."""
    scene = Scene("abc", free=0)
    for index in range(3):
        await scene.until(lambda index=index: len(scene.started) == index + 1)
        assert {Place(index)} == scene.writer.in_progress or scene.writer.begun == []
        scene.writer.say(Place(index), DONE)
    await scene.rest()
    assert 1 <= scene.door.asked <= 4
    assert scene.door.free == 0


async def test_the_source_of_jobs_may_fail_and_all_before_it_ends():
    error = Overloaded(scope="server", limit=1, retry_after_seconds=1)
    jobs = jobs_of(segments_of("ab"))
    scene = Scene("", source=given_jobs(jobs, error))
    await scene.until(lambda: len(scene.started) == 2)
    for job in jobs:
        scene.writer.say(job.place, DONE)
    with pytest.raises(Overloaded):
        await scene.rest()
    assert list(scene.ends) == [0, 1]


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_leaving_cancels_all_and_leaks_nothing(no_leaked_tasks, how):
    """Whether the generator is closed or its reader cancelled: places and writers come back."""
    is_closed = asyncio.Event()

    async def source():
        try:
            for job in jobs_of(segments_of("abc")):
                yield job
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    scene = Scene("", source=source(), free=5)

    async def reading() -> None:
        async with aclosing(scene.events) as events:
            async for event in events:
                scene.said.append(event)

    if how == "close":
        await scene.until(lambda: len(scene.started) == 3)
        await scene.writer.wait_for(lambda: len(scene.writer.begun) == 3)
        await scene.events.aclose()
    else:
        task = asyncio.create_task(reading())
        await scene.writer.wait_for(lambda: len(scene.writer.begun) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert scene.door.free == 5
    await scene.writer.wait_for(lambda: not scene.writer.in_progress)
    async with asyncio.timeout(10):
        await is_closed.wait()
    assert scene.bugs == []


async def test_a_slow_reader_holds_the_writers_up(monkeypatch):
    """What is written ahead of it is bounded."""
    scene = Scene("a")
    written = 0

    async def write(job):
        nonlocal written
        for _ in range(10_000):
            written += 1
            yield piece("x")
        yield DONE

    monkeypatch.setattr(scene.writer, "write", write)
    await scene.until(lambda: len(scene.said) == 3)
    assert written <= 3 + 64 + 1
    await scene.rest()
    assert written == 10_000
    assert scene.ends[0] == replace(scene.ends[0], target_bytes=10_000)
