"""Whole documents in six scripts: any length, order, window and parting gives the same, exactly."""

import asyncio
import itertools
import random

import pytest

from document.scripted_writer import Door
from document.stories import DONE, key, piece
from hocket.server.document.job import JobPiece, JobStarted
from hocket.server.document.merge import Order
from hocket.server.document.transform import DocumentTransform, TransformPlan
from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.segments import Segmentation, Segmenter
from text.documents import SCRIPTS, document

COUNTS = (1, 10, 200, 2_000)
WINDOWS = (1, 7, 64)


class Brackets:
    """Writes a segment in two pieces, in brackets, after as many turns of others as it likes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def write(self, job):
        half = len(job.segment.text) // 2
        for part in ("[" + job.segment.text[:half], job.segment.text[half:] + "]"):
            for _ in range(self._random.randrange(3)):
                await asyncio.sleep(0)
            yield piece(part)
        yield DONE

    def cancel_nowait(self, job) -> None:
        """Nothing of it takes long."""


async def run(work):
    return work()


async def story_of(source: str, order: Order, window: int, size: int, seed: int):
    """Return the events of a document that came in parts of so many characters."""
    transform = DocumentTransform(
        TransformPlan(order=order, window=window),
        writer=Brackets(seed),
        segmenter=Segmenter(Segmentation.SENTENCES, SentenceOptions(max_chars=2_000)),
        places=Door(),
        run=run,
        on_bug=lambda _job, error: pytest.fail(str(error)),
    )

    async def send() -> None:
        for at in range(0, len(source), size):
            await transform.push(source[at : at + size])
        transform.close_nowait()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(send())
        return [event async for event in transform.events()]


def check(source: str, order: Order, events, end) -> None:
    """Rebuild source and target out of gaps, ranges and pieces."""
    starts = {e.job.place.segment: e.job.segment for e in events if isinstance(e, JobStarted)}
    texts = dict.fromkeys(starts, "")
    for event in events:
        if isinstance(event, JobPiece):
            assert event.start_byte == len(texts[event.place.segment].encode())
            texts[event.place.segment] += event.piece.text
    assert sorted(starts) == list(range(end.segments))
    if order is Order.IN_ORDER:
        assert list(starts) == sorted(starts)
    rebuilt, target = b"", b""
    for index in range(end.segments):
        segment = starts[index]
        assert texts[index] == f"[{segment.text}]"
        rebuilt += segment.gap.encode()
        assert len(rebuilt) == segment.start_byte
        rebuilt += segment.text.encode()
        target += segment.gap.encode() + texts[index].encode()
    assert rebuilt + end.gap.encode() == source.encode()
    assert end.source_bytes == len(source.encode())
    assert list(end.target_bytes) == [len(target) + len(end.gap.encode())]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_source_and_target_are_exact_in_every_order_window_and_parting(script, count):
    source = document(script, count)
    sizes = itertools.cycle((len(source), 1_000, 97, 4_096))
    first = None
    windows = WINDOWS if count < max(COUNTS) else WINDOWS[1:2]
    for seed, (order, window) in enumerate(itertools.product(Order, windows)):
        size = next(sizes)
        *released, end = asyncio.run(story_of(source, order, window, size, seed))
        events = [each.event for each in released]
        check(source, order, events, end)
        same = sorted(events, key=key)
        first = first or same
        assert same == first
        assert end.segments >= count
