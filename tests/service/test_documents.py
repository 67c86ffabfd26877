"""Whole documents over the wire: rebuilt byte for byte, in three orders, whatever ends early."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import grpc
import pytest

from document.scripted_writer import ScriptedWriter
from document.stories import DONE, piece
from hocket.server.document.job import Place
from hocket.server.document.transform import DocumentTransform
from hocket.server.errors import EngineFailed, GenerationFailed
from hocket.server.rpc import documents, porch
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import document_pb2, document_pb2_grpc, options_pb2
from service.document_calls import (
    ORDERS,
    Request,
    call_of,
    cancel,
    given,
    parts,
    seen_of,
    send,
    start,
)
from service.raw_calls import end_of, reason_of

SOURCE = (
    "  Der Hund bellt. Die Katze schläft!\n\n# Kapitel\n\n- eins\n- zwei\n\n"
    "これは犬です。猫です。\r\nهذا كلب. وهذه قطة؟\n```\ncode();\n```\nEnde gut.  \n"
)
REASON = options_pb2.FinishReason


def answer(prompt: bytes) -> bytes:
    return b"<" + prompt.removeprefix(b"Do: ") + b">"


@pytest.fixture
def written_by(monkeypatch):
    """Lets a writer of the test's own write all documents."""

    def use(writer):
        service = porch.DocumentService
        monkeypatch.setattr(
            porch,
            "DocumentService",
            lambda *args, **kwargs: service(*args, **{**kwargs, "writer_for": lambda *_: writer}),
        )
        return writer

    return use


