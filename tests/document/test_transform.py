"""A document comes back whole: gaps, segments and ranges are the source and the targets."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.scripted_writer import Door, ScriptedWriter
from document.stories import DONE, key, piece
from hocket.server.document import transform as module
from hocket.server.document.job import JobEnded, JobPiece, JobStarted, Place, Written
from hocket.server.document.merge import Order
from hocket.server.document.tally import DocumentEnded
from hocket.server.document.transform import DocumentTransform, TransformPlan
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import Draining, GenerationFailed, InvalidRequest
from hocket.server.text.segments import Segment

FAILURE = GenerationFailed()


class Dots:
    """Cuts text behind full stops; what else is white space stands in the gaps."""

    def __init__(self) -> None:
        self.text, self.at, self.index = "", 0, 0

    def push(self, text: str) -> list[Segment]:
        self.text += text
        found = []
        while "." in self.text:
            sentence, _, self.text = self.text.partition(".")
            core = sentence.lstrip() + "."
            found.append(self.push_given(core, sentence[: len(sentence) - len(core) + 1]))
        return found

    def push_given(self, text: str, gap: str) -> Segment:
        start = self.at + len(gap.encode())
        segment = Segment(index=self.index, gap=gap, text=text, start_byte=start)
        self.index, self.at = self.index + 1, segment.end_byte
        return segment

    def finish(self) -> tuple[list[Segment], str]:
        return [], self.text


class Upper(ScriptedWriter):
    """Writes a segment in capitals, once for each variant before it too; some fail."""

    def __init__(self, fails=frozenset()) -> None:
        super().__init__()
        self.fails = fails
        self.jobs = []

    async def write(self, job):
        self.jobs.append(job)
        for _ in range(job.place.variant + 1):
            yield piece(job.segment.text.upper())
        await asyncio.sleep(0)
        if job.place in self.fails:
            raise FAILURE
        yield DONE


async def run(work):
    return work()


def make(writer, *, order=Order.IN_ORDER, window=4, free=1_000, **plan) -> DocumentTransform:
    return DocumentTransform(
        TransformPlan(order=order, window=window, **plan),
        writer=writer,
        segmenter=Dots(),
        places=Door(free),
        run=run,
        on_bug=lambda _job, error: pytest.fail(str(error)),
    )


async def all_of(document: DocumentTransform) -> list:
    async with asyncio.timeout(20):
        return [event async for event in document.events()]


TEXTS = st.lists(st.text("ab.é \n", max_size=12), max_size=6)


@given(TEXTS, st.integers(1, 3), st.integers(1, 5), st.sets(st.integers(0, 5)))
def test_any_document_comes_back_whole_in_any_order(parts, variants, window, failing):
    """Source and targets, byte for byte, by gaps, texts and ranges; all orders say the same."""
    source = "".join(parts)
    fails = {Place(index, 0) for index in failing}

    async def story(order: Order):
        document = make(Upper(fails), order=order, window=window, variants=variants)
        for part in parts:
            await document.push(part)
        document.close_nowait()
        return await all_of(document)

    stories = {order: asyncio.run(story(order)) for order in Order}
    sorted_events = {
        order: sorted((e.event for e in events[:-1]), key=key) for order, events in stories.items()
    }
    assert sorted_events[Order.IN_ORDER] == [e.event for e in stories[Order.IN_ORDER][:-1]]
    for order, (*events, end) in stories.items():
        assert sorted_events[Order.IN_ORDER] == sorted_events[order]
        assert end == stories[Order.IN_ORDER][-1]
        check_whole(source, events, end, variants)
    assert end.failed == len([place for place in fails if place.segment < end.segments])


def check_whole(source: str, events, end: DocumentEnded, variants: int) -> None:
    raw = source.encode()
    starts = [e.event for e in events if isinstance(e.event, JobStarted)]
    assert end.source_bytes == len(raw)
    for variant in range(variants):
        segments = {
            s.job.place.segment: s.job.segment for s in starts if s.job.place.variant == variant
        }
        assert sorted(segments) == list(range(end.segments))
        rebuilt = "".join(segments[index].gap + segments[index].text for index in sorted(segments))
        assert source == rebuilt + end.gap
        for segment in segments.values():
            assert raw[segment.start_byte : segment.end_byte].decode() == segment.text
        texts = dict.fromkeys(segments, "")
        for each in events:
            if isinstance(each.event, JobPiece) and each.event.place.variant == variant:
                texts[each.event.place.segment] += each.event.piece.text
        target = "".join(segments[i].gap + texts[i] for i in sorted(segments)) + end.gap
        assert end.target_bytes[variant] == len(target.encode())
        for each in events:
            ended = each.event
            if isinstance(ended, JobEnded) and ended.job.place.variant == variant:
                if each.target_start is None:
                    continue
                begin, size = each.target_start, ended.target_bytes
                own = target.encode()[begin : begin + size].decode()
                assert own == texts[ended.job.place.segment]


async def test_work_begins_while_text_still_comes():
    writer = ScriptedWriter()
    document = make(writer)
    events = document.events()
    await document.push("A. b")
    writer.say(Place(0), piece("X"), DONE)
    seen = [(await anext(events)).event for _ in range(3)]
    assert isinstance(seen[-1], JobEnded)
    await document.push(". ")
    writer.say(Place(1), DONE)
    document.close_nowait()
    *_, end = [event async for event in events]
    assert (end.segments, end.gap, end.target_bytes) == (2, " ", (3,))
    assert document.tally.usage == end.usage


async def test_each_job_is_shown_the_segments_before_it():
    writer = Upper()
    document = make(writer, context_segments=2, variants=2)
    await document.push("A.B.C.D.")
    document.close_nowait()
    await all_of(document)
    shown = {job.place: job.context for job in writer.jobs}
    contexts = [(), ("A.",), ("A.", "B."), ("B.", "C.")]
    assert {Place(i, v): contexts[i] for i in range(4) for v in range(2)} == shown


async def test_given_segments_are_what_the_caller_says():
    writer = Upper()
    document = make(writer)
    await document.push_given("one", "")
    await document.push_given("two", " - ")
    document.close_nowait()
    *events, end = await all_of(document)
    assert [job.segment.text for job in writer.jobs] == ["one", "two"]
    ranges = [e.target_start for e in events if isinstance(e.event, JobEnded)]
    assert (ranges, end.source_bytes) == ([0, 6], 9)


async def test_when_the_time_is_up_what_came_is_told_and_not_written():
    """All of it is cut; of what has not come nothing is awaited."""
    writer = ScriptedWriter()
    document = make(writer, window=1)
    await document.push("A. B. C. d")
    events = document.events()
    await anext(events)
    document.expire_nowait()
    await document.push("lost.")
    *_, end = [event async for event in events]
    assert writer.begun in ([], [Place(0)])
    assert (end.segments, end.incomplete, end.is_partial) == (3, 3, True)
    assert (end.gap, end.source_bytes) == (" d", 10)


async def test_a_time_that_is_up_once_all_is_written_made_nothing_partial():
    """A slow reader may see the end late. Had more been about to come, nobody could know."""
    for is_whole in (True, False):
        document = make(Upper())
        await document.push("A. B.")
        if is_whole:
            document.close_nowait()
        events, ends = document.events(), 0
        while ends < 2:
            ends += isinstance((await anext(events)).event, JobEnded)
        document.expire_nowait()
        *_, end = [event async for event in events]
        assert (end.incomplete, end.is_partial) == (0, not is_whole)


async def test_an_engine_that_saw_the_deadline_first_makes_it_partial_too():
    writer = ScriptedWriter()
    document = make(writer)
    await document.push("A. B.")
    document.close_nowait()
    writer.say(Place(0), DONE)
    writer.say(Place(1), Written(finish_reason=FinishReason.TIME_BUDGET))
    *_, end = await all_of(document)
    assert (end.incomplete, end.is_partial) == (1, True)


async def test_a_document_that_is_cut_off_ends_what_it_has_and_tells_why():
    """The open sentence is not worked on: it is not known where it ends."""
    writer = Upper()
    document = make(writer)
    await document.push("A. b")
    document.close_nowait(Draining())
    document.close_nowait()
    with pytest.raises(Draining):
        await all_of(document)
    assert [job.segment.text for job in writer.jobs] == ["A."]


@pytest.mark.parametrize(
    ("plan", "text", "said"),
    [
        ({"max_bytes": 5}, "ab.é .", "longer than 5 bytes"),
        ({"max_segments": 2}, "a.b.c.", "more than 2 segments"),
        ({"max_gap_bytes": 3}, "a.    b.", "4 bytes between two segments, more than 3"),
        ({"max_gap_bytes": 3}, "a.    ", "4 bytes between two segments, more than 3"),
    ],
)
async def test_what_is_too_much_is_refused(plan, text, said):
    document = make(Upper(), **plan)
    with pytest.raises(InvalidRequest, match=said):
        await document.push(text)
        document.close_nowait()
        await all_of(document)


@pytest.mark.parametrize("plan", [{"max_segments": 1}, {"max_gap_bytes": 2}])
async def test_what_is_too_much_of_given_segments_is_told_of_them(plan):
    """Their caller has sent no text."""
    document = make(Upper(), **plan)
    await document.push_given("a", "")
    await document.push_given("b", " - ")
    document.close_nowait()
    with pytest.raises(InvalidRequest) as refused:
        await all_of(document)
    assert [violation.field for violation in refused.value.violations] == ["segment"]


async def test_a_cut_that_is_given_up_is_no_end_of_the_document():
    """As when threads are closed: what it holds is told, and not that this was all."""
    document = make(Upper())
    await document.push("A. B.")
    document.close_nowait()

    async def given_up(_work):
        raise asyncio.CancelledError

    document._run = given_up
    with pytest.raises(GenerationFailed):
        await all_of(document)


async def test_however_short_parts_are_few_of_them_wait(monkeypatch):
    """Each costs something, be it empty."""
    monkeypatch.setattr(module, "_MOST_HELD_CHARS", 1_000)
    document = make(Upper())

    async def push() -> None:
        for _ in range(500):
            await document.push_given("", "")

    pushing = asyncio.create_task(push())
    await asyncio.sleep(0)
    assert 1 <= len(document._parts) <= 100
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(all_of(document))
        await pushing
        document.close_nowait()
    assert reading.result()[-1].segments == 500


async def test_cancels_of_what_cannot_be_are_ignored():
    document = make(Upper(), max_segments=3, variants=2)
    document.cancel_nowait(3)
    document.cancel_nowait(0, 2)
    assert document._fanout._cancelled == {}
    document.cancel_nowait(2, 1)
    await document.push("a.b.c.")
    document.close_nowait()
    *_, end = await all_of(document)
    assert end.incomplete == 1


async def test_text_is_taken_no_faster_than_it_is_cut(monkeypatch):
    monkeypatch.setattr(module, "_MOST_HELD_CHARS", 10)
    monkeypatch.setattr(module, "_SLICE_CHARS", 2)
    document = make(Upper(), window=1)
    pushing = asyncio.create_task(document.push("a.b.c.d.e.f.g.h."))
    events = document.events()
    await anext(events)
    assert not pushing.done()
    reading = asyncio.create_task(anext(events))
    await pushing
    assert document._held_chars <= 10
    document.close_nowait()
    await reading
    *_, end = [event async for event in events]
    assert end.segments == 8


async def test_segments_are_cut_as_they_are_needed(monkeypatch):
    """So that what is in memory is bounded by the window, not by the document."""
    monkeypatch.setattr(module, "_SLICE_CHARS", 4)
    writer = ScriptedWriter()
    document = make(writer, window=3)
    cutter = document._segmenter
    await document.push("a.b." * 500)
    document.close_nowait()
    events = document.events()
    most = 0
    for index in range(1_000):
        writer.say(Place(index), DONE)
        ended = False
        while not ended:
            ended = isinstance((await anext(events)).event, JobEnded)
        most = max(most, cutter.index - index)
    assert most <= 3 + 1 + 2 + 2
    await events.aclose()
