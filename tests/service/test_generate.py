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
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving

TEXT = "Wörld. 日本。 Ok?"


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


async def test_sentences_arrive_while_the_answer_is_still_written(client_of):
    """The first sentence is at the client before the engine may write the second."""
    import threading  # noqa: PLC0415

    steps = threading.Semaphore(10_000)
    runner = ScriptedRunner(gate=lambda: steps.acquire(timeout=5))
    async with serving(ScriptedModel(runner)) as app, client_of(app) as client:
        while steps.acquire(blocking=False):
            pass
        first = len("You said: x. T") + 2  # a step of the warm-up may take one
        async with client.stream("x") as stream:
            steps.release(first)
            sentence = None
            async for event in stream:
                if isinstance(event, Sentence):
                    sentence = event
                    break
            assert sentence is not None
            assert sentence.text == "You said: x. "
            steps.release(10_000)
            rest = [event async for event in stream]
        assert isinstance(rest[-1], Finished)


async def test_many_streams_share_the_batch(client_of):
    model = ScriptedModel()
    async with serving(model) as app, client_of(app) as client:
        results = await asyncio.gather(*(client.generate(f"number {index}") for index in range(32)))
    assert [result.text.encode() for result in results] == [
        echo(f"number {index}".encode()) for index in range(32)
    ]
    assert max(map(len, model.runner.batches)) > 16


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


async def test_one_of_many_is_cancelled_alone(client_of):
    async with serving() as app, client_of(app) as client:
        async with client.generate_many() as many:
            doomed = await many.submit("x" * 40, ignore_eos=True, max_tokens=4_000)
            kept = await many.submit("kept")
            many.cancel(doomed)
            bad = await many.submit("hi", temperature=99)
            many.close_sending()
            results = dict([item async for item in many.results()])
    assert results[kept].text == echo(b"kept").decode()
    assert results[doomed].completions[0].finish_reason is FinishReason.CANCELLED
    assert results[bad].reason == "FIELD_INVALID"


async def test_a_time_budget_gives_what_there_is(client_of):
    async with serving() as app, client_of(app) as client:
        result = await client.generate("x", ignore_eos=True, max_tokens=4_000, time_budget=0.2)
    assert result.completions[0].finish_reason in {
        FinishReason.TIME_BUDGET,
        FinishReason.MAX_TOKENS,
    }


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


async def test_control_aborts_and_drains(client_of, settled):
    settings = loopback_settings(listener={"control": True})
    async with serving(settings=settings) as app, client_of(app) as client:
        async with client.stream(
            "x", request_id="mine", ignore_eos=True, max_tokens=4_000
        ) as stream:
            await anext(aiter(stream))
            assert await client.abort("mine")
            events = [event async for event in stream]
        assert events[-1].completions[0].finish_reason in {
            FinishReason.ABORTED,
            FinishReason.MAX_TOKENS,
        }
        assert not await client.abort("other")
        status = await client.drain()
        assert status.requests_in_progress == 0
        await settled(lambda: not app.lifecycle.is_serving)
