"""Every row of the error table is seen to arrive at a client."""

import asyncio
import hashlib
import re
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from hocket.client import (
    AsyncClient,
    DeadlineExceeded,
    Draining,
    DuplicateRequest,
    EngineFailed,
    Forbidden,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    QueueTimeout,
    Started,
    Unauthenticated,
    Unsupported,
)
from hocket.server.app import App
from hocket.server.lifecycle import ServerState
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, generation_pb2_grpc
from service.clock import Clock, serving_by
from service.turnstile import stepped

ENDLESS = {"ignore_eos": True, "max_tokens": 4_000}


async def test_invalid_request(client_of):
    async with serving() as app, client_of(app) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.generate("hi", temperature=11, top_p=0.0)
        assert caught.value.reason == "FIELD_INVALID"
        fields = {violation.field for violation in caught.value.violations}
        assert fields == {"sampling.temperature", "sampling.top_p"}
        with pytest.raises(InvalidRequest) as caught:
            await client.generate("")
        assert caught.value.reason == "PROMPT_EMPTY"
        with pytest.raises(InvalidRequest) as caught:
            await client.generate("x" * 4_096)
        assert caught.value.reason == "PROMPT_TOO_LONG"
        assert caught.value.metadata["max_prompt_tokens"] == "4095"


async def test_model_not_found(client_of):
    async with serving() as app, client_of(app) as client:
        with pytest.raises(ModelNotFound) as caught:
            await client.generate("hi", model="nobody")
        assert caught.value.metadata["model"] == "nobody"
        with pytest.raises(ModelNotFound):
            await client.get_model("nobody")


async def test_duplicate_request(client_of, turnstile):
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        async with client.stream("hi", request_id="same", **ENDLESS) as stream:
            await anext(aiter(stream))
            turnstile.close()
            await turnstile.wait_held()
            with pytest.raises(DuplicateRequest):
                await client.generate("hi", request_id="same")
            turnstile.open()


async def test_feature_disabled(client_of):
    async with serving() as app, client_of(app) as client:
        with pytest.raises(Unsupported) as caught:
            await client.abort("some")
        assert caught.value.reason == "FEATURE_DISABLED"


async def test_unauthenticated_and_forbidden(tmp_path):
    keys = tmp_path / "keys"
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("user-t", "op-t")}
    keys.write_text(f"a user {digests['user-t']}\nb operator {digests['op-t']}\n")
    settings = loopback_settings(access={"keys_file": str(keys)}, listener={"control": True})
    model = ScriptedModel(runner=ScriptedRunner(num_prefix_chunks=64))
    async with serving(model, settings) as app:

        def client(token):
            return AsyncClient(app.address, token=token)

        async with client(None) as nobody, client("wrong") as stranger:
            for one in (nobody, stranger):
                with pytest.raises(Unauthenticated) as caught:
                    await one.generate("hi")
                assert caught.value.reason == "TOKEN_INVALID"
            assert (await nobody.check_health()).value == "serving"
        async with client("user-t") as user, client("op-t") as operator:
            prompt = "a prompt of some length that both send"
            for one, cached in [(user, False), (operator, False), (user, True)]:
                answer = await one.generate(prompt)
                assert answer.text == echo(prompt.encode()).decode()
                assert (answer.usage.cached_tokens > 0) is cached
            with pytest.raises(Forbidden) as caught:
                await user.abort("x")
            assert caught.value.reason == "OPERATION_FORBIDDEN"
            assert await operator.abort("x") is False


async def test_overloaded_with_pushback_while_health_answers(client_of, turnstile, settled):
    settings = loopback_settings(
        admission={"max_running": 2, "max_waiting": 1, "max_per_connection": 3}
    )
    async with serving(stepped(turnstile), settings) as app, client_of(app) as client, turnstile:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(client.stream("hi", **ENDLESS))
            await settled(app, lambda: app._admission.statistics().in_progress == 3)
            turnstile.close()
            await turnstile.wait_held()
            with pytest.raises(Overloaded) as caught:
                await client.generate("one too many")
            assert caught.value.reason == "QUEUE_FULL"
            assert caught.value.has_pushback
            assert 0 < caught.value.retry_after < 120
            assert (await client.check_health()).value == "serving"
            turnstile.open()
        await settled(app, lambda: app._admission.statistics().in_progress == 0)
        assert (await client.generate("room again")).text


