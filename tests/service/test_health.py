"""`grpc.health.v1` tells the truth from the first moment to the last, whoever else is listening."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.server.app import App
from hocket.server.lifecycle import ServerState
from hocket.server.rpc.listener import SERVICES
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from service import raw_http2

NAMES = ("", "readiness", "liveness", *SERVICES)
WATCH = "/grpc.health.v1.Health/Watch"
FOREVER = {"delay_seconds": 0.0, "grace_seconds": 3_600.0}

Request = health_pb2.HealthCheckRequest
Status = health_pb2.HealthCheckResponse.ServingStatus
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    Status.Value(name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


class Life:
    """A server whose model is loaded when the test says so."""

    def __init__(self, *, drain: dict[str, float]) -> None:
        self.may_load = threading.Event()
        self.app = App(loopback_settings(drain=drain), load=self._load)

    def _load(self, *_: object) -> ScriptedModel:
        self.may_load.wait(30)
        return ScriptedModel()

    @contextlib.asynccontextmanager
    async def lived(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.app.run())
        try:
            await self.app.lifecycle.wait_for(ServerState.LOADING)
            yield
        finally:
            self.may_load.set()
            self.app.leave(in_hurry=True)
            assert await running == 0


def stub_of(channel: grpc.aio.Channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


async def rest(call: grpc.aio.UnaryStreamCall) -> list[int]:
    """Return what a watch still tells, until it ends."""
    told = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        told.append(answer.status)
    return told


async def states(channel: grpc.aio.Channel) -> dict[str, int]:
    """Return what Check says of each name; List must say the same."""
    checked = {name: (await stub_of(channel).Check(Request(service=name))).status for name in NAMES}
    listed = await stub_of(channel).List(vars(health_pb2)["HealthListRequest"]())
    assert checked == {name: answer.status for name, answer in listed.statuses.items()}
    return checked


async def test_every_name_follows_the_life_of_the_server():
    """Liveness holds from first to last; all others are SERVING in one state alone."""
    closed = {**dict.fromkeys(NAMES, NOT_SERVING), "liveness": SERVING}
    life = Life(drain={"delay_seconds": 3_600.0, "grace_seconds": 3.0})
    async with life.lived(), grpc.aio.insecure_channel(life.app.address) as channel:
        watches = {name: stub_of(channel).Watch(Request(service=name)) for name in NAMES}
        seen = {name: [(await call.read()).status] for name, call in watches.items()}
        assert closed == await states(channel)

        life.may_load.set()
        await life.app.lifecycle.wait_for(ServerState.SERVING)
        assert dict.fromkeys(NAMES, SERVING) == await states(channel)
        for name in set(NAMES) - {"liveness"}:
            seen[name].append((await watches[name].read()).status)

        life.app.leave()
        await life.app.lifecycle.wait_for(ServerState.DRAINING)
        assert closed == await states(channel)
        life.app.leave(in_hurry=True)
        for name, call in watches.items():
            seen[name] += await rest(call)
            assert await call.code() is grpc.StatusCode.OK
    for name, story in seen.items():
        assert (
            story == [SERVING]
            if name == "liveness"
            else story
            == [
                NOT_SERVING,
                SERVING,
                NOT_SERVING,
            ]
        )


async def test_a_failed_engine_is_told_to_watchers_of_everything():
    """Liveness turns as well: the process should be replaced."""
    life = Life(drain=FOREVER)
    life.may_load.set()
    running = asyncio.create_task(life.app.run())
    await life.app.lifecycle.wait_for(ServerState.SERVING)
    async with grpc.aio.insecure_channel(life.app.address) as channel:
        watches = [stub_of(channel).Watch(Request(service=name)) for name in NAMES]
        assert [SERVING] * len(NAMES) == [(await call.read()).status for call in watches]
        life.app._fail(RuntimeError("planted"))
        for call in watches:
            assert await rest(call) == [NOT_SERVING]
    assert await running == 1


async def test_a_name_that_is_not_served():
    """Check refuses it; a watch of it goes on, as the protocol asks; List does not name it."""
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        for name in ("nobody", "hocket.v1", "Readiness", " "):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub_of(channel).Check(Request(service=name))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        call = stub_of(channel).Watch(Request(service="nobody"))
        assert (await call.read()).status == SERVICE_UNKNOWN
        app.leave(in_hurry=True)
        assert await call.read() == grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_watcher_that_never_reads_delays_nobody():
    """Its window takes not one byte; the others hear all, and the hour of grace is not waited."""
    life = Life(drain=FOREVER)
    async with contextlib.AsyncExitStack() as stack:
        async with life.lived():
            address = life.app.address
            shut = await stack.enter_async_context(
                raw_http2.connected(address, (raw_http2.INITIAL_WINDOW_SIZE, 0))
            )
            for stream in (streams := range(1, 17, 2)):
                shut.call(stream, WATCH, Request().SerializeToString())
            await shut.receive_each(streams, raw_http2.END_HEADERS)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            call = stub_of(channel).Watch(Request())
            assert (await call.read()).status == NOT_SERVING
            life.may_load.set()
            assert (await call.read()).status == SERVING
            life.app.leave(in_hurry=True)
            assert (await call.read()).status == NOT_SERVING
            assert await call.read() == grpc.aio.EOF
        assert life.app.lifecycle.state is ServerState.STOPPED


async def test_idle_watches_end_by_themselves():
    """Open watches of every name do not cost the grace, nor the wait for those that never read."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving(settings=loopback_settings(drain=FOREVER)) as app:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
            calls = [stub_of(channel).Watch(Request(service=name)) for name in NAMES]
            for call in calls:
                await call.read()
        for name, call in zip(NAMES, calls, strict=True):
            assert await rest(call) == ([] if name == "liveness" else [NOT_SERVING])
            assert await call.code() is grpc.StatusCode.OK  # not cancelled, as at the end of grace


async def test_a_connection_holds_a_bounded_number_of_watches():
    """One more is refused with a clear status; a place is free again when a watch ends."""
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = stub_of(channel)
        calls = [stub.Watch(Request()) for _ in range(32)]
        for call in calls:
            assert (await call.read()).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Watch(Request()).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "32" in caught.value.details()
        assert (await stub.Check(Request())).status == SERVING
        options = [("grpc.use_local_subchannel_pool", 1)]  # or it would share the connection
        async with grpc.aio.insecure_channel(app.address, options=options) as other:
            assert (await stub_of(other).Watch(Request()).read()).status == SERVING
        calls[0].cancel()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert (await stub.Watch(Request()).read()).status == SERVING
                    break
