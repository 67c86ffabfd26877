"""`hocket map` and kill -9 of either side: each id is in the output exactly once."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hocket.server.testing.serving import serving
from service.turnstile import stepped

pytestmark = pytest.mark.slow

SERVER = """
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
COMMAND = """
import sys
from hocket.client._map import job
from hocket.client.__main__ import main

job._BATCH_ROWS = int(sys.argv.pop(1))
sys.exit(main())
"""


@pytest.fixture
async def start() -> AsyncIterator[Callable]:
    """Starts Python with some code; no process outlives its test."""
    started: list[Process] = []

    async def make(code: str, *arguments: str, **streams) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *arguments, **{"stderr": DEVNULL, **streams}
        )
        started.append(process)
        return process

    yield make
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def write_texts(path: Path, count: int) -> dict[str, str]:
    texts = {f"id {number}": f"text {number:06}" for number in range(count)}
    lines = [json.dumps({"id": id_, "text": text}) for id_, text in texts.items()]
    path.write_text("\n".join(lines) + "\n")
    return texts


async def kill(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def serve(start: Callable, address: str) -> Process:
    """Start a server and wait until it is up."""
    server = await start(SERVER, address, stdout=PIPE)
    while await server.stdout.readline() != b"up\n":
        assert not server.stdout.at_eof()
    return server


async def wait_bytes(path: Path, size: int) -> None:
    """Wait until another process has written so much."""
    async with asyncio.timeout(60):
        while not path.exists() or path.stat().st_size < size:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("steps", [60, 100, 140])
async def test_a_kill_of_the_command_loses_and_doubles_nothing(turnstile, start, tmp_path, steps):
    """In order, the output is that of an undisturbed run, byte for byte."""
    texts, out, whole = (tmp_path / name for name in ("texts.jsonl", "out.jsonl", "whole.jsonl"))
    write_texts(texts, 150)
    async with serving(stepped(turnstile)) as app:

        def flags(output: Path) -> list[str]:
            given = ["map", str(texts), "--output", str(output), "--raw", "--in-order"]
            return [*given, "--address", app.address]

        process = await start(COMMAND, "2", *flags(whole))
        assert await process.wait() == 0
        turnstile.close()
        process = await start(COMMAND, "2", *flags(out))
        await turnstile.wait_held()
        await turnstile.step(steps)
        await wait_bytes(out, 1)
        await kill(process)
        turnstile.open()
        cut = out.read_bytes()
        assert 0 < len(cut) < len(whole.read_bytes())
        out.write_bytes(cut + b'{"id": "id 149", "te')  # what a batch may leave behind
        process = await start(COMMAND, "2", *flags(out))
        assert await process.wait() == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_in_order", [False, True], ids=["any", "in order"])
async def test_kills_of_both_leave_5000_ids_once_each(start, tmp_path, is_in_order):
    """Three of the server, two of the command; the last run goes on to the end."""
    texts, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    sources = write_texts(texts, 5_000)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    order = ["--in-order"] * is_in_order
    flags = ["map", str(texts), "--output", str(out), "--raw", "--address", address, *order]
    server = await serve(start, address)
    command = await start(COMMAND, "50", *flags)
    size = 0
    for victim in ("server", "command", "server", "command", "server"):
        size += 60_000
        await wait_bytes(out, size)
        if victim == "server":
            await kill(server)
            server = await serve(start, address)
        else:
            await kill(command)
            size = out.stat().st_size
            command = await start(COMMAND, "50", *flags)
    assert await command.wait() == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == 5_000
    assert {record["id"]: record["text"] for record in found} == {
        id_: text[-6:] for id_, text in sources.items()
    }
    assert not is_in_order or [record["id"] for record in found] == list(sources)
