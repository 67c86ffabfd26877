"""How documents end before their time: the time is up, the caller leaves, the server does."""

import asyncio
import contextlib

import grpc
import pytest

from document.scripted_writer import ScriptedWriter
from document.stories import DONE, piece
from hocket.server.document.job import Place
from hocket.server.document.transform import DocumentTransform
from hocket.server.errors import EngineFailed
from hocket.server.rpc import documents
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import options_pb2
from service.document_calls import (
    answer,
    call_of,
    calling,
    is_quiet,
    parts,
    seen_of,
    send,
    start,
)
from service.raw_calls import end_of


async def test_a_time_budget_gives_what_there_is_and_says_so(written_by, monkeypatch, settled):
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
        await settled(app, lambda: is_quiet(app))
    seen.check(source)
    assert seen.finished.is_partial
    late = options_pb2.FINISH_REASON_TIME_BUDGET
    reasons = [end.finish_reason for _, end in sorted(seen.ends.items())]
    assert reasons == [options_pb2.FINISH_REASON_END_OF_TEXT, *[late] * 4]
    assert seen.finished.incomplete == 4
    assert len(writer.begun) == 3


async def test_an_operator_ends_a_document_by_its_id(written_by, client_of):
    writer = written_by(ScriptedWriter())
    async with calling(listener={"control": True}) as (app, channel), client_of(app) as operator:
        call = call_of(channel)
        await send(call, start(request_id="d", window=1), *parts("One. Two. T"), ends=False)
        await writer.wait_for(lambda: writer.begun)
        assert await operator.abort("d")
        seen = await seen_of(call)
        assert not await operator.abort("d")
    aborted = options_pb2.FINISH_REASON_ABORTED
    assert [end.finish_reason for end in seen.ends.values()] == [aborted] * 3
    assert (seen.finished.incomplete, seen.finished.is_partial) == (3, False)
    assert writer.begun == [Place(0)]


async def test_the_time_of_a_document_runs_out(settled):
    """Whether anything of it came or not."""
    async with calling() as (app, channel):
        call = call_of(channel)
        request = start()
        request.start.time_budget.FromMilliseconds(20)
        await send(call, request, ends=False)
        seen = await seen_of(call)
        await settled(app, lambda: is_quiet(app))
    assert seen.end.code == "OK"
    assert seen.finished.is_partial


@pytest.mark.parametrize("seconds", [None, 0.1], ids=["cancel", "deadline"])
async def test_a_caller_that_leaves_leaves_nothing_running(written_by, logged, seconds, settled):
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
        await settled(app, lambda: is_quiet(app))
        await writer.wait_for(lambda: not writer.in_progress)
        await settled(app, lambda: bool(told()))
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


async def test_a_document_takes_more_places_only_as_far_as_they_are_free(written_by, settled):
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
        await settled(app, lambda: is_quiet(app))


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
