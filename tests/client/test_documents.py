"""Documents over real gRPC, by the client for asyncio."""

import asyncio

import grpc
import pytest

from client.fake_documents import Script, serving_documents
from client.fake_server import rich_status
from hocket.client import (
    AsyncClient,
    DocumentFinished,
    DocumentStarted,
    Draining,
    FinishReason,
    GenerationFailed,
    GivenSegment,
    InvalidRequest,
    Outline,
    Section,
    SegmentFinished,
    SegmentPiece,
    SegmentStarted,
    StreamError,
    TransportError,
    _many_state,
)
from hocket.v1 import document_pb2

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


@pytest.mark.parametrize("form", [lambda text: text, list, parts_of, async_parts_of])
async def test_a_document_comes_back_whole(server, client, form) -> None:
    """However it goes up; gaps are as they were, byte for byte."""
    async with client.transform(form(TEXT), rewrite=True) as stream:
        events = [event async for event in stream]
        result = await stream.result()
    assert result.text == "ONE. TWO.\n\nTHREE.\n"
    assert [type(event) for event in events] == [
        DocumentStarted,
        *[SegmentStarted, SegmentPiece, SegmentFinished] * 3,
        DocumentFinished,
    ]
    assert result.started.request_id == stream.request_id
    source = [segment.source for segment in result.segments]
    assert [TEXT.encode()[s.start_byte : s.end_byte].decode() for s in source] == [
        "One.",
        "Two.",
        "Three.",
    ]


@pytest.mark.parametrize("form", [tuple, parts_of, async_parts_of])
async def test_given_segments_go_up_as_they_are(server, client, form) -> None:
    """With their gaps, or without."""
    segments = ["One.", GivenSegment(text="Two.", gap="\n\t")]
    async with client.transform(segments=form(segments), instruction="x") as stream:
        assert (await stream.result()).text == "ONE.\n\tTWO."
    assert server.starts[0].segmentation == document_pb2.SEGMENTATION_GIVEN
    assert [action.WhichOneof("action") for action in server.actions] == [
        "segment",
        "segment",
        "end",
    ]


async def test_every_language_is_a_variant(server, client) -> None:
    """Each has a target of its own."""
    async with client.transform(TEXT, translate_to=["pt", "es"]) as stream:
        result = await stream.result()
    assert result.variants == ("pt", "es")
    assert result.texts == ("ONE. TWO.\n\nTHREE.\n",) * 2
    assert len(result.segments) == 6


async def test_results_come_while_the_document_goes_up(server, client) -> None:
    """What is read decides here what is sent: neither waits for the other."""
    texts = asyncio.Queue()

    async def answers():
        yield "One. "
        for number in range(200):
            yield f"Not {await texts.get()} but {number}. "

    async with client.transform(answers(), instruction="x") as stream:
        async for event in stream:
            if isinstance(event, SegmentPiece):
                texts.put_nowait(event.segment)
    assert len(stream.document().segments) == 201


async def test_a_long_document_does_not_wait_for_its_reader(server, client) -> None:
    """More than all buffers hold goes up and comes back, though nobody reads at first."""
    sentence = "x" * 9_999 + "."
    async with client.transform((sentence for _ in range(2_000)), instruction="x") as stream:
        assert isinstance(await anext(stream), DocumentStarted)
        result = await stream.result()
    assert len(result.segments) == 2_000
    assert result.text == sentence.upper() * 2_000


async def test_a_failed_segment_disturbs_no_other(server, client) -> None:
    """Its own end says why."""
    async with client.transform("One. A fail. Two.", instruction="x") as stream:
        result = await stream.result()
    assert [segment.error is None for segment in result.segments] == [True, False, True]
    assert isinstance(result.failed[0].error, GenerationFailed)
    assert result.finished.failed == 1


