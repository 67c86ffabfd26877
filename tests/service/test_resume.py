"""Streams that are lost and gone on with, over gRPC, on one server and from one to another."""

import grpc
import pytest

from hocket.client import (
    AsyncClient,
    Delta,
    Finished,
    Granularity,
    InvalidRequest,
    RetryPolicy,
    Sentence,
    Started,
    TransportError,
)
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, options_pb2
from service.cutting_proxy import CuttingProxy
from service.raw_calls import asked, send, stub_of
from service.turnstile import stepped

TEXT = "Wörld. 日本。 Ok?"
ANSWER = echo(TEXT.encode())
SOON = RetryPolicy(initial_backoff_seconds=0.01, max_attempts=8)

IN_PIECES = [
    options_pb2.GRANULARITY_TOKEN,
    options_pb2.GRANULARITY_SENTENCE,
    options_pb2.GRANULARITY_PARAGRAPH,
]


def settings_with(tmp_path, **sections):
    """Return settings of a server that shares its key with the others of a test."""
    path = tmp_path / "resume.key"
    path.write_text("5e" * 32)
    return loopback_settings(resume={"key_file": str(path)}, **sections)


def had(request, events) -> generation_pb2.GenerateRequest:
    """Return a request that goes on behind these events of a stream."""
    pieces = [getattr(event, event.WhichOneof("event")) for event in events[1:]]
    again = generation_pb2.GenerateRequest()
    again.CopyFrom(request)
    again.resume.CopyFrom(
        generation_pb2.Resume(
            token=events[0].started.resume_token,
            token_ids=[token for piece in pieces for token in piece.token_ids],
            received_bytes=sum(len(piece.text.encode()) for piece in pieces),
            received_sentences=sum(event.HasField("sentence") for event in events),
        )
    )
    return again


def seen(events) -> tuple[str, list[int], list, list[int]]:
    """Return what a caller learns but for times, and how deltas were merged."""
    pieces = [getattr(event, event.WhichOneof("event")) for event in events]
    pieces = [piece for piece in pieces if hasattr(piece, "text")]
    finished = events[-1].finished
    return (
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.token_ids],
        [event.sentence for event in events if event.HasField("sentence")],
        [*finished.completions, finished.usage.prompt_tokens, finished.usage.completion_tokens],
    )


@pytest.mark.parametrize("granularity", IN_PIECES)
async def test_each_state_of_a_stream_is_gone_on_with(granularity):
    """Wherever it breaks, what was received and what comes are the stream."""
    request = asked(prompt=TEXT, output={"granularity": granularity})
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = stub_of(channel)
        whole = [event async for event in stub.Generate(request)]
        assert seen(whole)[0].encode() == ANSWER
        for cut in range(1, len(whole)):
            rest = [event async for event in stub.Generate(had(request, whole[:cut]))]
            assert rest[0].started.prompt_tokens == whole[0].started.prompt_tokens
            assert seen(whole[:cut] + rest[1:]) == seen(whole)
            again = had(request, [rest[0], *whole[1:cut]])
            again = [event async for event in stub.Generate(again)]
            assert seen(again) == seen(rest)


async def test_one_of_many_generations_is_gone_on_with():
    """By the same token; each kind of call may go on with a stream of the other."""
    request = asked("one", TEXT)
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = stub_of(channel)
        whole = [event async for event in stub.Generate(request)]
        call = stub.GenerateMany()
        await send(call, generation_pb2.GenerateManyRequest(generate=had(request, whole[:2])))
        await call.done_writing()
        rest = [event async for event in call]
    assert [event.sentence for event in rest[1:-1]] == [event.sentence for event in whole[2:-1]]
    assert rest[0].started.resume_token


