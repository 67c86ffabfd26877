"""The process as operators meet it: signals, exit codes, one clear line instead of a traceback."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hocket.client import AsyncClient
from service.tiny_folder import make_tiny_folder

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Starts servers; none outlives its test."""
    started = []

    async def make(*arguments: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hocket.server", "--set", "metrics.enabled=false", *arguments,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield make
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def told(process: Process, event: str) -> dict:
    """Read what a server logs up to an event, and return that."""
    async with asyncio.timeout(100):
        async for line in process.stderr:
            entry = json.loads(line)
            if entry["event"] == event:
                return entry
    pytest.fail(f"the server left without a word of {event!r}")


async def test_sigterm_finishes_what_runs_and_leaves_with_0(start, folder, tmp_path):
    file = tmp_path / "ready.json"
    process = await start(
        "--model", str(folder), "--address", "127.0.0.1:0", "--ready-file", str(file),
        "--set", "drain.delay_seconds=0",
    )  # fmt: skip
    address = (await told(process, "serving"))["address"]
    # So little fits on the way to a caller that does not read that its call cannot end.
    narrow = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with AsyncClient(address, options=narrow) as client:
        async with client.stream("hi", max_tokens=60, granularity="token", logprobs=20) as stream:
            await anext(aiter(stream))
            assert json.loads(file.read_text())["address"] == address
            process.send_signal(signal.SIGTERM)
            await told(process, "draining")
            result = await stream.result()
    assert result.usage.completion_tokens == 60
    assert (await told(process, "rpc"))["code"] == "OK"
    assert await process.wait() == 0


async def test_a_second_signal_leaves_at_once(start, folder):
    process = await start(
        "--model", str(folder), "--address", "127.0.0.1:0", "--set", "drain.delay_seconds=60"
    )
    await told(process, "serving")
    process.send_signal(signal.SIGTERM)
    await told(process, "draining")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "/nowhere/at/all"], 1, b"there is no model"),
        (["--set", "engine.max_num_seqs=0"], 2, b"engine.max_num_seqs"),
        (["--set", "engine.nonsense=1"], 2, b"engine.nonsense"),
        (["--address", "0.0.0.0:0"], 1, b"not a loopback address"),
    ],
)
async def test_a_bad_start_is_one_clear_line(start, arguments, code, words):
    process = await start(*arguments)
    _, errors = await process.communicate()
    assert process.returncode == code
    assert words in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("damage", ["truncated", "hostile", "empty"])
async def test_a_broken_model_file_is_one_clear_line(start, tmp_path, smollm2_path, damage):
    file = tmp_path / "broken.gguf"
    with smollm2_path.open("rb") as whole:
        head = whole.read(3_000_000)
    content = {"truncated": head, "hostile": head[:8] + b"\xff" * 64, "empty": b""}[damage]
    file.write_bytes(content)
    process = await start("--model", str(file), "--address", "127.0.0.1:0")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"broken" in errors