async def test_a_segment_is_cancelled_after_all_went_up(server, client) -> None:
    """The sending side stays open for that; what is over is left alone."""
    async with client.transform("One. I hang. Two.", instruction="x") as stream:
        async for event in stream:
            if isinstance(event, SegmentFinished) and event.segment == 0:
                stream.cancel_segment(0)
            if isinstance(event, SegmentStarted) and event.segment == 1:
                stream.cancel_segment(1)
        stream.cancel_segment(2)
        result = stream.document()
    assert result.text == "ONE.  TWO."
    assert result.segments[1].finished.finish_reason is FinishReason.CANCELLED
    cancels = [a.cancel for a in server.actions if a.WhichOneof("action") == "cancel"]
    assert [(cancel.segment, cancel.HasField("variant")) for cancel in cancels] == [(1, False)]


async def test_one_variant_is_cancelled(server, client) -> None:
    """By its number; another number than 0 and above cannot be sent."""
    async with client.transform("I hang.", translate_to="pt") as stream:
        await anext(stream)
        with pytest.raises(ValueError, match="range"):
            stream.cancel_segment(-1)
        stream.cancel_segment(0, 0)
        await stream.result()
    assert server.actions[-1].cancel.HasField("variant")


async def test_sections_are_composed(server, client) -> None:
    """The outline comes before them."""
    sections = ["Bread", Section(title="Salt", instruction="Be brief.")]
    async with client.compose("Food", sections=sections, join="End.") as stream:
        events = [event async for event in stream]
        result = stream.document()
    assert isinstance(events[1], Outline)
    assert [section.title for section in result.outline.sections] == ["Bread", "Salt"]
    assert [segment.title for segment in result.segments] == ["Bread", "Salt"]
    assert result.text == "About Bread.\n\nAbout Salt."
    assert (server.starts[0].task, server.starts[0].join) == ("Food", "End.")
    assert server.starts[0].sections[1].instruction == "Be brief."


async def test_leaving_cancels_the_handler_and_closes_the_source(server, client) -> None:
    """Nothing is left of the stream after its block."""
    closed = []

    async def endless():
        try:
            yield "I hang."
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    tasks = asyncio.all_tasks()
    async with client.transform(endless(), instruction="x") as stream:
        await anext(stream)
        during = asyncio.all_tasks() - tasks
        ours = {task for task in during if "_feed" in str(task) or "_consume" in str(task)}
    assert closed == [True]
    await server.left.wait()
    with pytest.raises(StreamError, match="closed"):
        await anext(stream)
    with pytest.raises(StreamError, match="closed"):
        stream.cancel_segment(0)
    assert len(ours) == 2
    await asyncio.wait(ours)


@pytest.mark.parametrize("lost", [2, 4, 8])
async def test_a_lost_event_is_an_error_and_ends_the_call(server, client, lost) -> None:
    """What had come before stays."""
    script = Script()
    script.started()
    for index in range(3):
        script.whole(index, f"{index}.")
    script.finished()
    server.answer([*script.messages[:lost], *script.messages[lost + 1 :]], hang=True)
    async with client.transform(TEXT, instruction="x") as stream:
        with pytest.raises(StreamError, match=f"event {lost + 1} came in place of {lost}"):
            await stream.result()
        assert len(stream.document().segments) == len(range(1, lost, 3))
        await server.left.wait()
        with pytest.raises(StreamError, match="closed"):
            await anext(stream)


async def test_a_doubled_piece_is_an_error(server, client) -> None:
    """Even if the events are numbered as they should."""
    script = Script()
    script.started()
    script.begin(0, size=4)
    piece = script.piece(0, "One.").piece
    script.add(piece=piece)
    server.answer(script.messages)
    async with client.transform(TEXT, instruction="x") as stream:
        with pytest.raises(StreamError, match="piece 0 came in place of 1"):
            await stream.result()


async def test_a_stream_that_ends_early_is_an_error(server, client) -> None:
    """OK without the last event is no end."""
    script = Script()
    script.started()
    script.whole(0, "One.")
    server.answer(script.messages)
    async with client.transform(TEXT, instruction="x") as stream:
        with pytest.raises(StreamError, match="ended before the document did"):
            await stream.result()
        assert stream.document().text == "One."


