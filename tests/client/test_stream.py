"""One generation over real gRPC, as it is written."""

import asyncio

import grpc
import pytest

from client.fake_server import delta, finished, rich_status, sentence, started, whole_answer
from hocket.client import (
    AsyncClient,
    ClientError,
    Delta,
    Draining,
    Finished,
    FinishReason,
    GenerationFailed,
    InvalidRequest,
    ModelNotFound,
    PieceKind,
    RetryPolicy,
    Sentence,
    Started,
    StatusError,
    StreamError,
    TransportError,
    Usage,
)

DRAINING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)


async def test_events_arrive_typed_and_in_order(server, client) -> None:
    """A stream is Started, its pieces, Finished."""
    async with client.stream("Hello", model="fake") as stream:
        events = [event async for event in stream]
    assert [Started, Sentence, Sentence, Finished] == [type(event) for event in events]
    assert Started(prompt_tokens=3, cached_tokens=0, seed=7, model="fake") == events[0]
    assert (
        events[1].text,
        events[1].index,
        events[1].kind,
        events[1].token_ids,
    ) == ("One. ", 0, PieceKind.SENTENCE, (0,))
    assert events[3].completions[0].finish_reason == FinishReason.END_OF_TEXT
    assert (
        events[3].timings.total,
        events[3].timings.first_sentence,
        events[3].timings.first_token,
    ) == (1.5, 0.25, None)


async def test_text_joins_to_the_result(server, client) -> None:
    """The pieces of `text()` are the text of `result()`, also after they were iterated over."""
    async with client.stream("Hello") as stream:
        pieces = [text async for text in stream.text()]
        result = await stream.result()
    assert pieces == ["One. ", "Two."]
    assert "One. Two." == result.text == stream.texts[0]
    assert Usage(prompt_tokens=3, cached_tokens=0, completion_tokens=5) == result.usage
    assert stream.request_id == result.request_id == server.requests[0].request_id
    assert result.answers[0].token_ids == (0, 1)


async def test_choices_are_kept_apart(server, client) -> None:
    """With `n` above 1 each answer has its own text, also one that is empty."""
    server.answer(
        started(), delta("b", choice_index=1), delta("a"), delta("B", choice_index=1),
        finished(choices=3),
    )  # fmt: skip
    result = await client.generate("Hello", n=3)
    assert result.texts == ("a", "bB", "")
    assert server.requests[0].output.n == 3


async def test_leaving_by_break_cancels_the_handler(server, client) -> None:
    """The server's handler is cancelled as soon as the block is left."""
    server.answer(started(), delta("x"), hang=True)
    async with client.stream("Hello") as stream:
        async for event in stream:
            if isinstance(event, Delta):
                break
    await server.left.wait()
    assert stream.texts == ("x",)


async def test_leaving_by_an_exception_cancels_the_handler(server, client) -> None:
    """The exception stays itself."""
    server.answer(started(), hang=True)

    async def fail():
        async with client.stream("Hello") as stream:
            async for _ in stream:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    await server.left.wait()


async def test_a_timeout_around_the_block_cancels_the_handler(server, client) -> None:
    """`asyncio.timeout` ends in TimeoutError, not in one of our errors."""
    server.answer(started(), hang=True)
    async with client.stream("Hello") as stream:
        assert isinstance(await anext(stream), Started)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
        with pytest.raises(StreamError, match="closed"):
            await anext(stream)
    await server.left.wait()


async def test_cancelling_the_task_cancels_the_handler(server, client) -> None:
    """CancelledError stays itself."""
    server.answer(started(), hang=True)

    async def read():
        async with client.stream("Hello") as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    await server.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.left.wait()


async def test_leaving_without_reading_cancels_the_handler(server, client) -> None:
    """The call is made on entering; nothing is left of it after leaving."""
    server.answer(hang=True)
    async with client.stream("Hello"):
        await server.arrived.wait()
    await server.left.wait()


async def test_closing_ends_a_waiting_reader(server, client) -> None:
    """The reader gets StreamError: it was not cancelled itself."""
    server.answer(started(), hang=True)
    async with client.stream("Hello") as stream:
        await anext(stream)
        begun = asyncio.Event()

        async def read():
            begun.set()
            await anext(stream)

        reader = asyncio.create_task(read())
        await begun.wait()
        stream.close()
        with pytest.raises(StreamError, match="closed"):
            await reader
        with pytest.raises(StreamError, match="closed"):
            await anext(stream)
    await server.left.wait()


async def test_a_stream_without_its_last_event_is_an_error(server, client) -> None:
    """OK alone does not make an answer whole."""
    server.answer(started(), delta("half"))
    async with client.stream("Hello") as stream:
        with pytest.raises(StreamError, match="before the generation did"):
            await stream.result()
    assert stream.texts == ("half",)


async def test_a_failure_within_the_stream_keeps_what_came_before(server, client, sleeps) -> None:
    """Nothing is made again once something has arrived, however the stream fails."""
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)
    server.refuse(status, pushback_ms=0, after=[started(), delta("half")])
    async with client.stream("Hello") as stream:
        with pytest.raises(Draining):
            await stream.result()
        assert stream.texts == ("half",)
        with pytest.raises(Draining):
            await anext(stream)
    assert sleeps == []
    assert len(server.requests) == 1


async def test_a_refused_call_is_made_again(server, client, sleeps) -> None:
    """Before the first event a refusal is waited out, under a new id."""
    server.refuse(DRAINING, pushback_ms=70)
    server.refuse(DRAINING)
    result = await client.generate("Hello")
    assert result.text == "One. Two."
    assert sleeps == [0.07, 0.2]
    ids = [request.request_id for request in server.requests]
    assert len(set(ids)) == 3
    assert result.request_id == ids[-1]


