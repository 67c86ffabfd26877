"""Many generations over one stream, over real gRPC."""

import asyncio

import grpc
import pytest

from client.fake_server import rich_status, started, trailers_of
from hocket.client import (
    DeadlineExceeded,
    Draining,
    Finished,
    FinishReason,
    GenerationResult,
    Overloaded,
    Sentence,
    Started,
    StatusError,
    StreamError,
    _many_state,
)
from hocket.v1 import generation_pb2

DRAINING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)


async def test_every_request_gets_its_own_events(server, client) -> None:
    """Events name their request, and the iteration ends after the last one."""
    async with client.generate_many() as many:
        ids = [await many.submit(prompt) for prompt in ("a", "b", "c")]
        many.close_sending()
        events = [pair async for pair in many]
    for request_id, prompt in zip(ids, "abc", strict=True):
        own = [event for owner, event in events if owner == request_id]
        assert [Started, Sentence, Finished] == [type(event) for event in own]
        assert prompt == own[1].text
    assert frozenset() == many.in_progress


async def test_a_failure_disturbs_no_other(server, client) -> None:
    """A failed request gives its error in place of its result."""
    async with client.generate_many() as many:
        await many.submit("good", request_id="1")
        await many.submit("fail", request_id="2")
        await many.submit(messages=[{"role": "user", "content": "also"}], request_id="3")
        many.close_sending()
        results = dict([pair async for pair in many.results()])
    assert results["1"].text == "good"
    assert results["3"].text == "also"
    assert isinstance(results["2"], Overloaded)
    assert results["2"].retry_after == 0.5


async def test_one_is_cancelled_without_the_others(server, client) -> None:
    """The cancelled one ends with a reason of its own; an unknown id is ignored."""
    async with client.generate_many() as many:
        hanging = await many.submit("hang")
        other = await many.submit("other")
        many.cancel("unknown")
        many.cancel(hanging)
        many.close_sending()
        results = dict([pair async for pair in many.results()])
    assert results[hanging].finish_reason == FinishReason.CANCELLED
    assert isinstance(results[other], GenerationResult)


async def test_requests_may_come_at_any_time(server, client) -> None:
    """A request may follow from the answer to another."""
    async with client.generate_many() as many:
        await many.submit("1")
        seen = []
        async for _, result in many.results():
            seen.append(result.text)
            if len(seen) < 3:
                await many.submit(str(len(seen) + 1))
            else:
                many.close_sending()
    assert seen == ["1", "2", "3"]


async def test_more_than_the_outbox_holds_can_be_submitted(server, client) -> None:
    """`submit` waits for room without anybody reading."""
    async with client.generate_many() as many:
        ids = {await many.submit(str(number)) for number in range(300)}
        many.close_sending()
        assert ids == {owner async for owner, _ in many.results()}


async def test_leaving_cancels_the_handler(server, client) -> None:
    """Nothing is left of the stream after its block."""
    async with client.generate_many() as many:
        await many.submit("hang")
        await anext(many)
    await server.left.wait()
    with pytest.raises(StreamError, match="closed"):
        await many.submit("late")
    with pytest.raises(StreamError, match="closed"):
        await anext(many)


async def test_a_refused_stream_is_opened_again_with_all_requests(server, client, sleeps) -> None:
    """What was sent to the refusing server is sent again."""
    server.refuse(DRAINING, pushback_ms=30)
    async with client.generate_many() as many:
        first = await many.submit("first")
        reader = asyncio.create_task(anext(many))
        owner, event = await reader
        assert (first, Started) == (owner, type(event))
        second = await many.submit("second")
        many.close_sending()
        results = dict([pair async for pair in many.results()])
    assert {first, second} == set(results)
    assert sleeps == [0.03]


async def test_a_failed_stream_raises_everywhere(server, client) -> None:
    """Reader and submitter see the same error."""
    server.refuse(DRAINING, pushback_ms=-1)
    async with client.generate_many() as many:
        with pytest.raises(Draining):
            await anext(many)
        with pytest.raises(Draining):
            await many.submit("late")


async def test_a_stream_that_ends_early_is_an_error(server, client) -> None:
    """OK with requests still in progress is no end."""
    server.answer()
    async with client.generate_many() as many:
        await many.submit("x")
        with pytest.raises(StreamError, match="before 1 of its"):
            await anext(many)