async def test_a_lost_connection_leaves_what_had_come(sleeps) -> None:
    """It is not made again, since the answer had begun."""
    script = Script()
    script.started()
    script.whole(0, "One.")
    async with serving_documents() as server, AsyncClient(server.address) as client:
        server.answer(script.messages, hang=True)
        async with client.transform(TEXT, instruction="x") as stream:
            while not isinstance(await anext(stream), SegmentFinished):
                pass
            await server.stop()
            with pytest.raises(TransportError):
                await stream.result()
            assert stream.document().text == "One."
            assert not stream.document().is_finished


async def test_a_refused_start_names_its_fields(server, client) -> None:
    """As with every call."""
    status = rich_status(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        violations=[("start.window", "at most 64"), ("start.instruction", "too long")],
    )
    server.refuse(status)
    async with client.transform(TEXT, instruction="x") as stream:
        with pytest.raises(InvalidRequest) as caught:
            await stream.result()
        assert [v.field for v in caught.value.violations] == ["start.window", "start.instruction"]
        with pytest.raises(InvalidRequest):
            stream.cancel_segment(0)
        assert stream.document().started is None


async def test_a_refused_document_is_sent_again(server, client, sleeps) -> None:
    """Under another id, with all its parts in their order."""
    ids = []

    async def refuse(requests, context):
        ids.append((await anext(requests)).start.request_id)
        assert [(await anext(requests)).text for _ in range(2)] == ["One", ". "]
        await context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "no",
            (("grpc-status-details-bin", DRAINING.SerializeToString()),),
        )
        yield

    server.behaviours.append(refuse)
    async with client.transform(parts_of(["One", ". ", "Two."]), instruction="x") as stream:
        result = await stream.result()
    assert result.text == "ONE. TWO."
    assert sleeps == [0.2]
    assert ids != [server.starts[0].request_id]


async def test_a_document_that_sent_much_is_not_sent_again(
    server, client, sleeps, monkeypatch
) -> None:
    """What is not kept cannot be sent again."""
    monkeypatch.setattr(_many_state, "MAX_KEPT_BYTES", 2)

    async def refuse(requests, context):
        for _ in range(3):
            await anext(requests)
        await context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "no",
            (("grpc-status-details-bin", DRAINING.SerializeToString()),),
        )
        yield

    server.behaviours.append(refuse)
    async with client.transform(parts_of(["One. ", "Two."]), instruction="x") as stream:
        with pytest.raises(Draining):
            await stream.result()
    assert sleeps == []


@pytest.mark.parametrize("form", [parts_of, async_parts_of])
async def test_an_error_of_the_source_is_raised_where_the_stream_is_read(
    server, client, form
) -> None:
    """As often as it is read; the call ends."""

    class Broken:
        def __iter__(self):
            yield "One. "
            raise KeyError("mine")

    async with client.transform(form(Broken()), instruction="x") as stream:
        for _ in range(2):
            with pytest.raises(KeyError, match="mine"):
                await stream.result()


@pytest.mark.parametrize(
    ("text", "error"), [([b"One."], TypeError), (["\udcff"], ValueError), ([None], TypeError)]
)
async def test_a_part_that_cannot_be_sent_is_an_error(server, client, text, error) -> None:
    """Where the stream is read."""
    async with client.transform(iter(text), instruction="x") as stream:
        with pytest.raises(error):
            await stream.result()


async def test_a_document_that_ends_before_its_source_ends_well(server, client) -> None:
    """The server may have had enough; what is still to come is not asked for."""
    asked = []

    async def endless():
        yield "One."
        asked.append(True)
        await asyncio.Event().wait()

    script = Script()
    script.started()
    script.whole(0, "One.")
    script.finished(is_partial=True)
    server.answer(script.messages)
    async with client.transform(endless(), instruction="x", time_budget=1) as stream:
        assert (await stream.result()).finished.is_partial
