"""Servers and clients on loopback for the tests of the whole."""

import asyncio
from collections.abc import Callable

import pytest

from hocket.client import NO_RETRIES, AsyncClient


@pytest.fixture
def client_of() -> Callable[..., AsyncClient]:
    """Makes a client of an app that never tries again by itself."""

    def make(app, **kwargs) -> AsyncClient:
        return AsyncClient(app.address, retry=NO_RETRIES, **kwargs)

    return make


@pytest.fixture
def settled() -> Callable:
    """Waits until a condition holds, or fails."""

    async def wait(condition: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
