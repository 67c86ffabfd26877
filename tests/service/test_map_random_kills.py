"""`hocket map` of 5,000 texts through many kills -9 of either side, at random moments.

A moment is a length of the output, drawn at random, and up to a few batches more. What a kill may
leave, half a line of the output or of the journal, is put there by hand as well.
"""

import asyncio
import json
import random
from pathlib import Path

import pytest

from service.map_processes import free_address, kill, wait_bytes, write_texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = 5_000
KILLS = 4  # of either side

FLAGS = {
    "tokenize": ("--op", "tokenize"),
    "split": ("--op", "split"),
    "transform": ("--op", "transform", "--template", "{segment}", "--no-cache"),
}


def expected(op: str, text: str) -> object:
    """Return what stands in the record of a text."""
    match op:
        case "tokenize":
            return list(text.encode())
        case "split":
            return [text]
        case _:
            return text[-6:]


def found_in(op: str, record: dict) -> object:
    match op:
        case "tokenize":
            return record["token_ids"]
        case "split":
            return [each["text"] for each in record["sentences"]]
        case _:
            return record["text"]


def tear(out: Path, rng: random.Random) -> None:
    """Leave what a kill in the middle of a write may leave."""
    for path in (out, out.with_name(f"{out.name}.journal")):
        if path.exists() and rng.random() < 0.5:
            with path.open("ab") as file:
                file.write(b'{"id": "id 4999", "te'[: rng.randrange(1, 22)])


@pytest.mark.parametrize("seed", [1])  # any number of them holds
@pytest.mark.parametrize("op", FLAGS)
async def test_each_of_5000_ids_stands_once(processes, tmp_path, op, seed):
    rng = random.Random(f"{op} {seed}")
    texts, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    sources = write_texts(texts, COUNT)
    address = free_address()
    flags = (str(texts), "--output", str(out), "--address", address, "--window", "4", *FLAGS[op])
    server = await processes.serve(address)
    command = await processes.command(20, *flags)
    # Of half of the whole, or less: the shortest records have 80 bytes.
    sizes = sorted(rng.randrange(COUNT * 40) for _ in range(2 * KILLS))
    victims = ["server", "command"] * KILLS
    rng.shuffle(victims)
    for size, victim in zip(sizes, victims, strict=True):
        await wait_bytes(out, size, command)
        await asyncio.sleep(rng.uniform(0, 0.05))  # no condition: it may be any moment
        assert command.returncode is None, "it was over too soon to be killed"
        if victim == "server":
            await kill(server)
            server = await processes.serve(address)
        else:
            await kill(command)
            tear(out, rng)
            command = await processes.command(20, *flags)
    assert await command.wait() == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == COUNT
    assert {record["id"]: found_in(op, record) for record in records} == {
        id_: expected(op, text) for id_, text in sources.items()
    }
