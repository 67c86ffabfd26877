"""Texts in sections over the wire: outlines, orders, failures, cancels, and who leaves early."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import code_pb2

from hocket.client import AsyncClient, FinishReason, SegmentFinished, SegmentStarted
from hocket.client.__main__ import main
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import document_pb2, document_pb2_grpc, options_pb2
from service.document_calls import ORDERS, is_quiet
from service.raw_calls import End, end_of, reason_of

Request = document_pb2.ComposeRequest
TITLES = ("Flour", "Water", "Time")


def author(prompt: bytes) -> bytes:
    """Draft, judge, and put what is asked for last into brackets."""
    asked = prompt.rpartition(b"\n\n")[2]
    if b"numbered list" in asked:
        return b"no list" if b"Poem" in asked or b"Poem" in prompt else b"1. Flour\n2. Water"
    if b"yes or no" in asked:
        return b"yes" if b"independent" in prompt else b"no"
    return b"<" + asked + b">"


@asynccontextmanager
async def composing(**sections):
    """Serve a model that writes as above; give the app and a channel."""
    model = ScriptedModel(ScriptedRunner(author, num_prefix_chunks=256))
    async with (
        asyncio.timeout(20),
        serving(model, loopback_settings(**sections)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        yield app, channel


def start(*titles: str, task: str = "About bread.", **fields) -> Request:
    sections = [document_pb2.Section(title=title) for title in titles]
    return Request(start=document_pb2.ComposeStart(task=task, sections=sections, **fields))


def endless(request: Request) -> Request:
    """Let its sections be as long as they can."""
    request.start.granularity = options_pb2.GRANULARITY_TOKEN
    request.start.stopping.ignore_eos, request.start.stopping.max_tokens = True, 3_000
    return request


def cancel(section: int) -> Request:
    return Request(cancel=document_pb2.CancelSegment(segment=section))


async def send(channel, *requests: Request, ends: bool = True, **kwargs):
    call = document_pb2_grpc.DocumentServiceStub(channel).Compose(**kwargs)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for request in requests:
            await call.write(request)
        if ends:
            await call.done_writing()
    return call


def texts_of(end: End) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in end.events:
        if event.WhichOneof("event") == "section_started":
            texts[event.section_started.segment] = ""
        elif event.WhichOneof("event") == "piece":
            assert event.piece.start_byte == len(texts[event.piece.segment].encode())
            texts[event.piece.segment] += event.piece.text
    return texts


def ends_of(end: End) -> dict[int, document_pb2.SegmentFinished]:
    return {
        event.section_finished.segment: event.section_finished
        for event in end.events
        if event.WhichOneof("event") == "section_finished"
    }


@pytest.mark.parametrize("parallel", [2, 3], ids=["always", "never"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_given_sections_come_in_every_order(order, parallel, settled):
    """The texts are the same in each, and what joins them comes to what is told."""
    async with composing() as (app, channel):
        request = start(*TITLES, order=order, parallel=parallel, join="Sum up.", window=2)
        end = await end_of(await send(channel, request))
        await settled(app, lambda: is_quiet(app))
    assert end.code == "OK"
    assert [event.sequence for event in end.events] == list(range(len(end.events)))
    assert end.kinds()[:2] == ["started", "outline"]
    outline = end.events[1].outline
    assert [section.title for section in outline.sections] == list(TITLES)
    assert (outline.is_drafted, outline.is_parallel) == (False, parallel == 2)
    assert end.events[0].started.is_parallel == (parallel == 2)
    texts = texts_of(end)
    assert texts == {
        index: f'<Write the section "{title}" only.>' for index, title in enumerate(TITLES)
    } | {3: "<Sum up.>"}
    last = end.events[-1].finished
    assert last.segments == 4
    whole = "\n\n".join(text for _, text in sorted(texts.items()))
    assert list(last.target_bytes) == [len(whole.encode())]
    ends = ends_of(end)
    used = sum(each.usage.completion_tokens for each in ends.values())
    assert last.usage.completion_tokens == used + (parallel == 2)  # a token of what is shared


async def test_what_sections_share_is_computed_once():
    """And told as cached, for each of them."""
    async with composing() as (_, channel):
        task = "About bread, in the kitchens of the north. " * 4
        end = await end_of(await send(channel, start(*TITLES, task=task, parallel=2)))
    for each in ends_of(end).values():
        assert each.usage.cached_tokens > len(task)
        assert each.usage.cached_tokens < each.usage.prompt_tokens
    last = end.events[-1].finished.usage
    assert last.cached_tokens == sum(e.usage.cached_tokens for e in ends_of(end).values())


@pytest.mark.parametrize(
    ("task", "titles", "is_parallel"),
    [
        ("An independent guide.", ["Flour", "Water"], True),
        ("A story.", ["Flour", "Water"], False),
        ("Poem.", ["Poem."], False),
    ],
)
async def test_an_outline_is_drafted_and_the_choice_told(task, titles, is_parallel):
    """A draft that is no outline is one section about the task."""
    async with composing() as (_, channel):
        end = await end_of(await send(channel, start(task=task)))
    outline = end.events[1].outline
    assert [section.title for section in outline.sections] == titles
    assert (outline.is_drafted, outline.is_parallel) == (True, is_parallel)
    assert outline.usage.completion_tokens > 0
    assert sorted(texts_of(end)) == list(range(len(titles)))
    assert end.events[-1].finished.usage.completion_tokens > outline.usage.completion_tokens


async def test_a_section_that_fails_fails_alone():
    request = start(*TITLES, parallel=2)
    request.start.sections[1].instruction = "NAN"
    async with composing() as (_, channel):
        end = await end_of(await send(channel, request))
    assert end.code == "OK"
    ends = ends_of(end)
    assert [ends[index].HasField("status") for index in range(3)] == [False, True, False]
    assert code_pb2.Code.Name(ends[1].status.code) == "INTERNAL"
    assert reason_of(ends[1].status) == "GENERATION_FAILED"
    assert end.events[-1].finished.failed == 1
    assert set(texts_of(end)[0]) > {"<"}


async def test_sections_are_cancelled_one_by_one(settled):
    """One that runs, one that waits; what there cannot be is ignored."""
    async with composing() as (app, channel):
        request = endless(start(*TITLES, window=1, parallel=2))
        call = await send(channel, request, cancel(1), cancel(9_999), ends=False)
        events = []
        while not events or events[-1].WhichOneof("event") != "piece":
            events.append(await call.read())
        await call.write(cancel(0))
        await call.write(cancel(2))
        end = await end_of(call)
        await settled(app, lambda: is_quiet(app))
    cancelled = options_pb2.FINISH_REASON_CANCELLED
    assert [each.finish_reason for _, each in sorted(ends_of(end).items())] == [cancelled] * 3
    assert end.events[-1].finished.incomplete == 3


async def test_the_time_of_a_text_runs_out():
    async with composing() as (_, channel):
        request = endless(start(*TITLES, time_budget={"nanos": 50_000_000}))
        end = await end_of(await send(channel, request, ends=False))
    assert end.code == "OK"
    last = end.events[-1].finished
    assert last.is_partial
    assert last.incomplete == last.segments == 3


@pytest.mark.parametrize("seconds", [None, 0.1], ids=["cancel", "deadline"])
async def test_a_caller_that_leaves_leaves_nothing_running(seconds, settled):
    async with composing() as (app, channel):
        call = await send(channel, endless(start(*TITLES)), ends=False, timeout=seconds)
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            while True:
                if (await call.read()).WhichOneof("event") == "piece" and seconds is None:
                    call.cancel()
        await settled(app, lambda: is_quiet(app))


async def test_an_operator_ends_a_text_by_its_id(client_of):
    async with composing(listener={"control": True}) as (app, channel), client_of(app) as operator:
        call = await send(channel, endless(start(*TITLES, request_id="c")), ends=False)
        while (await call.read()).WhichOneof("event") != "piece":
            pass
        assert await operator.abort("c")
        end = await end_of(call)
    aborted = options_pb2.FINISH_REASON_ABORTED
    assert {each.finish_reason for each in ends_of(end).values()} == {aborted}


async def test_a_draining_server_finishes_a_text(settled):
    """It is whole with its first message, whether the caller closes its side or not."""
    async with composing(drain={"grace_seconds": 3_600}) as (app, channel):
        call = await send(channel, start(*TITLES, parallel=3), ends=False)
        first = await call.read()
        app.leave()
        end = await end_of(call)
        assert first.WhichOneof("event") == "started"
    assert end.code == "OK"
    assert len(texts_of(end)) == 3


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "start"),
        ([cancel(0)], "start"),
        ([start(task="")], "start.task"),
        ([start("A", task="b"), start("A")], "start"),
        ([start("A", task="b"), Request()], "action"),
    ],
    ids=["nothing", "cancel first", "no task", "twice", "empty"],
)
async def test_what_is_no_text_is_refused(requests, field, settled):
    async with composing() as (app, channel):
        if len(requests) > 1:
            endless(requests[0])
        call = await send(channel, *requests, ends=len(requests) < 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith(f"{field}: ")
        await settled(app, lambda: is_quiet(app))


async def test_a_record_tells_of_the_whole(logged, settled):
    def told() -> list[dict]:
        return [line for line in logged if line["event"] == "rpc"]

    async with composing() as (_app, channel):
        end = await end_of(await send(channel, start(*TITLES, request_id="mine")))
        await settled(_app, lambda: bool(told()))
    (line,) = told()
    used = end.events[-1].finished.usage
    assert (line["request_id"], line["code"], line["sentences"]) == ("mine", "OK", 3)
    assert line["completion_tokens"] == used.completion_tokens
    assert line["cached_tokens"] == used.cached_tokens


async def test_our_client_composes():
    async with composing() as (app, _), AsyncClient(app.address) as client:
        async with client.compose("About bread.", sections=TITLES, join="Sum up.") as stream:
            events = [event async for event in stream]
        result = await stream.result()
        async with client.compose("An independent guide.") as drafted:
            outline = (await drafted.result()).outline
    assert result.text.endswith("\n\n<Sum up.>")
    assert [event.title for event in events if isinstance(event, SegmentStarted)][:3] == [*TITLES]
    reasons = [event.finish_reason for event in events if isinstance(event, SegmentFinished)]
    assert reasons == [FinishReason.END_OF_TEXT] * 4
    assert (outline.is_drafted, outline.is_parallel) == (True, True)


async def test_the_command_line_composes(capsys):
    async with composing() as (app, _):
        arguments = ["compose", "--task", "About bread.", "--address", app.address, "--text"]
        arguments += [flag for title in TITLES for flag in ("--section", title)]
        assert await asyncio.to_thread(main, arguments) == 0
    out = capsys.readouterr().out
    for title in TITLES:
        assert f'<Write the section "{title}" only.>' in out