@asynccontextmanager
async def calling(**sections):
    """Serve a model that puts segments into brackets; give the app and a channel."""
    model = ScriptedModel(ScriptedRunner(answer))
    async with (
        asyncio.timeout(20),
        serving(model, loopback_settings(**sections)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        yield app, channel


async def is_quiet(app) -> None:
    """Wait until nothing of any call is left."""
    while app._driver.in_progress or app._admission.statistics().in_progress:
        await asyncio.sleep(0)


@pytest.mark.parametrize("segmentation", [1, 2], ids=["sentences", "paragraphs"])
async def test_a_document_comes_back_whole_in_every_order(segmentation):
    async with calling() as (app, channel):
        stories = {}
        for name, order in ORDERS.items():
            for size in (3, 1_000):
                call = call_of(channel)
                cut = [SOURCE[at : at + size] for at in range(0, len(SOURCE), size)]
                await send(
                    call, start(segmentation=segmentation, order=order, window=3), *parts(*cut)
                )
                stories[name, size] = seen = await seen_of(call)
                assert seen.end.code == "OK"
                seen.check(SOURCE)
        first = stories["in_order", 1_000]
        assert first.finished.segments >= 6
        assert list(first.texts) == sorted(first.texts)
        for place, text in first.texts.items():
            begin, end = first.ranges[place]
            assert text == f"<{SOURCE.encode()[begin:end].decode()}>"
        for seen in stories.values():
            assert first.texts == seen.texts
            assert first.gaps == seen.gaps
            assert list(first.finished.target_bytes) == list(seen.finished.target_bytes)
        await is_quiet(app)


async def test_all_ranges_of_the_target_are_told_in_order():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts(SOURCE))
        seen = await seen_of(call)
    assert all(end.HasField("target") for end in seen.ends.values())


async def test_given_segments_and_their_gaps_come_back():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(
            call,
            start(segmentation=document_pb2.SEGMENTATION_GIVEN),
            given("Eins"),
            given(" zwei ", "\n--\n"),
        )
        seen = await seen_of(call)
    assert seen.texts == {(0, 0): "<Eins>", (1, 0): "<zwei>"}
    seen.check("Eins\n-- zwei ".replace("--", "--\n"))


async def test_each_language_is_a_variant(written_by):
    writer = written_by(ScriptedWriter())
    for segment in range(2):
        for variant in range(2):
            writer.say(Place(segment, variant), piece(f"{segment}{variant}"), DONE)
    async with calling() as (_, channel):
        call = call_of(channel)
        translate = document_pb2.Translate(target_languages=["de", "fr"])
        await send(call, start(translate=translate), *parts("One. Two."))
        seen = await seen_of(call)
    assert list(seen.started.variants) == ["de", "fr"]
    assert seen.texts == {(0, 0): "00", (0, 1): "01", (1, 0): "10", (1, 1): "11"}
    seen.check("One. Two.")


async def test_results_come_while_the_caller_still_writes():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two"), ends=False)
        kinds = [(await call.read()).WhichOneof("event") for _ in range(3)]
        assert kinds == ["started", "segment_started", "piece"]
        await send(call, *parts(".\n"))
        end = await end_of(call)
    assert end.events[-1].finished.segments == 2


async def test_a_segment_that_fails_ends_alone_with_its_own_status(written_by, logged):
    writer = written_by(ScriptedWriter())
    writer.say(Place(0), piece("a"), GenerationFailed())
    writer.say(Place(1), ValueError("hush"))
    writer.say(Place(2), piece("c"), DONE)
    async with calling() as (app, channel):
        call = call_of(channel)
        await send(call, start(request_id="d"), *parts("One. Two. Three."))
        seen = await seen_of(call)
        await is_quiet(app)
    seen.check("One. Two. Three.")
    assert (seen.finished.failed, seen.end.code) == (2, "OK")
    assert [reason_of(seen.ends[i, 0].status) for i in range(3)] == ["GENERATION_FAILED"] * 2 + [""]
    assert seen.ends[0, 0].finish_reason == REASON.Value("FINISH_REASON_UNSPECIFIED")
    assert "hush" not in str(seen.end.events)
    (bug,) = [line for line in logged if line["event"] == "bug"]
    assert (bug["request_id"], bug["segment"]) == ("d", 1)


async def test_a_segment_is_cancelled_known_or_not(written_by):
    writer = written_by(ScriptedWriter())
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(
            call, start(window=2), cancel(3), *parts("One. Two. Three. Four. Five."), ends=False
        )
        await writer.wait_for(lambda: len(writer.begun) == 2)
        await send(call, cancel(0), cancel(1, variant=7))
        for index in (1, 2, 4):
            writer.say(Place(index), DONE)
        seen = await seen_of(call)
    reasons = [end.finish_reason for _, end in sorted(seen.ends.items())]
    cancelled, done = options_pb2.FINISH_REASON_CANCELLED, options_pb2.FINISH_REASON_END_OF_TEXT
    assert reasons == [cancelled, done, done, cancelled, done]
    assert [Place(index) for index in (0, 1, 2, 4)] == writer.begun
    assert seen.finished.incomplete == 2
    seen.check("One. Two. Three. Four. Five.")


async def test_a_time_budget_gives_what_there_is_and_says_so(written_by, monkeypatch):
    """Though the caller never closes its side."""
    made = []

    def make(*args, **kwargs):
        made.append(DocumentTransform(*args, **kwargs))
        return made[0]

    monkeypatch.setattr(documents, "DocumentTransform", make)
    writer = written_by(ScriptedWriter())
    writer.say(Place(0), piece("a"), DONE)
    async with calling() as (app, channel):
        call = call_of(channel)
        source = "One. Two. Three. Four. Five"
        await send(call, start(window=2), *parts(source), ends=False)
        await writer.wait_for(lambda: len(writer.begun) == 3)
        made[0].expire_nowait()
        seen = await seen_of(call)
        await is_quiet(app)
    seen.check(source)
    assert seen.finished.is_partial
    late = options_pb2.FINISH_REASON_TIME_BUDGET
    reasons = [end.finish_reason for _, end in sorted(seen.ends.items())]
    assert reasons == [options_pb2.FINISH_REASON_END_OF_TEXT, *[late] * 4]
    assert seen.finished.incomplete == 4
    assert len(writer.begun) == 3


async def test_the_time_of_a_document_runs_out():
    """Whether anything of it came or not."""
    async with calling() as (app, channel):
        call = call_of(channel)
        request = start()
        request.start.time_budget.FromMilliseconds(20)
        await send(call, request, ends=False)
        seen = await seen_of(call)
        await is_quiet(app)
    assert seen.end.code == "OK"
    assert seen.finished.is_partial


@pytest.mark.parametrize("seconds", [None, 0.1], ids=["cancel", "deadline"])
async def test_a_caller_that_leaves_leaves_nothing_running(written_by, logged, seconds):
    writer = written_by(ScriptedWriter())

    def told() -> list[str]:
        return [line["code"] for line in logged if line["event"] == "rpc"]

    async with calling() as (app, channel):
        call = call_of(channel, timeout=seconds)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await send(call, start(), *parts("One. Two. Three. Four"), ends=False)
        if seconds is None:
            await writer.wait_for(lambda: len(writer.begun) == 3)
            call.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            while True:
                await call.read()
        await is_quiet(app)
        await writer.wait_for(lambda: not writer.in_progress)
        while not told():
            await asyncio.sleep(0)
        ours = [task for task in asyncio.all_tasks() if "hocket/server/document" in repr(task)]
        assert ours == []
    assert told() == ["CANCELLED" if seconds is None else "DEADLINE_EXCEEDED"]


async def test_an_engine_that_died_ends_the_document(written_by):
    """What follows would fail as well."""
    writer = written_by(ScriptedWriter())
    writer.say(Place(0), piece("a"), DONE)
    writer.say(Place(1), EngineFailed())
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two. Three."))
        end = await end_of(call)
    assert (end.code, end.reason) == ("UNAVAILABLE", "ENGINE_FAILED")
    assert [e.WhichOneof("event") for e in end.events].count("segment_finished") == 2


async def test_one_line_tells_of_a_document(logged):
    async with calling() as (_, channel):
        call = call_of(channel, metadata=(("x-request-id", "mine"),))
        await send(call, start(request_id="d"), *parts("One. Two."))
        seen = await seen_of(call)
        assert dict(await call.trailing_metadata())["x-request-id"] == "d"
    (line,) = [line for line in logged if line["event"] == "rpc"]
    usage = seen.finished.usage
    assert (line["method"], line["code"]) == ("Transform", "OK")
    assert (line["request_id"], line["correlation_id"], line["model"]) == ("d", "mine", "scripted")
    assert line["prompt_tokens"] == usage.prompt_tokens > 0
    assert line["completion_tokens"] == usage.completion_tokens > 0
    assert line["sentences"] == 2
    assert line["ttfs_ms"] is not None


async def test_an_id_in_use_is_refused():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(request_id="x"), ends=False)
        await call.read()
        other = call_of(channel)
        await send(other, start(request_id="x"))
        end = await end_of(other)
        assert (end.code, end.reason) == ("ALREADY_EXISTS", "REQUEST_ID_IN_USE")
        await call.done_writing()
        assert (await end_of(call)).code == "OK"


