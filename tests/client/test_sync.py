"""The blocking client does what the asyncio one does."""

import asyncio
import inspect
import threading

import grpc
import pytest

from client.fake_server import delta, rich_status, started, trailers_of
from hocket.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceeded,
    DocumentStream,
    Draining,
    GenerationStream,
    HealthStatus,
    ManyStream,
    Overloaded,
    StatusError,
    StreamError,
    SyncDocumentStream,
    SyncGenerationStream,
    SyncManyStream,
    TransportError,
    _many_state,
)
from hocket.v1 import generation_pb2

DRAINING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)


@pytest.mark.parametrize(
    ("asynchronous", "blocking"),
    [
        (AsyncClient, Client),
        (GenerationStream, SyncGenerationStream),
        (ManyStream, SyncManyStream),
        (DocumentStream, SyncDocumentStream),
    ],
)
def test_the_surfaces_are_the_same(asynchronous, blocking) -> None:
    """Both twins have the same public methods with the same parameters."""

    def surface(cls):
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(cls)
            if not name.startswith("_") and callable(member)
        }

    assert surface(asynchronous) == surface(blocking)
    assert list(inspect.signature(asynchronous).parameters) == list(
        inspect.signature(blocking).parameters
    )


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("generate", ("Hello",)),
        ("tokenize", ("abc",)),
        ("detokenize", ([97, 98],)),
        ("count_tokens", (["a", "bcd"],)),
        ("split_sentences", ("Ça va. Oui.",)),
        ("list_models", ()),
        ("get_model", ("fake",)),
        ("check_health", ()),
        ("check_health", ("nobody",)),
        ("abort", ("there",)),
        ("drain", ()),
    ],
)
async def test_results_are_the_same(server, client, sync_client, method, arguments) -> None:
    """Each call gives the same value from both clients."""
    keywords = {"request_id": "same"} if method == "generate" else {}
    expected = await getattr(client, method)(*arguments, **keywords)
    actual = await asyncio.to_thread(getattr(sync_client, method), *arguments, **keywords)
    assert expected == actual


async def test_pieces_join_to_the_text(sync_client) -> None:
    """Byte offsets are turned into text without breaking characters."""
    pieces = await asyncio.to_thread(sync_client.split_sentences, "Ça va. Oui.")
    assert [piece.text for piece in pieces] == ["Ça va. ", "Oui."]


async def test_a_stream_is_iterated_and_collected(server, sync_client) -> None:
    """Pieces, texts and result agree."""

    def read():
        with sync_client.stream("Hello") as stream:
            pieces = list(stream.text())
            return pieces, stream.texts, stream.result()

    pieces, texts, result = await asyncio.to_thread(read)
    assert pieces == ["One. ", "Two."]
    assert ("One. Two.",) == texts == result.texts


async def test_leaving_cancels_the_handler(server, sync_client) -> None:
    """As with asyncio, leaving the block ends the work on the server."""
    server.answer(started(), delta("x"), hang=True)

    def read():
        with sync_client.stream("Hello") as stream:
            next(stream)
        with pytest.raises(StreamError, match="closed"):
            next(stream)

    await asyncio.to_thread(read)
    await server.left.wait()


async def test_another_thread_may_close_a_stream(server, sync_client) -> None:
    """The reader gets StreamError."""
    server.answer(started(), hang=True)
    begun = threading.Event()

    def read(stream):
        next(stream)
        begun.set()
        with pytest.raises(StreamError, match="closed"):
            next(stream)

    def both():
        with sync_client.stream("Hello") as stream:
            reader = threading.Thread(target=read, args=(stream,))
            reader.start()
            begun.wait()
            stream.close()
            reader.join()

    await asyncio.to_thread(both)
    await server.left.wait()


async def test_a_refused_call_is_made_again(server, sync_client, sleeps) -> None:
    """The decisions are those of the asyncio client."""
    server.refuse(DRAINING, pushback_ms=70)
    server.refuse(DRAINING)
    assert (await asyncio.to_thread(sync_client.generate, "Hello")).text == "One. Two."
    server.refuse_unary(DRAINING)
    assert len(await asyncio.to_thread(sync_client.list_models)) == 1
    assert sleeps == [0.07, 0.2, 0.2]


async def test_errors_are_the_same(server, sync_client) -> None:
    """Decoded from the same trailers."""
    server.refuse(DRAINING, pushback_ms=-1)
    with pytest.raises(Draining):
        await asyncio.to_thread(sync_client.generate, "Hello")


async def test_an_absent_server_is_a_transport_error(sleeps) -> None:
    """Nobody listens."""

    def ask():
        with Client("127.0.0.1:1", sleep=sleeps.block) as client:
            client.list_models()

    with pytest.raises(TransportError):
        await asyncio.to_thread(ask)


