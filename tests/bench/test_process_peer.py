"""A peer's process goes on during its turns and at no other time."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import pytest
from bench.peers.peer import Peer, Turn
from bench.peers.process_peer import ProcessPeer
from bench.process import Absent, Process

SCRIPT = """
import json, os, sys
print(json.dumps({"pid": os.getpid()}), flush=True)
for line in sys.stdin:
    print(line, flush=True, end="")
"""


class Echo(ProcessPeer):
    """Answers with what it is asked, unless it is to fail."""

    def __init__(self) -> None:
        super().__init__("echo", rivals=False)
        self.pid = 0
        self.fails = False
        self.asked: list[dict[str, Any]] = []

    async def _launch(self) -> Process:
        return Process([sys.executable, "-c", SCRIPT], answers=True)

    async def _wait_ready(self, process: Process) -> None:
        self.pid = (await process.hear())["pid"]
        if self.fails:
            raise Absent("not ready")

    async def _answer(
        self, process: Process, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Turn:
        self.asked.append(await process.ask({"prompts": prompts, "new_tokens": new_tokens}))
        if self.fails:
            raise RuntimeError("failed")
        return Turn(seconds=1.0, streams=())

    def wait_stopped(self) -> None:
        """Wait until the process has been stopped since the last call; returns only then."""
        found = os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED


async def test_it_goes_on_for_its_turns_alone() -> None:
    """It answers in each of them, and is stopped before the first and after every one."""
    peer = Echo()
    side: Peer = peer
    await side.start()
    try:
        peer.wait_stopped()
        for number in range(3):
            assert (await side.turn([[number]], 7)).seconds == 1.0
            peer.wait_stopped()
    finally:
        await side.stop()
    assert peer.asked == [{"prompts": [[number]], "new_tokens": 7} for number in range(3)]
    assert not psutil.pid_exists(peer.pid)


async def test_a_turn_that_fails_stops_it_all_the_same() -> None:
    """Otherwise it would take processor time from the sides after it."""
    peer = Echo()
    await peer.start()
    try:
        peer.wait_stopped()
        peer.fails = True
        with pytest.raises(RuntimeError, match="failed"):
            await peer.turn([[1]], 1)
        peer.wait_stopped()
    finally:
        await peer.stop()


async def test_what_is_never_ready_is_ended_like_what_was() -> None:
    """`stop` ends the process although `start` failed."""
    peer = Echo()
    peer.fails = True
    with pytest.raises(Absent, match="not ready"):
        await peer.start()
    assert peer.cpu_seconds() > 0
    await peer.stop()
    assert peer.cpu_seconds() == 0
    assert not psutil.pid_exists(peer.pid)


async def test_before_it_starts_there_is_nothing_to_ask_or_to_end() -> None:
    peer = Echo()
    with pytest.raises(Absent, match="not started"):
        await peer.turn([[1]], 1)
    assert peer.cpu_seconds() == 0
    await peer.stop()
