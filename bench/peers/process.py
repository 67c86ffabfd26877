"""A peer's process: in a group of its own, paused between turns, ended with its children."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import psutil

from bench.peers.peer import Absent

_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 30.0


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PeerProcess:
    """A process with its children, all in one process group.

    Attributes:
        log: The file that holds what it says.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        answers: bool = False,
    ) -> None:
        """Start it.

        Args:
            command: What to run.
            log: Where its output goes.
            environment: Added to ours.
            answers: Its standard output is kept for `ask`, and not put into the log.
        """
        self.log = log
        self._has_ended = False
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if answers else output,
                stderr=output if answers else subprocess.STDOUT,
                env={**os.environ, **(environment or {})},  # noqa: TID251 - passed on
                start_new_session=True,
            )

    async def ask(self, question: str, seconds: float) -> str:
        """Write a line, if it is not empty, and return the line that is answered.

        Raises:
            Absent: It left, or did not answer in time.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process has no pipes")
        if question:
            stdin.write(question.encode() + b"\n")
            stdin.flush()
        try:
            async with asyncio.timeout(seconds):
                answer = await asyncio.to_thread(stdout.readline)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            raise Absent(f"no answer in {seconds:.0f} s: {self._last_words()}") from None
        if not answer:
            raise Absent(f"left: {self._last_words()}")
        return answer.decode()

    async def wait_ready(self, is_ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait until `is_ready`.

        Raises:
            Absent: It left first, or was not ready in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await is_ready():
                    if self._process.poll() is not None:
                        raise Absent(f"left with {self._process.returncode}: {self._last_words()}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise Absent(f"not ready in {seconds:.0f} s: {self._last_words()}") from None

    def pause(self) -> None:
        """Stop all of it where it is, so that it uses no processor time."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Return the processor time of it and its living children since they started."""
        total = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            for process in [main, *main.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total

    async def end(self) -> None:
        """Ask it to leave, and end its whole group if it does not in time; once."""
        if self._has_ended:
            return
        self._has_ended = True
        self.resume()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _LEAVE_SECONDS)
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if "Error" in line] or [line for line in lines if line]
        return told[-1].strip()[:300] if told else "it said nothing"