async def test_many_over_one_stream(server, sync_client) -> None:
    """Submitted by one thread while another reads; a failure disturbs no other."""

    def run():
        with sync_client.generate_many() as many:

            def submit():
                for number in range(200):
                    many.submit(str(number), request_id=str(number))
                many.submit("fail", request_id="fail")
                many.close_sending()

            submitter = threading.Thread(target=submit)
            submitter.start()
            results = dict(many.results())
            submitter.join()
            return results

    results = await asyncio.to_thread(run)
    assert isinstance(results.pop("fail"), Overloaded)
    assert {str(number): str(number) for number in range(200)} == {
        request_id: result.text for request_id, result in results.items()
    }


async def test_a_refused_many_stream_is_opened_again(server, sync_client, sleeps) -> None:
    """With all requests that were sent to the refusing server."""
    server.refuse(DRAINING, pushback_ms=30)

    def run():
        with sync_client.generate_many() as many:
            many.submit("x", request_id="1")
            many.close_sending()
            return dict(many.results())

    results = await asyncio.to_thread(run)
    assert results["1"].text == "x"
    assert sleeps == [0.03]


async def test_many_requests_survive_a_refusal_before_the_reading(
    server, sync_client, sleeps
) -> None:
    """One thread may submit everything and read then."""
    server.refuse(DRAINING, pushback_ms=30)

    def run():
        with sync_client.generate_many() as many:
            ids = {many.submit(str(number)) for number in range(300)}
            many.close_sending()
            return ids, {owner for owner, _ in many.results()}

    ids, answered = await asyncio.to_thread(run)
    assert ids == answered
    assert sleeps == [0.03]


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_stream_of_many_that_failed_ends_all_submitters(
    server, sync_client, is_read
) -> None:
    """Each thread that waits for room learns of it, whether or not another one reads."""

    async def behave(requests, context):
        await asyncio.Event().wait()
        yield

    server.behaviours.append(behave)

    def submit(many, failures):
        try:
            while True:
                many.submit("x" * 100_000)
        except ClientError as error:
            failures.append(error)

    def run():
        failures = []
        with sync_client.generate_many(timeout=0.2) as many:
            threads = [
                threading.Thread(target=submit, args=(many, failures), daemon=True)
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            if is_read:
                with pytest.raises(DeadlineExceeded):
                    next(many)
            for thread in threads:
                thread.join()
        return failures

    failures = await asyncio.to_thread(run)
    assert len(failures) == 4
    assert {type(error) for error in failures} <= {DeadlineExceeded, StreamError}


async def test_a_status_survives_the_writes_that_it_crosses(server, sync_client) -> None:
    """What the server said is told, though the client was sending when it came."""

    async def behave(requests, context):
        yield generation_pb2.GenerateManyResponse(request_id="0", started=started().started)
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    def run():
        with sync_client.generate_many() as many:
            for number in range(60):
                many.submit("x" * 50_000, request_id=str(number))
            next(many)
            with pytest.raises(StatusError) as caught:
                next(many)
        return caught.value.code

    for _ in range(10):
        server.behaviours.append(behave)
        assert await asyncio.to_thread(run) == "DATA_LOSS"


async def test_a_stream_that_sent_much_is_not_opened_again(
    server, sync_client, sleeps, monkeypatch
) -> None:
    """What is not kept cannot be sent again."""
    monkeypatch.setattr(_many_state, "MAX_KEPT_BYTES", 2)

    async def behave(requests, context):
        for _ in range(3):
            await anext(requests)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "DRAINING", trailers_of(DRAINING))
        yield

    server.behaviours.append(behave)

    def run():
        with sync_client.generate_many() as many:
            for _ in range(3):
                many.submit("x")
            with pytest.raises(Draining):
                next(many)

    await asyncio.to_thread(run)
    assert sleeps == []


async def test_leaving_many_ends_its_threads(server, sync_client) -> None:
    """GRPC's sending thread ends with the stream."""

    def run():
        before = set(threading.enumerate())
        with sync_client.generate_many() as many:
            many.submit("hang")
            next(many)
            during = set(threading.enumerate()) - before
        for thread in during:
            thread.join(timeout=10)
        return [thread for thread in during if thread.is_alive()]

    assert await asyncio.to_thread(run) == []
    await server.left.wait()


async def test_health_is_watched(server, sync_client) -> None:
    """Each change arrives, read from the bytes of the published stubs."""
    server.health["x"] = [0, 1, 2]

    def watch():
        with sync_client.watch_health("x") as statuses:
            return list(statuses)

    expected = [HealthStatus.UNKNOWN, HealthStatus.SERVING, HealthStatus.NOT_SERVING]
    assert expected == await asyncio.to_thread(watch)


async def test_one_client_serves_many_threads(server, sync_client) -> None:
    """Calls of several threads do not disturb one another."""
    results = await asyncio.gather(
        *(asyncio.to_thread(sync_client.tokenize, "x" * size) for size in range(8))
    )
    assert list(range(8)) == [len(tokens) for tokens in results]


def test_a_client_must_be_entered() -> None:
    """Before its block a client makes no calls."""
    with pytest.raises(ClientError, match="not open"):
        Client("127.0.0.1:1").list_models()
