"""Servers and clients on loopback for the tests of the whole."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from unittest import mock

import pytest
import structlog

from hocket.client import NO_RETRIES, AsyncClient
from hocket.server.app import App
from hocket.server.rpc import porch
from service.map_processes import Processes
from service.turnstile import Turnstile


@pytest.fixture
def client_of() -> Callable[..., AsyncClient]:
    """Makes a client of an app that never tries again by itself."""

    def make(app, **kwargs) -> AsyncClient:
        return AsyncClient(app.address, retry=NO_RETRIES, **kwargs)

    return make


@pytest.fixture
def logged() -> Iterator[list]:
    """What the server logs, as it is told; nobody draws its tracebacks, which takes long."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def turnstile() -> AsyncIterator[Turnstile]:
    """Holds the engine of a `stepped` model, and is open again when the test ends."""
    turnstile = Turnstile()
    yield turnstile
    turnstile.open()


@pytest.fixture
def settled() -> Callable:
    """Waits until a condition of a serving app holds, or fails.

    The condition is looked at whenever something happened that may have changed it: a step came
    back from the engine, a command was left for the next, a request was let go, places were taken
    or given back, a call ended.
    """

    async def wait(app: App, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        news = asyncio.Event()

        def telling(method: Callable) -> Callable:
            def call(*args, **kwargs):
                try:
                    return method(*args, **kwargs)
                finally:
                    news.set()

            return call

        with ExitStack() as stack:
            for owner, name in (
                (app._driver, "_on_step"),
                (app._driver, "_post"),
                (app._driver, "forget_nowait"),
                (app._admission, "enter_nowait"),
                (app._admission, "_leave"),
                (app._metrics, "observe_request"),
            ):
                told = telling(getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, told))
            async with asyncio.timeout(seconds):
                while not condition():
                    await news.wait()
                    news.clear()

    return wait


@pytest.fixture
def written_by(monkeypatch) -> Callable:
    """Lets a writer of the test's own write all documents."""

    def use(writer):
        service = porch.DocumentService
        monkeypatch.setattr(
            porch,
            "DocumentService",
            lambda *args, **kwargs: service(*args, **{**kwargs, "writer_for": lambda *_: writer}),
        )
        return writer

    return use


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    """Starts processes; none outlives its test."""
    processes = Processes()
    yield processes
    await processes.end()
