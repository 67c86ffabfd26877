"""Processes of a measurement answer, and say why they do not."""

import sys
from pathlib import Path

import psutil
import pytest
from bench.process import Absent, Process, child, output_of

ECHO = "import sys; print('{}', flush=True)\nfor line in sys.stdin: print(line, flush=True, end='')"


async def test_a_child_answers_each_line_with_one() -> None:
    async with child([sys.executable, "-c", ECHO]) as ask:
        for number in range(3):
            assert await ask({"number": number}) == {"number": number}


async def test_a_child_that_leaves_is_absent() -> None:
    with pytest.raises(Absent, match="left without an answer"):
        async with child([sys.executable, "-c", "print('{}')"]) as ask:
            await ask({})


async def test_a_process_that_leaves_is_absent_with_its_last_words(tmp_path: Path) -> None:
    """The reason is a line of what it said."""
    process = Process(
        [sys.executable, "-c", "raise RuntimeError('no such processor')"], log=tmp_path / "log"
    )

    async def never() -> bool:
        return False

    with pytest.raises(Absent, match="left with exit code 1: RuntimeError: no such processor"):
        await process.wait_ready(never, 30)
    await process.end()
    await process.end()  # without effect


async def test_a_paused_process_ends_all_the_same() -> None:
    process = Process([sys.executable, "-c", ECHO], answers=True)
    await process.hear()
    assert process.resident_mib > 0
    process.pause()
    await process.end()
    with pytest.raises(psutil.NoSuchProcess):
        assert process.resident_mib


async def test_the_environment_is_ours_with_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Variables are kept, replaced, added and taken out."""
    names = ["KEPT", "REPLACED", "ADDED", "TAKEN"]
    monkeypatch.setenv("KEPT", "ours")
    monkeypatch.setenv("REPLACED", "ours")
    monkeypatch.setenv("TAKEN", "ours")
    told = f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    process = Process(
        [sys.executable, "-c", told],
        environment={"REPLACED": "theirs", "ADDED": "theirs", "TAKEN": None, "NEVER": None},
        answers=True,
    )
    try:
        assert await process.hear() == ["ours", "theirs", "theirs", None]
    finally:
        await process.end()


async def test_output_is_that_of_a_process_that_did_well() -> None:
    assert await output_of([sys.executable, "-c", "print(1)"]) == "1\n"
    with pytest.raises(Absent, match="exit code 3"):
        await output_of([sys.executable, "-c", "import sys; sys.exit(3)"])
