"""Documents over real gRPC, by the blocking client."""

import asyncio
import threading

import grpc
import pytest

from client.fake_documents import Script, serving_documents
from client.fake_server import rich_status
from hocket.client import (
    Client,
    FinishReason,
    SegmentPiece,
    SegmentStarted,
    StatusError,
    StreamError,
)

DRAINING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)
TEXT = "One. Two.\n\nThree.\n"


@pytest.fixture
async def server():
    """A fake document service on loopback."""
    async with serving_documents() as fake:
        yield fake


def parts_of(text):
    yield from text


async def async_parts_of(text):
    for part in text:
        yield part


@pytest.fixture
def blocking(server, sleeps):
    """The blocking client; called in a thread, since the server needs the loop."""
    with Client(server.address, sleep=sleeps.block, draw=lambda: 0.5) as opened:
        yield opened


@pytest.mark.parametrize("form", [lambda text: text, list, parts_of])
async def test_the_blocking_client_gives_the_same(server, client, blocking, form) -> None:
    """Event by event."""

    def run():
        with blocking.transform(form(TEXT), instruction="x", request_id="same") as stream:
            events = list(stream)
            return events, stream.result()

    async with client.transform(form(TEXT), instruction="x", request_id="same") as stream:
        expected = [event async for event in stream], await stream.result()
    assert expected == await asyncio.to_thread(run)


async def test_the_blocking_client_reads_while_it_sends(server, blocking) -> None:
    """What is read decides what is sent, and another thread cancels."""

    def run():
        heard = threading.Event()

        def parts():
            yield "One. "
            heard.wait()
            yield "I hang."

        with blocking.transform(parts(), instruction="x") as stream:
            for event in stream:
                if isinstance(event, SegmentPiece):
                    heard.set()
                if isinstance(event, SegmentStarted) and event.segment == 1:
                    thread = threading.Thread(target=stream.cancel_segment, args=(1,))
                    thread.start()
                    thread.join()
            return stream.document()

    result = await asyncio.to_thread(run)
    assert result.segments[1].finished.finish_reason is FinishReason.CANCELLED


async def test_leaving_the_blocking_stream_ends_its_threads(server, blocking) -> None:
    """Those that send and those that take parts, though the source still has some."""

    def run():
        before = set(threading.enumerate())

        def endless():
            while True:
                yield "I hang. " * 1_000

        with blocking.transform(endless(), instruction="x") as stream:
            next(stream)
            during = set(threading.enumerate()) - before
        for thread in during:
            thread.join(timeout=10)
        with pytest.raises(StreamError, match="closed"):
            next(stream)
        return during, [thread for thread in during if thread.is_alive()]

    during, alive = await asyncio.to_thread(run)
    assert any(thread.name == "hocket-upload" for thread in during)
    assert alive == []
    await server.left.wait()


async def test_the_blocking_client_tells_the_same_failures(server, blocking, sleeps) -> None:
    """A lost event, a lost source, a refusal, a document that cannot be."""

    def read(text="One.", **options):
        with blocking.transform(text, **({"instruction": "x"} | options)) as stream:
            return stream.result()

    def broken():
        yield "One. "
        raise KeyError("mine")

    script = Script()
    script.started()
    script.whole(0, "One.")
    server.answer([script.messages[0], script.messages[2]], hang=True)
    with pytest.raises(StreamError, match="event 2 came in place of 1"):
        await asyncio.to_thread(read)
    server.refuse(DRAINING, pushback_ms=30)
    assert (await asyncio.to_thread(read)).text == "ONE."
    assert sleeps == [0.03]
    server.refuse(rich_status(grpc.StatusCode.DATA_LOSS, "LOST"), after=script.messages[:1])
    with pytest.raises(StatusError):
        await asyncio.to_thread(read)
    with pytest.raises(TypeError, match="AsyncClient"):
        await asyncio.to_thread(read, async_parts_of("x"))
    # Last, as its call may reach the server only after it was given up.
    with pytest.raises(KeyError, match="mine"):
        await asyncio.to_thread(read, broken())


async def test_the_blocking_client_composes(server, blocking) -> None:
    """With an outline of the model's."""

    def run():
        with blocking.compose("Food", max_sections=3) as stream:
            return stream.result()

    result = await asyncio.to_thread(run)
    assert (result.text, result.outline.is_drafted) == ("About Drafted.", True)