async def test_an_id_is_used_once_at_a_time(server, client) -> None:
    """Two requests of one id could not be told apart."""
    async with client.generate_many() as many:
        await many.submit("hang", request_id="x")
        with pytest.raises(ValueError, match="in use on this stream"):
            await many.submit("again", request_id="x")


async def test_nothing_is_submitted_after_close_sending(server, client) -> None:
    """Half-close means no more requests."""
    async with client.generate_many() as many:
        many.close_sending()
        with pytest.raises(StreamError, match="sending side"):
            await many.submit("late")
        assert [pair async for pair in many] == []


async def test_many_requests_survive_a_refusal_before_the_reading(server, client, sleeps) -> None:
    """Submitting waits for nobody but a reader or a sender; reading opens the stream again."""
    server.refuse(DRAINING, pushback_ms=30)
    async with client.generate_many() as many:
        ids = {await many.submit(str(number)) for number in range(300)}
        many.close_sending()
        assert ids == {owner async for owner, _ in many.results()}
    assert sleeps == [0.03]


async def test_submitting_to_a_stream_that_ended_does_not_wait(server, client) -> None:
    """After the first answer nothing is sent again, so that it is an error."""

    async def behave(requests, context):
        async for action in requests:
            name = action.generate.request_id
            yield generation_pb2.GenerateManyResponse(request_id=name, started=started().started)
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    server.behaviours.append(behave)
    async with client.generate_many() as many:
        await many.submit("first")
        await anext(many)
        with pytest.raises(StreamError, match="tells why"):
            for number in range(300):
                await many.submit(str(number))
        with pytest.raises(StatusError) as caught:
            await anext(many)
    assert caught.value.code == "DATA_LOSS"


async def test_a_deadline_ends_the_waiting_for_room(server, client) -> None:
    """Nobody reads, and the server takes nothing more."""

    async def behave(requests, context):
        await asyncio.Event().wait()
        yield

    server.behaviours.append(behave)
    async with client.generate_many(timeout=0.2) as many:
        with pytest.raises(StreamError, match="tells why"):
            while True:
                await many.submit("x" * 100_000)
        with pytest.raises(DeadlineExceeded):
            await anext(many)


async def test_the_sender_of_a_lost_attempt_ends(server, client) -> None:
    """Each attempt has a task that sends; none waits for what belongs to the next."""
    server.refuse(DRAINING, pushback_ms=0)
    server.refuse(DRAINING, pushback_ms=0)
    before = asyncio.all_tasks()
    async with client.generate_many() as many:
        await many.submit("hang")
        await anext(many)
        assert len({task for task in asyncio.all_tasks() - before if "_consume" in str(task)}) == 1


@pytest.mark.parametrize("size", [1, 50_000])
async def test_a_status_survives_the_writes_that_it_crosses(server, client, size) -> None:
    """What the server said is told, though the client was sending when it came."""

    async def behave(requests, context):
        for _ in range(3):
            yield generation_pb2.GenerateManyResponse(request_id="0", started=started().started)
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    for _ in range(20):
        server.behaviours.append(behave)
        async with client.generate_many() as many:
            for number in range(60):
                await many.submit("x" * size, request_id=str(number))
            events = []
            with pytest.raises(StatusError) as caught:
                async for _, event in many:
                    events.append(event)
        assert (len(events), caught.value.code) == (3, "DATA_LOSS")


@pytest.mark.parametrize("size", [1, 50_000])
async def test_an_early_end_survives_the_writes_that_it_crosses(server, client, size) -> None:
    """The end is no failure of the call, whatever was being sent."""
    for _ in range(20):
        server.answer()
        async with client.generate_many() as many:
            for _ in range(60):
                await many.submit("x" * size)
            with pytest.raises(StreamError, match="before 60 of its"):
                await anext(many)


async def test_a_stream_that_sent_much_is_not_opened_again(
    server, client, sleeps, monkeypatch
) -> None:
    """What is not kept cannot be sent again."""
    monkeypatch.setattr(_many_state, "MAX_KEPT_BYTES", 2)

    async def behave(requests, context):
        for _ in range(3):
            await anext(requests)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "DRAINING", trailers_of(DRAINING))
        yield

    server.behaviours.append(behave)
    async with client.generate_many() as many:
        for _ in range(3):
            await many.submit("x")
        with pytest.raises(Draining):
            await anext(many)
    assert sleeps == []
