"""The transport's promises, seen from the wire."""

import contextlib
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.server.app import App
from hocket.server.errors import StartupError
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, generation_pb2_grpc
from service import raw_http2

GENERATE = "/hocket.v1.GenerationService/Generate"
REFUSED_STREAM = 7  # RFC 9113, 7
EXHAUSTED = b"grpc-status\x018"  # RESOURCE_EXHAUSTED, as a literal in a header block


@pytest.mark.parametrize("streams", [1, 256, 1_000])
async def test_the_settings_that_a_server_announces(streams):
    """Its bounds are told to the peer, which keeps to them before they have to be enforced."""
    settings = loopback_settings(listener={"max_concurrent_streams": streams})
    async with serving(settings=settings) as app, raw_http2.connected(app.address) as raw:
        told = raw_http2.settings_of(await raw.receive(raw_http2.SETTINGS))
    assert told[raw_http2.MAX_CONCURRENT_STREAMS] == streams
    assert told[raw_http2.INITIAL_WINDOW_SIZE] == 65_536
    assert told[raw_http2.MAX_HEADER_LIST_SIZE] == 8_192


async def test_a_stream_above_the_bound_is_refused_alone():
    """A peer that does not keep to the bound loses that stream, in the way that may be retried."""
    settings = loopback_settings(listener={"max_concurrent_streams": 2})
    watch, request = "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest()
    async with serving(settings=settings) as app, raw_http2.connected(app.address) as raw:
        raw.send(raw_http2.SETTINGS, flags=raw_http2.ACK)
        await raw.ping()  # the bound holds from the acknowledgement on
        for stream in (1, 3, 5):
            raw.call(stream, watch, request.SerializeToString())
        refused = await raw.receive(raw_http2.RST_STREAM)
        assert (refused.stream, int.from_bytes(refused.payload, "big")) == (5, REFUSED_STREAM)
        app.leave(in_hurry=True)
        ended = await raw.receive_each((1, 3), raw_http2.END_STREAM)
        assert [frame.kind for frame in ended.values()] == [raw_http2.HEADERS] * 2


async def test_a_second_server_on_the_same_port_is_refused():
    async with serving() as app:
        other = App(
            loopback_settings(listener={"address": app.address}), load=lambda *_: ScriptedModel()
        )
        with pytest.raises(StartupError, match="cannot listen on") as caught:
            await other.run()
        assert app.address in str(caught.value)
        assert other.address == ""


async def test_a_port_is_free_again_when_its_server_has_left():
    async with serving() as app:
        address = app.address
    async with serving(settings=loopback_settings(listener={"address": address})) as again:
        assert again.address == address


async def test_health_answers_while_every_place_is_taken(settled):
    """Places, streams of the connection and the engine's step are all taken."""
    gate = threading.Event()
    warm = threading.Semaphore(2)
    model = ScriptedModel(
        ScriptedRunner(gate=lambda: warm.acquire(blocking=False) or gate.wait(20))
    )
    settings = loopback_settings(
        admission={"max_running": 2, "max_waiting": 2, "max_per_connection": 4},
        listener={"max_concurrent_streams": 4},
    )
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(serving(model, settings))
        stack.callback(gate.set)
        busy = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        stub = generation_pb2_grpc.GenerationServiceStub(busy)
        calls = [stub.Generate(generation_pb2.GenerateRequest(prompt="hi")) for _ in range(4)]
        await settled(app, lambda: app._admission.statistics().in_progress == 4)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(app.address, options=options) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "readiness", "liveness"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            late = generation_pb2_grpc.GenerationServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.Generate(generation_pb2.GenerateRequest(prompt="hi")).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        gate.set()
        for call in calls:
            assert [response async for response in call][-1].WhichOneof("event") == "finished"


async def test_a_message_above_the_bound_is_refused():
    """One byte less comes as far as our own bounds, which refuse it by name."""
    settings = loopback_settings(listener={"max_message_kib": 16})
    most = 16 * 1024
    async with serving(settings=settings) as app:
        async with grpc.aio.insecure_channel(app.address) as channel:
            call = channel.unary_stream(GENERATE)
            room = most - len(_request(""))
            for letters, code in [
                (room, grpc.StatusCode.INVALID_ARGUMENT),
                (room + 1, grpc.StatusCode.RESOURCE_EXHAUSTED),
            ]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(_request("x" * letters)).read()
                assert caught.value.code() is code
        assert app._admission.statistics().in_progress == 0


@pytest.mark.parametrize("size", [9_000, 60_000])
async def test_metadata_above_the_bound_is_refused(size):
    """By gRPC's clients before it is sent, and by the server where a peer sends it all the same."""
    request = generation_pb2.GenerateRequest(prompt="hi").SerializeToString()
    async with serving() as app:
        async with grpc.aio.insecure_channel(app.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_stream(GENERATE)(
                    request, metadata=(("x-request-id", "x" * size),)
                ).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with raw_http2.connected(app.address, (raw_http2.HEADER_TABLE_SIZE, 0)) as raw:
            raw.send(raw_http2.SETTINGS, flags=raw_http2.ACK)
            raw.call(1, GENERATE, request, ("x-filler", "x" * min(size, 16_000)))
            assert EXHAUSTED in (await raw.receive(raw_http2.HEADERS, 1)).payload
            raw.call(3, GENERATE, request, ("x-filler", "x" * 7_000))
            assert EXHAUSTED not in (await raw.receive(raw_http2.HEADERS, 3)).payload


async def test_a_peer_that_is_no_http2_is_dropped():
    async with serving() as app:
        async with raw_http2.connected(app.address) as raw:
            raw._writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 4)
            await raw.wait_closed()
        async with raw_http2.connected(app.address) as raw:
            await raw.ping()


def _request(prompt: str) -> bytes:
    """Write a request; its length is the prompt's and always the same more."""
    tag = generation_pb2.GenerateRequest.DESCRIPTOR.fields_by_name["prompt"].number << 3 | 2
    length = len(prompt)
    size = bytes([length % 128 | 128, length // 128 % 128 | 128, length // 16_384])
    return bytes([tag]) + size + prompt.encode()
