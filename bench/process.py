"""Processes for a measurement: asked by lines of JSON, paused, and ended with their children."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

_POLL_SECONDS = 0.01
_LEAVE_SECONDS = 60.0
_ANSWER_SECONDS = 600.0

Ask = Callable[[Mapping[str, object]], Awaitable[dict[str, Any]]]


class Absent(Exception):
    """What a measurement needs cannot be installed or started, or has left; says why in a line."""


class Process:
    """A process with its children, all in one process group."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        answers: bool = False,
    ) -> None:
        """Start it.

        Args:
            command: What to run.
            log: Where its output goes; to our standard error if None.
            environment: Added to ours; a variable that is None is taken out of it.
            answers: Its standard output is kept for `ask`, and put nowhere else.
        """
        self._log = log
        self._has_ended = False
        variables = {**os.environ, **(environment or {})}  # noqa: TID251 - passed on
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else sys.stderr
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if answers else output,
                stderr=output,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,
            )

    @property
    def resident_mib(self) -> float:
        """MiB of memory that it holds now, its children left out."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / (1 << 20)

    async def hear(self, seconds: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next line that it writes, read as JSON.

        Raises:
            Absent: It left, or did not answer in time.
        """
        stdout = self._process.stdout
        if stdout is None:
            raise RuntimeError("the process does not answer")
        try:
            async with asyncio.timeout(seconds):
                line = await asyncio.to_thread(stdout.readline)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            raise Absent(f"no answer in {seconds:.0f} s{self._last_words()}") from None
        if not line:
            raise Absent(f"left without an answer{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        """Write a line of JSON and return the line that is answered.

        Raises:
            Absent: It left, or did not answer in time.
        """
        stdin = self._process.stdin
        if stdin is None:
            raise RuntimeError("the process has no pipes")
        with contextlib.suppress(BrokenPipeError):  # it left, which the answer will tell
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        return await self.hear()

    async def wait_ready(self, is_ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait until `is_ready`.

        Raises:
            Absent: It left first, or was not ready in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await is_ready():
                    if self._process.poll() is not None:
                        code = self._process.returncode
                        raise Absent(f"left with exit code {code}{self._last_words()}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise Absent(f"not ready in {seconds:.0f} s{self._last_words()}") from None

    def pause(self) -> None:
        """Stop all of it where it is, so that it uses no processor time."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it go on until the block ends, then stop it again."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

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

    def main_thread_seconds(self) -> float:
        """Return the processor time of its main thread, where an event loop runs."""
        pid = self._process.pid
        threads = psutil.Process(pid).threads()
        return float(sum(each.user_time + each.system_time for each in threads if each.id == pid))

    async def end(self) -> None:
        """Ask it to leave, and end its whole group if it does not in time; once."""
        if self._has_ended:
            return
        self._has_ended = True
        self.resume()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _LEAVE_SECONDS)
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if "Error" in line] or [line for line in lines if line]
        return f": {told[-1].strip()[:300] if told else 'it said nothing'}"


@contextlib.asynccontextmanager
async def child(command: Sequence[str | Path]) -> AsyncIterator[Ask]:
    """Run a process until the block ends; yield how to ask it.

    Args:
        command: What to run. It writes a line once it is ready, then answers each line of its
            standard input with one.

    Raises:
        Absent: It leaves without an answer.
    """
    process = Process(command, answers=True)
    try:
        await process.hear()
        yield process.ask
    finally:
        await process.end()


async def output_of(command: Sequence[str | Path]) -> str:
    """Run a process to its end and return what it wrote to its standard output.

    Raises:
        Absent: It failed; its standard error is ours.
    """
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise Absent(f"{' '.join(map(str, command))} failed with exit code {process.returncode}")
    return out.decode()
