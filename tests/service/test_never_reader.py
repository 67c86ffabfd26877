"""A caller that never reads holds its places for a bounded time, and then is told why."""

import asyncio

import grpc
import pytest

from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import options_pb2
from service.raw_calls import NARROW, asked, end_of, generate, send, stub_of

MANY = pytest.mark.parametrize("is_many", [False, True], ids=["generate", "generate_many"])
PLACES = 4


def heavy() -> dict:
    """Options of a request that writes more than fits on the way, and then is over."""
    output = options_pb2.OutputOptions(
        granularity=options_pb2.GRANULARITY_TOKEN, logprobs=20, n=PLACES
    )
    return {"output": output, "max_tokens": 400}


def small_house(write_seconds: float):
    return loopback_settings(
        admission={"max_running": PLACES, "max_waiting": 0},
        listener={"write_seconds": write_seconds},
    )


@MANY
async def test_who_never_reads_closes_the_server_to_nobody(settled, logged, is_many):
    """Its sequence has long ended; its places come back, and one line says why."""
    model = ScriptedModel(ScriptedRunner(lambda _: b"x" * 400))
    async with (
        serving(model, small_house(0.3)) as app,
        grpc.aio.insecure_channel(app.address, options=NARROW) as channel,
        grpc.aio.insecure_channel(app.address) as other,
    ):
        if is_many:
            call = stub_of(channel).GenerateMany()
            await send(call, generate("v", **heavy()), ends=False)
        else:
            call = stub_of(channel).Generate(asked("v", **heavy()))
        await call.read()
        full = await end_of(stub_of(other).Generate(asked()))
        assert full.reason == "QUEUE_FULL"
        await settled(app, lambda: app._admission.statistics().in_progress == 0, 8)
        await settled(app, lambda: app._driver.in_progress == 0)
        assert (await end_of(stub_of(other).Generate(asked()))).code == "OK"
        # Whoever reads after all gets what was on the way, and then the reason.
        end = await end_of(call)
        assert (end.code, end.reason) == ("RESOURCE_EXHAUSTED", "READER_TOO_SLOW")
        assert "finished" not in end.kinds()
    lines = [line for line in logged if line["event"] == "rpc" and line["peer"] == peer_of(logged)]
    names = [line["request_id"] for line in lines]
    assert names.count("v") == 1
    assert len(lines) == 1 + is_many  # the call itself, beside its generation
    for line in lines:
        assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "READER_TOO_SLOW")


def peer_of(logged: list) -> str:
    return next(line["peer"] for line in logged if line.get("request_id") == "v")


async def test_who_does_not_even_read_the_status_holds_no_task(settled):
    """The call's status waits behind text for ever; nothing of ours waits with it."""
    model = ScriptedModel(ScriptedRunner(lambda _: b"x" * 400))
    async with (
        serving(model, small_house(0.1)) as app,
        grpc.aio.insecure_channel(app.address, options=NARROW) as channel,
    ):
        known = asyncio.all_tasks()
        call = stub_of(channel).Generate(asked("v", **heavy()))
        await call.read()
        await settled(app, lambda: app._admission.statistics().in_progress == 0)
        handlers = [
            task for task in asyncio.all_tasks() - known if "HandleExceptions" in task.get_name()
        ]
        async with asyncio.timeout(10):
            await asyncio.wait(handlers)
        call.cancel()


@MANY
async def test_who_reads_is_not_cut_however_long_the_engine_takes(turnstile, is_many):
    """The limit is of a message that waits for its reader, not of a reader that waits."""
    model = ScriptedModel(ScriptedRunner(gate=turnstile))
    settings = loopback_settings(listener={"write_seconds": 0.1})
    async with (
        serving(model, settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        if is_many:
            call = stub_of(channel).GenerateMany()
            await send(call, generate("v"))
        else:
            call = stub_of(channel).Generate(asked("v"))
        await turnstile.wait_held()
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, later.set)
        await later.wait()
        turnstile.open()
        end = await end_of(call)
    assert end.code == "OK"
    pieces = [event.sentence.text for event in end.events if event.WhichOneof("event") != "started"]
    assert "".join(pieces).encode() == echo(b"hi")