async def test_a_document_takes_more_places_only_as_far_as_they_are_free(written_by):
    """The door refuses the next document, never a segment."""
    writer = written_by(ScriptedWriter())
    door = {"max_running": 2, "max_waiting": 0}
    async with calling(admission=door) as (app, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two. Three."))
        await writer.wait_for(lambda: len(writer.begun) == 2)
        assert app._admission.statistics().in_progress == 2
        other = call_of(channel)
        await send(other, start(), *parts("One."))
        assert (await end_of(other)).reason == "QUEUE_FULL"
        for index in range(3):
            writer.say(Place(index), DONE)
        seen = await seen_of(call)
        assert seen.finished.segments == 3
        await is_quiet(app)


async def test_a_draining_server_finishes_a_document_that_is_whole(written_by):
    writer = written_by(ScriptedWriter())
    async with calling(drain={"grace_seconds": 3_600}) as (app, channel):
        call = call_of(channel)
        await send(call, start(window=1), *parts("One. Two. Three."))
        await writer.wait_for(lambda: writer.begun)
        app.leave()
        for index in range(3):
            writer.say(Place(index), DONE)
        seen = await seen_of(call)
    assert seen.end.code == "OK"
    seen.check("One. Two. Three.")


async def test_a_draining_server_waits_for_no_more_of_a_document(written_by):
    """It ends after what came; one whose first message has not come, at once."""
    writer = written_by(ScriptedWriter())
    async with calling(drain={"grace_seconds": 3_600}) as (app, channel):
        idle = call_of(channel)
        call = call_of(channel)
        await send(call, start(), *parts("One. Two. Three"), ends=False)
        await writer.wait_for(lambda: len(writer.begun) == 2)
        app.leave()
        for index in range(2):
            writer.say(Place(index), piece("x"), DONE)
        end = await end_of(call)
        assert (await end_of(idle)).reason == "SERVER_DRAINING"
    assert (end.code, end.reason) == ("UNAVAILABLE", "SERVER_DRAINING")
    kinds = [event.WhichOneof("event") for event in end.events]
    assert kinds.count("segment_finished") == 2
    assert "finished" not in kinds


async def test_what_outlives_the_grace_is_told_why():
    model = ScriptedModel(ScriptedRunner(answer))
    settings = loopback_settings(drain={"grace_seconds": 0})
    async with (
        asyncio.timeout(20),
        serving(model, settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        call = call_of(channel)
        request = start(granularity=options_pb2.GRANULARITY_TOKEN)
        request.start.stopping.max_tokens = 4_000
        request.start.stopping.ignore_eos = True
        await send(call, request, *parts("One. Two. Three."))
        for _ in range(4):
            await call.read()
        app.leave()
        end = await end_of(call)
    assert (end.code, end.reason) == ("UNAVAILABLE", "SERVER_DRAINING")


async def test_compose_is_not_offered():
    async with calling() as (_, channel):
        stub = document_pb2_grpc.DocumentServiceStub(channel)
        call = stub.Compose()
        await call.done_writing()
        end = await end_of(call)
    assert (end.code, end.reason) == ("UNIMPLEMENTED", "FEATURE_DISABLED")


async def test_a_document_of_too_many_messages_is_refused(monkeypatch):
    monkeypatch.setattr(documents, "_MOST_PARTS", 3)
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts(*["One. "] * 4))
        end = await end_of(call)
    assert end.code == "INVALID_ARGUMENT"
    kinds = [event.WhichOneof("event") for event in end.events]
    assert kinds.count("segment_finished") == 2  # the third was still open


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "start"),
        (parts("One."), "start"),
        ([Request()], "start"),
        ([start(), start()], "start"),
        ([start(), Request()], "action"),
        ([start(), given("One.")], "segment"),
        ([start(segmentation=document_pb2.SEGMENTATION_GIVEN), *parts("One.")], "text"),
        ([start(), *parts("a" * 700_000, "b" * 700_000)], "text"),
    ],
    ids=["nothing", "text first", "empty first", "twice", "empty", "given", "text", "long"],
)
async def test_what_is_no_document_is_refused(requests, field):
    async with calling(document={"max_mib": 1}) as (app, channel):
        call = call_of(channel)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await send(call, *requests)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith(f"{field}: ")
        await is_quiet(app)
