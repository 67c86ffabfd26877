"""Leaving ends everything: no call, reader or waiter outlives the block it belongs to."""

import asyncio
import threading
from contextlib import AsyncExitStack, ExitStack

import grpc
import pytest

from client.fake_server import delta, rich_status, started
from hocket.client import AsyncClient, Client, ClientError, HealthStatus, StreamError

DRAINING = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_delay_seconds=0.1)


class Wait:
    """A wait between attempts that lasts until a test ends it."""

    def __init__(self) -> None:
        self.is_asleep = threading.Event()
        self.may_wake = threading.Event()

    def block(self, seconds: float) -> None:
        self.is_asleep.set()
        self.may_wake.wait()

    async def wait(self, seconds: float) -> None:
        self.is_asleep.set()
        await asyncio.to_thread(self.may_wake.wait)


@pytest.fixture
def wait():
    wait = Wait()
    yield wait
    wait.may_wake.set()


async def leave_while_waiting(server, wait, ask):
    """Leave a client while `ask` waits between two attempts, and return what it raised."""
    async with AsyncExitStack() as stack:
        async with AsyncClient(server.address, sleep=wait.wait) as client:
            asking = asyncio.create_task(ask(client, stack))
            await asyncio.to_thread(wait.is_asleep.wait)
        wait.may_wake.set()
        with pytest.raises(ClientError, match="closed") as caught:
            await asking
    return caught.value


async def test_a_stream_between_attempts_ends_with_its_client(server, wait) -> None:
    """It makes no further attempt."""
    server.refuse(DRAINING)

    async def ask(client, stack):
        await anext(await stack.enter_async_context(client.stream("Hello")))

    assert isinstance(await leave_while_waiting(server, wait, ask), StreamError)
    assert len(server.requests) == 1


async def test_many_between_attempts_end_with_their_client(server, wait) -> None:
    """The same for a stream of many."""
    server.refuse(DRAINING)

    async def ask(client, stack):
        await anext(await stack.enter_async_context(client.generate_many()))

    assert isinstance(await leave_while_waiting(server, wait, ask), StreamError)


async def test_a_call_between_attempts_ends_with_its_client(server, wait) -> None:
    """The same for a call with one answer, even if the client was entered again meanwhile."""
    server.refuse_unary(DRAINING)

    async def ask(client, stack):
        await client.list_models()

    await leave_while_waiting(server, wait, ask)
    assert len(server.calls) == 1


async def test_a_blocking_client_left_by_another_thread_ends_waits(server, wait) -> None:
    """Streams and calls alike."""
    server.refuse(DRAINING)
    server.refuse_unary(DRAINING)
    failures = []

    def ask(call) -> None:
        try:
            call()
        except ClientError as error:
            failures.append(error)

    def run():
        with ExitStack() as stack:
            with Client(server.address, sleep=wait.block) as client:
                stream = stack.enter_context(client.stream("Hello"))
                threads = []
                for call in (lambda: next(stream), client.list_models):
                    wait.is_asleep.clear()
                    threads.append(threading.Thread(target=ask, args=(call,)))
                    threads[-1].start()
                    wait.is_asleep.wait()
            wait.may_wake.set()
            for thread in threads:
                thread.join()

    await asyncio.to_thread(run)
    assert sorted(str(error) for error in failures) == [
        "the client was closed during the call",
        "the stream is closed",
    ]
    assert (len(server.requests), len(server.calls)) == (1, 1)


