"""A TCP proxy that cuts what goes through it, and leads on to another server afterwards."""

import asyncio
import contextlib
from typing import Self


class CuttingProxy:
    """Leads connections to a target. One loop owns it.

    Attributes:
        address: Where it listens.
        target: Where it leads new connections.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, target: str = "") -> None:
        """Break all connections at once; lead new ones to another target, if it is given."""
        self.target = target or self.target
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self.target.rpartition(":")
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            self._writers |= {writer, inner_writer}
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, inner_writer))
                group.create_task(_pump(inner_reader, writer))
            self._writers -= {writer, inner_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
