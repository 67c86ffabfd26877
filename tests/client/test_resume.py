"""A stream that breaks is gone on with, by itself; nothing comes twice, and nothing is lost."""

import asyncio

import grpc
import pytest

from client.fake_server import delta, finished, rich_status, sentence, started
from hocket.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    Delta,
    Draining,
    Event,
    Finished,
    GenerationFailed,
    ReaderTooSlow,
    Sentence,
    Started,
    StreamError,
    TransportError,
)
from hocket.v1 import generation_pb2

LOST = rich_status(grpc.StatusCode.UNAVAILABLE, "", domain="elsewhere", message="socket closed")
LEAVING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.3)
FULL = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_delay_seconds=0.1)
IN_USE = rich_status(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_IN_USE")
REFUSED = rich_status(
    grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", violations=(("resume.token", "no"),)
)

ONE = sentence("Onë. ", 0)
TWO = sentence("Two. ", 1, start_byte=6)
THREE = sentence("Three.", 2, start_byte=11)


def begun(token: bytes = b"first") -> generation_pb2.GenerateResponse:
    return started(resume_token=token)


@pytest.fixture(params=["asyncio", "blocking"])
def read(request, client, sync_client):
    """Reads a stream to its end with either client; returns its events and its result."""

    async def read_async(**options):
        async with client.stream("Hello", **options) as stream:
            return [event async for event in stream], await stream.result()

    async def read_blocking(**options):
        def work():
            with sync_client.stream("Hello", **options) as stream:
                return list(stream), stream.result()

        return await asyncio.to_thread(work)

    return read_async if request.param == "asyncio" else read_blocking


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta | Sentence)]


async def test_a_lost_stream_goes_on(server, read, sleeps):
    """Its reader sees one stream: one `Started`, each sentence once, one `Finished`."""
    server.refuse(LOST, after=[begun(), ONE, TWO])
    server.answer(begun(b"second"), THREE, finished())
    events, result = await read()
    assert [Started, Sentence, Sentence, Sentence, Finished] == [type(event) for event in events]
    assert texts(events) == ["Onë. ", "Two. ", "Three."]
    assert [event.index for event in events if isinstance(event, Sentence)] == [0, 1, 2]
    assert result.text == "Onë. Two. Three."
    assert result.answers[0].token_ids == (0, 1, 2)
    first, second = server.requests
    assert not first.HasField("resume")
    assert second.resume == generation_pb2.Resume(
        token=b"first", token_ids=[0, 1], received_bytes=11, received_sentences=2
    )
    assert first.request_id != second.request_id == result.request_id
    for request in (first, second):
        request.ClearField("request_id")
    second.ClearField("resume")
    assert first == second
    assert sleeps == [0.2]


async def test_deltas_are_counted_by_their_bytes(server, read):
    """And not as sentences."""
    first, second = delta("Hé"), delta("llo")
    first.delta.token_ids.extend([7, 8])
    second.delta.start_byte = 3
    server.refuse(LOST, after=[begun(), first])
    server.answer(begun(), second, finished())
    events, _ = await read(granularity="token")
    assert texts(events) == ["Hé", "llo"]
    assert server.requests[1].resume == generation_pb2.Resume(
        token=b"first", token_ids=[7, 8], received_bytes=3
    )


async def test_it_may_be_lost_again_and_again(server, read, sleeps):
    """Attempts are counted from where it got on last, and the newest token is shown."""
    for at, piece in enumerate((ONE, TWO, THREE)):
        server.refuse(LOST, after=[begun(b"stale")])
        server.refuse(LOST, after=[begun(b"%d" % at), piece])
    server.answer(begun(), finished())
    events, result = await read()
    assert result.text == "Onë. Two. Three."
    assert isinstance(events[-1], Finished)
    assert server.requests[-1].resume.token == b"2"
    assert sleeps == [0.2, 0.2, 0.4, 0.2, 0.4, 0.2]


async def test_attempts_that_bring_nothing_are_bounded(server, read, sleeps):
    """As many as the policy allows; then the loss is what is told."""
    server.refuse(LOST, after=[begun(), ONE])
    for _ in range(9):
        server.refuse(LOST, after=[begun()])
    with pytest.raises(TransportError, match="socket closed"):
        await read()
    assert len(server.requests) == 4
    assert sleeps == [0.2, 0.4, 0.8]


