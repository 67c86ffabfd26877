"""What a caller sees of good requests, over gRPC."""

import asyncio

import pytest

from hocket.client import (
    Delta,
    Finished,
    FinishReason,
    Granularity,
    HealthStatus,
    Sentence,
    Started,
)
from hocket.server.engine.commands import Abort
from hocket.server.lifecycle import ServerState
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import loopback_settings, serving
from service.clock import Clock, serving_by
from service.turnstile import stepped

ENDLESS = {"ignore_eos": True, "max_tokens": 4_000}
TEXT = "Wörld. 日本。 Ok?"


def told_to_end(app) -> list[tuple[str, str]]:
    """Requests that the engine will end in its next step, and why."""
    return [
        (command.request_id, command.reason.value)
        for command in app._driver._inbox
        if isinstance(command, Abort)
    ]


@pytest.mark.parametrize("granularity", Granularity)
async def test_texts_of_a_stream_join_to_the_answer(client_of, granularity):
    async with serving() as app, client_of(app) as client:
        async with client.stream(TEXT, granularity=granularity) as stream:
            events = [event async for event in stream]
    assert isinstance(events[0], Started)
    assert events[0].prompt_tokens == len(TEXT.encode())
    assert isinstance(events[-1], Finished)
    texts = [event for event in events if isinstance(event, Delta | Sentence)]
    assert "".join(event.text for event in texts).encode() == echo(TEXT.encode())
    sentences = [event for event in texts if isinstance(event, Sentence)]
    assert [s.index for s in sentences] == list(range(len(sentences)))
    ends = [0, *(s.end_byte for s in sentences)]
    assert [s.start_byte for s in sentences] == ends[: len(sentences)]
    (completion,) = events[-1].completions
    assert completion.finish_reason is FinishReason.END_OF_TEXT
    assert completion.text_bytes == len(echo(TEXT.encode()))
    if granularity is Granularity.SENTENCE:
        assert len(sentences) >= 5


async def test_sentences_arrive_while_the_answer_is_still_written(client_of, turnstile):
    """The first sentence is at the client before the engine may go on with the second."""
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        turnstile.close()
        async with client.stream("hello") as stream:
            await turnstile.wait_held()
            await turnstile.step(len("You said: hello. T"))
            assert isinstance(await anext(aiter(stream)), Started)
            assert (await anext(aiter(stream))).text == "You said: hello. "
            turnstile.open()
            *texts, last = [event async for event in stream]
            assert "".join(sentence.text for sentence in texts) == "That is all. Good bye!"
            assert isinstance(last, Finished)


async def test_many_streams_share_the_batch(client_of, turnstile, settled):
    model = stepped(turnstile)
    async with serving(model) as app, client_of(app) as client, turnstile:
        turnstile.close()
        calls = [asyncio.create_task(client.generate(f"number {index}")) for index in range(32)]
        await settled(app, lambda: len(app._driver._mailboxes) == 32)
        turnstile.open()
        results = await asyncio.gather(*calls)
    assert [result.text.encode() for result in results] == [
        echo(f"number {index}".encode()) for index in range(32)
    ]
    assert max(map(len, model.runner.batches)) == 32


async def test_chat_token_ids_choices_and_logprobs(client_of):
    async with serving() as app, client_of(app) as client:
        chat = await client.generate(messages=[{"role": "user", "content": "hi <|end|>"}])
        assert chat.text == echo(b"hi <|end|>").decode()
        assert chat.usage.prompt_tokens == len("hi <|end|>") + 2
        tokens = await client.generate(token_ids=list(b"hi"))
        assert tokens.text == echo(b"hi").decode()
        many = await client.generate("hi", n=3, logprobs=2, prompt_logprobs=1)
        assert [answer.text for answer in many.answers] == [echo(b"hi").decode()] * 3
        assert len(many.prompt_logprobs) == 1
        assert all(len(item.top) == 2 for item in many.answers[0].logprobs)


