"""`hocket map` and its server as processes of their own, which a test may kill at any moment."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

_SERVER = """
import asyncio, sys
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving

async def main():
    settings = loopback_settings(listener={"address": sys.argv[1]})
    async with serving(ScriptedModel(ScriptedRunner(lambda prompt: prompt[-6:])), settings):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
# The command, with a batch for each few texts, so that there is much to be torn.
_COMMAND = """
import sys
from hocket.client._map import job
from hocket.client.__main__ import main

job._BATCH_ROWS = int(sys.argv.pop(1))
sys.exit(main())
"""


def write_texts(path: Path, count: int) -> dict[str, str]:
    """Write a file of texts, and return them by id."""
    texts = {f"id {number}": f"text {number:06}" for number in range(count)}
    lines = [json.dumps({"id": id_, "text": text}) for id_, text in texts.items()]
    path.write_text("\n".join(lines) + "\n")
    return texts


def free_address() -> str:
    """Return an address that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


async def kill(process: Process) -> None:
    """Kill a process that runs, with no chance to do anything about it."""
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def wait_bytes(path: Path, size: int, process: Process | None = None) -> None:
    """Wait until another process has written so much, or has left."""
    async with asyncio.timeout(60):
        while not path.exists() or path.stat().st_size < size:
            if process is not None and process.returncode is not None:
                return
            await asyncio.sleep(0.001)


class Processes:
    """Starts processes, of which none outlives its test."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    async def start(self, *arguments: str, **streams: int) -> Process:
        """Start Python."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, **{"stderr": DEVNULL, **streams}
        )
        self._started.append(process)
        return process

    async def command(self, batch_rows: int, *flags: str) -> Process:
        """Start `hocket map`."""
        return await self.start("-c", _COMMAND, str(batch_rows), "map", *flags)

    async def serve(self, address: str) -> Process:
        """Start a server that writes the last six bytes of a prompt; wait until it is up."""
        server = await self.start("-c", _SERVER, address, stdout=PIPE)
        while await server.stdout.readline() != b"up\n":
            assert not server.stdout.at_eof()
        return server

    async def end(self) -> None:
        """Kill those that run still."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                await process.communicate()
