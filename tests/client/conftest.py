"""A fake server, and clients whose waits take no time."""

import pytest

from client.fake_server import serving
from hocket.client import AsyncClient, Client


@pytest.fixture
async def server():
    """A fake server on loopback."""
    async with serving() as fake:
        yield fake


class Sleeps(list):
    """Sleeps that were asked for; none of them takes time."""

    async def wait(self, seconds: float) -> None:
        self.append(seconds)

    def block(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
async def client(server, sleeps):
    """A client of the fake server whose waits between attempts take no time."""
    async with AsyncClient(server.address, sleep=sleeps.wait, draw=lambda: 0.5) as opened:
        yield opened


@pytest.fixture
def sync_client(server, sleeps):
    """The blocking client; call it through `asyncio.to_thread`, the server needs the loop."""
    with Client(server.address, sleep=sleeps.block, draw=lambda: 0.5) as opened:
        yield opened
