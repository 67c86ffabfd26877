"""`hocket map` and kill -9 of either side: each id is in the output exactly once."""

import json
from pathlib import Path

import pytest

from hocket.server.testing.serving import serving
from service.map_processes import free_address, kill, wait_bytes, write_texts
from service.turnstile import stepped

pytestmark = pytest.mark.slow


@pytest.mark.timeout(60)  # it starts three processes
@pytest.mark.parametrize("steps", [60, 100, 140])
async def test_a_kill_of_the_command_loses_and_doubles_nothing(
    turnstile, processes, tmp_path, steps
):
    """In order, the output is that of an undisturbed run, byte for byte."""
    texts, out, whole = (tmp_path / name for name in ("texts.jsonl", "out.jsonl", "whole.jsonl"))
    write_texts(texts, 150)
    async with serving(stepped(turnstile)) as app:

        def flags(output: Path) -> list[str]:
            given = [str(texts), "--output", str(output), "--raw", "--in-order"]
            return [*given, "--address", app.address]

        process = await processes.command(2, *flags(whole))
        assert await process.wait() == 0
        turnstile.close()
        process = await processes.command(2, *flags(out))
        await turnstile.wait_held()
        await turnstile.step(steps)
        await wait_bytes(out, 1)
        await kill(process)
        turnstile.open()
        cut = out.read_bytes()
        assert 0 < len(cut) < len(whole.read_bytes())
        out.write_bytes(cut + b'{"id": "id 149", "te')  # what a batch may leave behind
        process = await processes.command(2, *flags(out))
        assert await process.wait() == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_in_order", [False, True], ids=["any", "in order"])
async def test_kills_of_both_leave_5000_ids_once_each(processes, tmp_path, is_in_order):
    """Three of the server, two of the command; the last run goes on to the end."""
    texts, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    sources = write_texts(texts, 5_000)
    address = free_address()
    order = ["--in-order"] * is_in_order
    flags = [str(texts), "--output", str(out), "--raw", "--address", address, *order]
    server = await processes.serve(address)
    command = await processes.command(50, *flags)
    size = 0
    for victim in ("server", "command", "server", "command", "server"):
        size += 60_000
        await wait_bytes(out, size)
        if victim == "server":
            await kill(server)
            server = await processes.serve(address)
        else:
            await kill(command)
            size = out.stat().st_size
            command = await processes.command(50, *flags)
    assert await command.wait() == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == 5_000
    assert {record["id"]: record["text"] for record in found} == {
        id_: text[-6:] for id_, text in sources.items()
    }
    assert not is_in_order or [record["id"] for record in found] == list(sources)
