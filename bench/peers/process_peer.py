"""A side that is a process of its own, stopped except during its turns."""

import abc
from collections.abc import Sequence

from bench.peers.peer import Turn
from bench.process import Absent, Process


class ProcessPeer(abc.ABC):
    """A peer whose process uses no processor time while others take their turns.

    Attributes:
        name: As tables show it.
        version: What runs, once started.
        rivals: Whether it is one of the packages that hocket is measured against.
    """

    def __init__(self, name: str, *, rivals: bool) -> None:
        self.name = name
        self.version = ""
        self.rivals = rivals
        self._process: Process | None = None

    async def start(self) -> None:
        """Install it, start it, wait until it is ready, and stop it until its first turn.

        Raises:
            Absent: That is impossible here.
        """
        self._process = await self._launch()
        await self._wait_ready(self._process)
        self._process.pause()

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens.

        Raises:
            Absent: It has not been started.
        """
        if self._process is None:
            raise Absent("not started")
        with self._process.awake():
            return await self._answer(self._process, prompts, new_tokens)

    def cpu_seconds(self) -> float:
        """Return the processor time that it used since it started."""
        return self._process.cpu_seconds() if self._process else 0.0

    async def stop(self) -> None:
        """End it; without effect if it never started."""
        if self._process:
            await self._process.end()

    @abc.abstractmethod
    async def _launch(self) -> Process:
        """Install it and return its process, which need not be ready.

        Raises:
            Absent: Something cannot be installed.
        """

    @abc.abstractmethod
    async def _wait_ready(self, process: Process) -> None:
        """Wait until turns can begin.

        Raises:
            Absent: It left, or was not ready in time.
        """

    @abc.abstractmethod
    async def _answer(
        self, process: Process, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Turn:
        """Answer all prompts at once while the process goes on."""