async def test_a_blocking_stream_closed_between_attempts_makes_no_other(
    server, sync_client, wait
) -> None:
    """By another thread than the one that waits."""
    server.refuse(DRAINING)
    failures = []

    def read(stream):
        try:
            next(stream)
        except ClientError as error:
            failures.append(error)

    def run():
        with Client(server.address, sleep=wait.block) as client, client.stream("Hello") as stream:
            reader = threading.Thread(target=read, args=(stream,))
            reader.start()
            wait.is_asleep.wait()
            stream.close()
            wait.may_wake.set()
            reader.join()

    await asyncio.to_thread(run)
    assert [str(error) for error in failures] == ["the stream is closed"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_blocking", [False, True])
async def test_a_call_in_progress_ends_with_its_client(server, is_blocking) -> None:
    """The caller gets an error of ours; with asyncio its task is not cancelled."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(context):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    server.failures.append(hang)
    if is_blocking:
        client = Client(server.address).__enter__()
        asking = asyncio.create_task(asyncio.to_thread(client.list_models))
        await asked.wait()
        await asyncio.to_thread(client.__exit__, None, None, None)
    else:
        async with AsyncClient(server.address) as client:
            asking = asyncio.create_task(client.list_models())
            await asked.wait()
    with pytest.raises(ClientError, match="closed during the call"):
        await asking
    await left.wait()


# Of a generation, of many, and of a watch; each hangs after its first event.
KINDS = {
    "generation": lambda client: client.stream("Hello"),
    "many": lambda client: client.generate_many(),
    "watch": lambda client: client.watch_health("readiness"),
}


def let_hang(server, kind: str) -> None:
    if kind == "generation":
        server.answer(delta("x"), hang=True)


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_the_client_ends_a_reader(server, kind) -> None:
    """It gets StreamError; a task is not cancelled for what happened to its stream."""
    let_hang(server, kind)
    begun = asyncio.Event()

    async def read(stream):
        if kind == "many":
            await stream.submit("hang")
        await anext(stream)
        begun.set()
        while True:
            await anext(stream)

    async with AsyncExitStack() as stack:
        async with AsyncClient(server.address) as client:
            stream = await stack.enter_async_context(KINDS[kind](client))
            reader = asyncio.create_task(read(stream))
            await begun.wait()
        with pytest.raises(StreamError, match="closed"):
            await reader
        await server.left.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_a_blocking_client_ends_a_reader(server, kind) -> None:
    """As with asyncio, though another thread leaves."""
    let_hang(server, kind)
    begun = threading.Event()
    failures = []

    def read(stream):
        if kind == "many":
            stream.submit("hang")
        try:
            next(stream)
            begun.set()
            while True:
                next(stream)
        except ClientError as error:
            failures.append(error)

    def run():
        with ExitStack() as stack:
            with Client(server.address) as client:
                reader = threading.Thread(
                    target=read, args=(stack.enter_context(KINDS[kind](client)),)
                )
                reader.start()
                begun.wait()
            reader.join()

    await asyncio.to_thread(run)
    await server.left.wait()
    assert [(type(error), str(error)) for error in failures] == [
        (StreamError, "the stream is closed")
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_a_block_by_break_ends_the_call(server, client, kind) -> None:
    """Also when nobody holds the iterator any more; what is read later is an error."""
    let_hang(server, kind)
    async with KINDS[kind](client) as stream:
        if kind == "many":
            await stream.submit("hang")
        async for _ in stream:
            break
    await server.left.wait()
    if kind != "watch":  # its iterator is a generator, which the break has closed
        with pytest.raises(StreamError, match="closed"):
            await anext(stream)


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_a_blocking_block_by_break_ends_the_call(server, sync_client, kind) -> None:
    """The generators that were read through are closed, too, without harm."""
    let_hang(server, kind)

    def run():
        with KINDS[kind](sync_client) as stream:
            if kind == "many":
                stream.submit("hang")
            for _ in stream.text() if kind == "generation" else stream:
                break
        with pytest.raises(StreamError, match="closed"):
            next(stream)

    await asyncio.to_thread(run)
    await server.left.wait()


async def test_cancelling_a_call_between_attempts_ends_it(server, wait) -> None:
    """A wait is as good a place to be cancelled as any."""
    server.refuse(DRAINING)
    async with AsyncClient(server.address, sleep=wait.wait) as client:
        asking = asyncio.create_task(client.generate("Hello"))
        await asyncio.to_thread(wait.is_asleep.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        wait.may_wake.set()
    assert len(server.requests) == 1


async def test_cancelling_a_call_with_one_answer_ends_it(server, client) -> None:
    """CancelledError stays itself, and the handler is cancelled."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(context):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    server.failures.append(hang)
    asking = asyncio.create_task(client.list_models())
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await left.wait()


async def test_a_client_may_be_entered_again(server) -> None:
    """Streams of its former life stay closed."""
    server.answer(started(), hang=True)
    async with AsyncExitStack() as stack:
        client = AsyncClient(server.address)
        async with client:
            stream = await stack.enter_async_context(client.stream("Hello"))
            await anext(stream)
        async with client:
            assert (await client.check_health()) == HealthStatus.SERVING
            with pytest.raises(StreamError, match="closed"):
                await anext(stream)