async def test_what_is_wrong_with_a_state_is_told():
    """Field by field, before anything is computed."""
    request = asked(prompt=TEXT, output={"granularity": options_pb2.GRANULARITY_TOKEN})
    model = ScriptedModel()
    async with serving(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = stub_of(channel)
        whole = [event async for event in stub.Generate(request)]
        batches = len(model.runner.batches)

        async def refused(**fields) -> str:
            wrong = had(request, whole[:2])
            wrong.resume.MergeFrom(generation_pb2.Resume(**fields))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Generate(wrong):
                    pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            return caught.value.details()

        assert "resume.token: must be as `Started` gave it" in await refused(token=b"mine")
        assert "resume.token_ids[" in await refused(token_ids=[260])
        assert "resume.token_ids: has" in await refused(token_ids=[65] * 600)
        assert "resume.received_bytes: is no length" in await refused(received_bytes=600)
        assert "resume.received_sentences: must be 0" in await refused(received_sentences=1)
        request.prompt = "another"
        assert "resume.token: belongs to another request" in await refused()
        assert len(model.runner.batches) == batches


@pytest.mark.parametrize("granularity", list(Granularity)[:3])
async def test_a_connection_that_is_cut_is_not_noticed(tmp_path, turnstile, granularity):
    """The stream goes on at another server, and its reader sees one stream."""
    settings, second = settings_with(tmp_path), ScriptedModel()
    async with (
        serving(stepped(turnstile), settings) as first,
        serving(second, settings) as other,
        CuttingProxy(first.address) as proxy,
        AsyncClient(proxy.address, retry=SOON) as client,
        turnstile,
    ):
        turnstile.close()
        async with client.stream(TEXT, granularity=granularity) as stream:
            await turnstile.wait_held()
            await turnstile.step(40)
            events = [await anext(stream)]
            if granularity is not Granularity.PARAGRAPH:
                events.append(await anext(stream))
            proxy.cut(other.address)
            events += [event async for event in stream]
            result = await stream.result()
        turnstile.open()
    assert result.text.encode() == ANSWER
    assert [type(event) for event in events].count(Started) == 1
    assert isinstance(events[-1], Finished)
    sentences = [event.index for event in events if isinstance(event, Sentence)]
    assert sentences == list(range(len(sentences)))
    pieces = [event for event in events if isinstance(event, Delta | Sentence)]
    assert "".join(piece.text for piece in pieces) == result.text
    assert result.answers[0].token_ids == (*ANSWER, 256)
    assert second.runner.batches


async def test_a_server_that_must_leave_hands_its_streams_over(tmp_path, turnstile):
    """Those that do not finish in its grace go on elsewhere."""
    settings = settings_with(tmp_path, drain={"grace_seconds": 0.0})
    async with (
        serving(settings=settings) as other,
        serving(stepped(turnstile), settings) as first,
        CuttingProxy(first.address) as proxy,
        AsyncClient(proxy.address, retry=SOON) as client,
        turnstile,
    ):
        turnstile.close()
        async with client.stream(TEXT, granularity="token") as stream:
            await turnstile.wait_held()
            await turnstile.step(20)
            events = [await anext(stream), await anext(stream)]
            proxy.target = other.address
            first.leave(in_hurry=True)
            turnstile.open()
            events += [event async for event in stream]
            result = await stream.result()
    assert result.text.encode() == ANSWER
    assert "".join(event.text for event in events if isinstance(event, Delta)) == result.text


async def test_servers_with_keys_of_their_own_do_not_go_on(turnstile):
    """What is told is the loss; the text so far stays."""
    async with (
        serving(stepped(turnstile)) as first,
        serving() as other,
        CuttingProxy(first.address) as proxy,
        AsyncClient(proxy.address, retry=SOON) as client,
        turnstile,
    ):
        turnstile.close()
        async with client.stream(TEXT, granularity="token") as stream:
            await turnstile.wait_held()
            await turnstile.step(20)
            await anext(stream)
            text = (await anext(stream)).text
            proxy.cut(other.address)
            with pytest.raises(TransportError) as caught:
                async for event in stream:
                    text += event.text
            assert stream.texts == (text,)
        turnstile.open()
    assert isinstance(caught.value.__cause__, InvalidRequest)
    assert ANSWER.decode().startswith(text)