async def test_reader_too_slow(settled):
    """A caller that never reads is ended at the bound; others go on."""
    settings = loopback_settings(engine={"mailbox_kib": 1})
    model = ScriptedModel(ScriptedRunner(lambda _: b"x" * 4_000))
    async with serving(model, settings) as app:
        async with grpc.aio.insecure_channel(
            app.address, options=[("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        ) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            request = generation_pb2.GenerateRequest(prompt="hi", request_id="slow")
            request.stopping.max_tokens = 3_500
            request.output.n = 16
            request.output.granularity = 1
            request.output.logprobs = 20
            call = stub.Generate(request)
            await call.read()
            async with AsyncClient(app.address) as other:
                result = await other.generate("quick", max_tokens=30)
                assert result.usage.completion_tokens == 30
            await settled(app, lambda: app.statistics().running_sequences == 0, 30)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await call.read() is not grpc.aio.EOF:
                    pass
            info = _details(caught.value)[error_details_pb2.ErrorInfo]
            assert info.reason == "READER_TOO_SLOW"


async def test_not_ready(client_of):
    """While the model loads, work is refused and liveness holds."""
    loading = threading.Event()

    def load(*_):
        assert loading.wait(20)
        return ScriptedModel()

    app = App(loopback_settings(), load=load)
    running = asyncio.create_task(app.run())
    try:
        await app.lifecycle.wait_for(ServerState.LOADING)
        async with client_of(app) as client:
            assert (await client.check_health()).value == "not_serving"
            assert (await client.check_health("liveness")).value == "serving"
            with pytest.raises(NotReady) as caught:
                await client.generate("hi")
            assert caught.value.reason == "MODEL_LOADING"
            assert caught.value.retry_after > 0
            loading.set()
            await app.lifecycle.wait_for(ServerState.SERVING)
            assert (await client.generate("hi")).text
    finally:
        loading.set()
        app.leave(in_hurry=True)
        assert await running == 0


async def test_draining_refuses_new_work_and_finishes_the_old(client_of, turnstile, settled):
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        async with client.generate_many() as many, client.stream("old") as stream:
            assert isinstance(await anext(aiter(stream)), Started)
            turnstile.close()
            await turnstile.wait_held()
            first = await many.submit("before")
            await settled(app, lambda: len(app._driver._mailboxes) == 2)
            app.leave()
            async for _ in app.lifecycle.states():
                if app.lifecycle.is_leaving:
                    break
            second = await many.submit("after")
            many.close_sending()
            name, error = await anext(aiter(many))
            assert name == second
            assert isinstance(error, Draining)
            assert error.reason == "SERVER_DRAINING"
            turnstile.open()
            results = dict([item async for item in many.results()])
            assert results[first].text == echo(b"before").decode()
            assert (await stream.result()).text == echo(b"old").decode()


async def test_queue_timeout(client_of, turnstile, settled):
    clock = Clock()
    settings = loopback_settings(engine={"max_num_seqs": 1})
    async with (
        serving_by(clock, stepped(turnstile), settings) as app,
        client_of(app) as client,
        turnstile,
    ):
        async with client.stream("first", **ENDLESS) as stream:
            await anext(aiter(stream))
            turnstile.close()
            await turnstile.wait_held()
            waiting = asyncio.create_task(client.generate("second", time_budget=20))
            await settled(app, lambda: len(app._driver._mailboxes) == 2)
            clock.advance(21)
            turnstile.open()
            with pytest.raises(QueueTimeout):
                await waiting


async def test_deadline_exceeded(client_of, turnstile):
    """The caller hears of it in time, although the engine stands still."""
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        turnstile.close()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.generate("hi", timeout=0.1)
        assert type(caught.value) is DeadlineExceeded
        turnstile.open()


async def test_generation_failed_alone(client_of, turnstile, settled, logged):
    """Not even another sequence of the same batch is disturbed."""
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        async with client.stream("good") as stream:
            await anext(aiter(stream))
            turnstile.close()
            await turnstile.wait_held()
            causes = {"RAISE": "fault", "NAN": "non_finite"}
            failing = [asyncio.create_task(client.generate(prompt)) for prompt in causes]
            await settled(app, lambda: len(app._driver._mailboxes) == 3)
            turnstile.open()
            for call, cause in zip(failing, causes.values(), strict=True):
                with pytest.raises(GenerationFailed) as caught:
                    await call
                assert caught.value.metadata["cause"] == cause
            assert (await stream.result()).text == echo(b"good").decode()


async def test_engine_failed_ends_all_calls_and_the_process(client_of, turnstile, logged):
    app = App(loopback_settings(), load=lambda *_: stepped(turnstile))
    running = asyncio.create_task(app.run())
    await app.lifecycle.wait_for(ServerState.SERVING)
    async with client_of(app) as client:
        async with client.stream("one", **ENDLESS) as one, client.stream("two", **ENDLESS) as two:
            await anext(aiter(one))
            await anext(aiter(two))
            turnstile.error = OSError("the machine is gone")
            for stream in (one, two):
                with pytest.raises(EngineFailed) as caught:
                    async for _ in stream:
                        pass
                assert "machine" not in str(caught.value)
    assert await running == 1


async def test_internal_error_tells_nothing(client_of, monkeypatch, logged):
    """Not to the caller; all of it to our log."""

    def bug(*_args, **_kwargs):
        raise RuntimeError("secret path /etc/passwd")

    async with serving() as app, client_of(app) as client:
        monkeypatch.setattr("hocket.server.text.sentences.SentenceSplitter.push", bug)
        with pytest.raises(InternalError) as caught:
            await client.split_sentences("Hi.")
        assert caught.value.reason == "INTERNAL"
        assert "secret" not in str(caught.value)
        assert caught.value.metadata["request_id"]
    (line,) = [line for line in logged if line["event"] == "bug"]
    assert line["request_id"] == caught.value.metadata["request_id"]
    assert "secret" in str(line["exc_info"])


async def test_unknown_methods_and_malformed_messages():
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        call = channel.unary_unary("/hocket.v1.TextService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        for raw in (b"\xff\xff\xff", b"\x12\x02\xff\xfe", b"\x12\x7f"):
            stream = channel.unary_stream("/hocket.v1.GenerationService/Generate")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream(raw).read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert _details(caught.value)[error_details_pb2.ErrorInfo].reason == "FIELD_INVALID"


def _details(error: grpc.aio.AioRpcError) -> dict:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            found = {}
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
                for detail in status.details:
                    message = kind()
                    if detail.Unpack(message):
                        found[kind] = message
            return found
    return {}


def test_every_error_class_is_seen_here():
    """The table has no row that no test of this file waits for at the client."""
    from hocket.server import errors  # noqa: PLC0415

    source = Path(__file__).read_text()
    served = {cls.__name__ for cls in errors.HocketError.__subclasses__()}
    seen = set(re.findall(r"(?:raises\(|isinstance\(\S+, )(\w+)\)", source))
    assert served - seen == {"ReaderTooSlow"}  # seen by its reason, through a bare stub
    assert "READER_TOO_SLOW" in source