async def test_a_server_that_leaves_or_is_full_says_when(server, read, sleeps):
    """Its delay is kept to, before and while the stream goes on."""
    server.refuse(LEAVING, after=[begun(), ONE])
    server.refuse(FULL)
    server.answer(begun(), TWO, finished())
    _, result = await read()
    assert result.text == "Onë. Two. "
    assert sleeps == [0.3, 0.4]


async def test_a_given_id_may_still_be_in_use_for_a_moment(server, read):
    """Until the server notices that its caller is gone."""
    server.refuse(LOST, after=[begun(), ONE])
    server.refuse(IN_USE)
    server.answer(begun(), finished())
    _, result = await read(request_id="mine")
    assert result.text == "Onë. "
    assert [request.request_id for request in server.requests] == ["mine"] * 3


async def test_a_refusal_to_go_on_is_told_as_the_loss(server, read):
    """For it is the loss that nobody could mend."""
    server.refuse(LOST, after=[begun(), ONE])
    server.refuse(REFUSED)
    with pytest.raises(TransportError, match="socket closed") as caught:
        await read()
    assert caught.value.__cause__.violations[0].field == "resume.token"


async def test_a_server_that_begins_anew_is_not_believed(server, read):
    """One of an earlier version does not know the field, and its text would come twice."""
    server.refuse(LOST, after=[begun(), ONE])
    server.answer(started(), ONE, finished())
    with pytest.raises(StreamError, match="began anew"):
        await read()


@pytest.mark.parametrize("wrong", [ONE, THREE])
async def test_text_goes_on_where_it_broke(server, read, wrong):
    """Neither earlier nor later."""
    server.refuse(LOST, after=[begun(), ONE])
    server.answer(begun(), wrong, finished())
    with pytest.raises(StreamError, match="did not go on"):
        await read()


async def test_a_stream_that_is_lost_behind_its_end_is_whole(server, read, sleeps):
    """Only its status was lost."""
    server.refuse(LOST, after=[begun(), ONE, finished()])
    events, result = await read()
    assert [Started, Sentence, Finished] == [type(event) for event in events]
    assert result.text == "Onë. "
    assert (len(server.requests), sleeps) == (1, [])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (rich_status(grpc.StatusCode.INTERNAL, "GENERATION_FAILED"), GenerationFailed),
        (rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "READER_TOO_SLOW"), ReaderTooSlow),
    ],
)
async def test_what_is_the_streams_own_fault_stays(server, read, status, error):
    server.refuse(status, after=[begun(), ONE])
    with pytest.raises(error):
        await read()
    assert len(server.requests) == 1


@pytest.mark.parametrize("options", [{"resume": False}, {"n": 2}])
async def test_it_stays_lost_if_that_is_wanted_or_there_is_no_token(server, read, options):
    server.refuse(LEAVING, after=[begun(b"" if "n" in options else b"first"), ONE])
    with pytest.raises(Draining):
        await read(**options)
    assert len(server.requests) == 1


async def test_a_client_without_retries_does_not_go_on(server):
    server.refuse(LOST, after=[begun(), ONE])
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        with pytest.raises(TransportError):
            await client.generate("Hello", granularity="sentence")
    assert len(server.requests) == 1


async def test_the_time_that_is_left_is_what_goes_on(server):
    """Deadline and budget hold for the whole, whatever was lost on the way."""
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += 5

    server.refuse(LOST, after=[begun(), ONE])
    server.refuse(LOST, after=[begun()])
    server.answer(begun(), finished())
    async with AsyncClient(server.address, clock=lambda: now, sleep=sleep) as client:
        await client.generate("Hello", granularity="sentence", timeout=60, time_budget=8)
    assert [request.time_budget.seconds for request in server.requests] == [8, 3, 0]
    assert server.requests[2].time_budget.nanos == 1_000_000
    assert [round(left) for left in server.seconds_left] == [60, 55, 50]


async def test_a_blocking_client_is_told_the_same_way(server):
    """`generate` has the switch as well."""
    server.refuse(LEAVING, after=[begun(), ONE])

    def work():
        with Client(server.address) as client:
            client.generate("Hello", granularity="sentence", resume=False)

    with pytest.raises(Draining):
        await asyncio.to_thread(work)
