"""Jobs for writers on the engine, and what came of them."""

import asyncio
from contextlib import aclosing

from document.driven import run_here
from hocket.server.document.generating import GeneratingWriter
from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.document.prompts import Prompts
from hocket.server.document.tasks import FillIn
from hocket.server.document.voice import WritingOptions
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.text.segments import Segment

PLAIN = FillIn("{segment}")


def job(text, *, at=0, variant=0, context=(), protected=()) -> Job:
    segment = Segment(index=at, gap="", text=text, start_byte=0, protected=tuple(protected))
    return Job(place=Place(at, variant), segment=segment, context=tuple(context))


def spans(text, *parts):
    """Return where parts stand in a text."""
    return tuple((text.index(part), text.index(part) + len(part)) for part in parts)


def options(**changes) -> WritingOptions:
    values = {
        "request_id": "doc",
        "sampling": SamplingParams(),
        "stopping": StoppingParams(max_tokens=512),
    }
    return WritingOptions(**(values | changes))


def writer_of(model, task=PLAIN, **changes) -> GeneratingWriter:
    loop = asyncio.get_running_loop()
    return GeneratingWriter(
        model, Prompts(task), options(**changes), run_text=run_here, clock=loop.time
    )


async def write(writer, one) -> tuple[list[WrittenPiece], Written]:
    """Write a job to its end; the end comes once, last."""
    async with aclosing(writer.write(one)) as items:
        *pieces, written = [item async for item in items]
    assert all(isinstance(piece, WrittenPiece) and piece.text for piece in pieces)
    assert isinstance(written, Written)
    return pieces, written


async def text_of(writer, one) -> str:
    pieces, _ = await write(writer, one)
    return "".join(piece.text for piece in pieces)


async def texts_of(writer, jobs) -> list[str]:
    """Write jobs side by side."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(text_of(writer, one)) for one in jobs]
    return [task.result() for task in tasks]