async def test_a_given_id_is_kept_for_every_attempt(server, client) -> None:
    """The caller's name for the request is the caller's."""
    server.refuse(DRAINING)
    result = await client.generate("Hello", request_id="mine")
    assert [request.request_id for request in server.requests] == ["mine", "mine"]
    assert result.request_id == "mine"


async def test_a_negative_pushback_forbids_to_try_again(server, client, sleeps) -> None:
    """The server's word goes before the policy's."""
    server.refuse(DRAINING, pushback_ms=-1)
    with pytest.raises(Draining) as caught:
        await client.generate("Hello")
    assert caught.value.is_retry_forbidden
    assert sleeps == []


async def test_attempts_end(server, client, sleeps) -> None:
    """After `max_attempts` the last error is raised."""
    for _ in range(4):
        server.refuse(DRAINING)
    with pytest.raises(Draining) as caught:
        await client.generate("Hello")
    assert caught.value.retry_after == 0.1
    assert len(server.requests) == 4
    assert sleeps == [0.2, 0.4, 0.8]


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", ModelNotFound),
        (grpc.StatusCode.INTERNAL, "GENERATION_FAILED", GenerationFailed),
        (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG", InvalidRequest),
    ],
)
async def test_what_will_fail_again_is_not_made_again(
    server, client, sleeps, code, reason, expected
) -> None:
    """Only unavailability and overload may pass."""
    server.refuse(rich_status(code, reason, violations=(("prompt", "is too long"),)))
    with pytest.raises(expected) as caught:
        await client.generate("Hello")
    assert (reason, code.name) == (caught.value.reason, caught.value.code)
    assert caught.value.violations[0].description == "is too long"
    assert sleeps == []


async def test_an_absent_server_is_a_transport_error(sleeps) -> None:
    """Nobody listens: tried again, then told."""
    async with AsyncClient("127.0.0.1:1", sleep=sleeps.wait) as client:
        with pytest.raises(TransportError):
            await client.generate("Hello")
    assert len(sleeps) == 3


async def test_the_deadline_holds_over_all_attempts(server, sleeps) -> None:
    """A wait that would pass the deadline is not begun."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        sleeps.append(seconds)
        now += seconds

    for _ in range(9):
        server.refuse(DRAINING, pushback_ms=400)
    policy = RetryPolicy(max_attempts=9)
    async with AsyncClient(server.address, retry=policy, clock=lambda: now, sleep=sleep) as client:
        with pytest.raises(Draining):
            await client.generate("Hello", timeout=1.0)
    assert sleeps == [0.4, 0.4]


async def test_each_attempt_gets_what_time_is_left(server, sleeps) -> None:
    """The server learns of one deadline, however often the call is made."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    server.refuse(DRAINING, pushback_ms=40_000)
    server.refuse(DRAINING, pushback_ms=40_000)
    async with AsyncClient(server.address, clock=lambda: now, sleep=sleep) as client:
        await client.generate("Hello", timeout=100)
    first, second, third = server.seconds_left
    # On the wire a timeout has few digits and is rounded up.
    assert 60 < first <= 102
    assert 20 < second <= 62
    assert 0 < third <= 22


async def test_a_deadline_ends_a_stream(server, client) -> None:
    """The code alone makes the class, as no server has spoken."""
    server.answer(started(), hang=True)
    with pytest.raises(StatusError) as caught:
        await client.generate("Hello", timeout=0.05)
    assert (caught.value.code, caught.value.reason) == ("DEADLINE_EXCEEDED", "")
    await server.left.wait()


async def test_options_reach_the_request(server, client) -> None:
    """Each option lands in its field; what was not given stays unset."""
    await client.generate(
        messages=[{"role": "user", "content": "Hi"}], temperature=0.0, stop="END", seed=5,
        granularity="paragraph", time_budget=1.5, logit_bias={3: -2.0},
    )  # fmt: skip
    request = server.requests[0]
    assert request.chat.messages[0].content == "Hi"
    assert request.sampling.HasField("temperature")
    assert not request.sampling.HasField("top_p")
    assert (
        list(request.stopping.stop), request.sampling.seed, request.output.granularity,
    ) == (["END"], 5, 3)  # fmt: skip
    assert request.time_budget.ToNanoseconds() == 1_500_000_000
    assert dict(request.sampling.logit_bias) == {3: -2.0}


async def test_events_of_a_newer_server_are_passed_over(server, client) -> None:
    """A message whose event this client does not know disturbs nothing."""
    server.answer(started(), type(started()).FromString(b"\x7a\x00"), *whole_answer("x")[1:])
    result = await client.generate("Hello")
    assert result.text == "x"


async def test_the_token_travels_with_each_call(server) -> None:
    """A function is asked for the token anew at each attempt."""
    tokens = iter(["first", "second"])
    async with AsyncClient(server.address, token=lambda: next(tokens)) as client:
        await client.generate("Hello")
        await client.list_models()
    assert [metadata["authorization"] for metadata in server.metadata] == [
        "Bearer first",
        "Bearer second",
    ]
    assert server.metadata[0]["user-agent"].startswith("hocket-python/")


async def test_a_client_must_be_entered() -> None:
    """Before and after its block a client makes no calls."""
    client = AsyncClient("127.0.0.1:1")
    with pytest.raises(ClientError, match="not open"):
        await client.list_models()
    async with client:
        with pytest.raises(ClientError, match="open already"):
            await client.__aenter__()
    with pytest.raises(ClientError, match="not open"):
        async with client.stream("Hello"):
            pass


async def test_a_late_event_is_an_error(server, client) -> None:
    """Nothing follows Finished."""
    server.answer(*whole_answer("x"), sentence("late", 1))
    with pytest.raises(StreamError, match="after its last"):
        await client.generate("Hello")
