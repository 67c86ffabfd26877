"""The process as operators meet it: signals, exit codes, one clear line instead of a traceback."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from hocket.client import AsyncClient
from service.tiny_folder import make_tiny_folder

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hocket.server", "--set", "metrics.enabled=false", *arguments,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def ready(process: asyncio.subprocess.Process, file: Path) -> str:
    async with asyncio.timeout(60):
        while not file.exists():
            assert process.returncode is None
            await asyncio.sleep(0.02)
    return str(json.loads(file.read_text())["address"])


async def test_sigterm_finishes_what_runs_and_leaves_with_0(folder, tmp_path):
    file = tmp_path / "ready.json"
    process = await start(
        "--model", str(folder), "--address", "127.0.0.1:0", "--ready-file", str(file),
        "--set", "drain.delay_seconds=0.2",
    )  # fmt: skip
    address = await ready(process, file)
    async with AsyncClient(address) as client:
        async with client.stream("hello", max_tokens=400, granularity="token") as stream:
            await anext(aiter(stream))
            process.send_signal(signal.SIGTERM)
            result = await stream.result()
    assert result.usage.completion_tokens == 400
    assert await process.wait() == 0


async def test_a_second_signal_leaves_at_once(folder, tmp_path):
    file = tmp_path / "ready.json"
    process = await start(
        "--model", str(folder), "--address", "127.0.0.1:0", "--ready-file", str(file),
        "--set", "drain.delay_seconds=60",
    )  # fmt: skip
    await ready(process, file)
    process.send_signal(signal.SIGTERM)
    assert b"draining" in await _line_with(process, b"draining")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM


async def _line_with(process: asyncio.subprocess.Process, words: bytes) -> bytes:
    async with asyncio.timeout(20):
        async for line in process.stderr:
            if words in line:
                return line
    return b""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "/nowhere/at/all"], 1, b"there is no model"),
        (["--set", "engine.max_num_seqs=0"], 2, b"engine.max_num_seqs"),
        (["--set", "engine.nonsense=1"], 2, b"engine.nonsense"),
        (["--address", "0.0.0.0:0"], 1, b"not a loopback address"),
    ],
)
async def test_a_bad_start_is_one_clear_line(arguments, code, words):
    process = await start(*arguments)
    _, errors = await process.communicate()
    assert process.returncode == code
    assert words in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("damage", ["truncated", "hostile", "empty"])
async def test_a_broken_model_file_is_one_clear_line(tmp_path, smollm2_path, damage):
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
