"""What a document holds of memory at most: a window of it, and not more for being long."""

import asyncio
import tracemalloc

import pytest

from document.scripted_writer import Door
from document.stories import DONE, piece
from hocket.server.document.merge import Order
from hocket.server.document.tally import DocumentEnded
from hocket.server.document.transform import DocumentTransform, TransformPlan
from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.protection import Protection
from hocket.server.text.segments import Segmentation, Segmenter

PARAGRAPH_CHARS = 1_500
WINDOW = 8


class Echo:
    """Writes each segment as it stands, after others had their turns; keeps nothing."""

    async def write(self, job):
        await asyncio.sleep(0)
        yield piece(job.segment.text)
        await asyncio.sleep(0)
        yield DONE

    def cancel_nowait(self, job) -> None:
        """Nothing of it takes long."""


async def run(work):
    return work()


async def peak_of(paragraphs: int, order: Order) -> tuple[int, int]:
    """Return the most bytes that a document held, and how many segments it had."""
    document = DocumentTransform(
        TransformPlan(order=order, window=WINDOW),
        writer=Echo(),
        segmenter=Segmenter(
            Segmentation.PARAGRAPHS, SentenceOptions(language="en"), Protection(finds_kinds=True)
        ),
        places=Door(),
        run=run,
        on_bug=lambda _job, error: pytest.fail(str(error)),
    )

    async def send() -> None:
        for number in range(paragraphs):
            await document.push(f"{number}. {'It says a word. ' * (PARAGRAPH_CHARS // 16)}\n\n")
        document.close_nowait()

    segments = 0
    tracemalloc.start()
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(send())
            async for event in document.events():
                if isinstance(event, DocumentEnded):
                    segments = event.segments
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak, segments


@pytest.mark.parametrize("order", Order)
async def test_a_document_of_two_thousand_segments_holds_no_more_than_a_short_one(order):
    """As soon as both are longer than the megabyte that may wait to be cut."""
    short, _ = await peak_of(1_000, order)
    long, segments = await peak_of(2_000, order)
    assert segments == 2_000
    assert long < 1.1 * short
    assert long < 0.75 * 2_000 * PARAGRAPH_CHARS