async def test_text_model_and_health_services(client_of):
    async with serving() as app, client_of(app) as client:
        tokens = await client.tokenize("né")
        assert [(t.id, t.start_byte, t.end_byte) for t in tokens] == [
            (110, 0, 1), (195, 1, 2), (169, 2, 3)
        ]  # fmt: skip
        assert await client.detokenize([t.id for t in tokens]) == "né"
        assert await client.count_tokens(["a", "bcd", ""]) == (1, 3, 0)
        pieces = await client.split_sentences("Mr. X left. 日本。中国。")
        assert [piece.text for piece in pieces] == ["Mr. X left. ", "日本。", "中国。"]
        (model,) = await client.list_models()
        assert model == await client.get_model("scripted")
        assert model.limits.max_context_tokens == 4096
        assert await client.check_health() is HealthStatus.SERVING


async def test_many_requests_over_one_stream(client_of):
    async with serving() as app, client_of(app) as client:
        async with client.generate_many() as many:
            names = [await many.submit(f"item {index}") for index in range(20)]
            many.close_sending()
            results = dict([item async for item in many.results()])
    assert set(results) == set(names)
    for index, name in enumerate(names):
        assert results[name].text == echo(f"item {index}".encode()).decode()


async def test_one_of_many_is_cancelled_alone(client_of, turnstile, settled):
    async with serving(stepped(turnstile)) as app, client_of(app) as client, turnstile:
        async with client.generate_many() as many:
            doomed = await many.submit("x" * 40, **ENDLESS)
            name, started = await anext(aiter(many))
            assert (name, type(started)) == (doomed, Started)
            turnstile.close()
            await turnstile.wait_held()
            kept = await many.submit("kept")
            many.cancel(doomed)
            await settled(app, lambda: told_to_end(app) == [(doomed, "cancelled")])
            bad = await many.submit("hi", temperature=99)
            many.close_sending()
            turnstile.open()
            results = dict([item async for item in many.results()])
    assert results[kept].text == echo(b"kept").decode()
    assert results[doomed].completions[0].finish_reason is FinishReason.CANCELLED
    assert results[bad].reason == "FIELD_INVALID"


async def test_a_time_budget_gives_what_there_is(client_of, turnstile):
    clock = Clock()
    async with serving_by(clock, stepped(turnstile)) as app, client_of(app) as client, turnstile:
        turnstile.close()
        async with client.stream("x", time_budget=20, **ENDLESS) as stream:
            await turnstile.wait_held()
            await turnstile.step(8)
            clock.advance(21)
            turnstile.open()
            result = await stream.result()
    (completion,) = result.completions
    assert completion.finish_reason is FinishReason.TIME_BUDGET
    assert result.text == "You said:"  # with the step that was in progress


async def test_reflection_and_generated_stubs(client_of):
    import grpc  # noqa: PLC0415
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: PLC0415
        ProtoReflectionDescriptorDatabase,
    )

    async with serving() as app:

        def services() -> set[str]:
            with grpc.insecure_channel(app.address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                assert database.FindFileContainingSymbol("hocket.v1.GenerationService")
                return set(database.get_services())

        found = await asyncio.to_thread(services)
    assert {
        "hocket.v1.GenerationService",
        "hocket.v1.TextService",
        "hocket.v1.ModelService",
        "hocket.v1.ControlService",
        "grpc.health.v1.Health",
    } <= found


async def test_control_aborts_and_drains(client_of, turnstile):
    settings = loopback_settings(listener={"control": True})
    async with serving(stepped(turnstile), settings) as app, client_of(app) as client, turnstile:
        async with client.stream("x", request_id="mine", **ENDLESS) as stream:
            await anext(aiter(stream))
            turnstile.close()
            await turnstile.wait_held()
            assert await client.abort("mine")
            assert told_to_end(app) == [("mine", "aborted")]
            turnstile.open()
            *_, last = [event async for event in stream]
        assert last.completions[0].finish_reason is FinishReason.ABORTED
        assert not await client.abort("mine")
        assert not await client.abort("other")
        status = await client.drain()
        assert status.requests_in_progress == 0
        await app.lifecycle.wait_for(ServerState.DRAINING, ServerState.STOPPED)
