"""`hocket map` with a model through kills -9 of either side: the output of an undisturbed run."""

import asyncio
import random
from pathlib import Path

import pytest

from service.map_processes import Processes, free_address, kill, wait_bytes, write_texts
from service.tiny_folder import make_tiny_folder

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = 300
KILLS = 2  # of either side


@pytest.mark.parametrize(
    "task",
    [("--raw",), ("--op", "transform", "--template", "{segment}")],
    ids=["generate", "transform"],
)
async def test_greedy_records_in_order_are_those_of_a_run_without_kills(processes, tmp_path, task):
    rng = random.Random(7)
    folder = make_tiny_folder(tmp_path / "model")
    texts, out, whole = (tmp_path / name for name in ("texts.jsonl", "out.jsonl", "whole.jsonl"))
    write_texts(texts, COUNT)
    address = free_address()

    async def serve(processes: Processes):
        return await processes.start(
            "-m", "hocket.server", "--model", str(folder), "--address", address,
            "--set", "metrics.enabled=false",
        )  # fmt: skip

    def flags(output: Path) -> list[str]:
        given = [str(texts), "--output", str(output), "--address", address, *task]
        return [*given, "--in-order", "--max-tokens", "12", "--temperature", "0", "--window", "8"]

    server = await serve(processes)
    command = await processes.command(5, *flags(whole))
    assert await command.wait() == 0
    size = whole.stat().st_size
    command = await processes.command(5, *flags(out))
    victims = ["server", "command"] * KILLS
    rng.shuffle(victims)
    for share in sorted(rng.uniform(0, 0.8) for _ in victims):
        await wait_bytes(out, int(size * share), command)
        await asyncio.sleep(rng.uniform(0, 0.05))  # no condition: it may be any moment
        assert command.returncode is None, "it was over too soon to be killed"
        if victims.pop() == "server":
            await kill(server)
            server = await serve(processes)
        else:
            await kill(command)
            command = await processes.command(5, *flags(out))
    assert await command.wait() == 0
    assert out.read_bytes() == whole.read_bytes()
    assert whole.read_bytes().count(b"\n") == COUNT
    assert b"error" not in whole.read_bytes()
