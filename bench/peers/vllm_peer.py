"""vLLM for processors as a peer: its server for OpenAI's API, asked over the loopback.

Weights and computation are in bfloat16. Prefix caching is off, since no prompt comes twice.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from bench.peers.completions import completions, free_port, is_healthy
from bench.peers.environment import installed, peer_python
from bench.peers.peer import Turn
from bench.peers.weights import MODEL, huggingface_folder
from bench.process import Absent, Process

_FOLDER = ".venv-vllm"
_START_SECONDS = 600.0  # it compiles the model, the first time for minutes
_ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
_ARGUMENTS = (
    "--host", "127.0.0.1", "--served-model-name", MODEL, "--dtype", "bfloat16",
    "--max-model-len", "2048", "--max-num-seqs", "64", "--no-enable-prefix-caching",
)  # fmt: skip


class Vllm:
    """vLLM's server.

    Attributes:
        name: As tables show it.
        version: What runs.
        rivals: It is one of the packages that hocket is measured against.
    """

    def __init__(self) -> None:
        self.name = "vllm-bfloat16"
        self.version = ""
        self.rivals = True
        self._port = 0
        self._process: Process | None = None

    async def start(self) -> None:
        """Install it, start it and wait until it answers.

        Raises:
            Absent: That is impossible here.
        """
        python = await peer_python(_FOLDER, "requirements-vllm.txt")
        self.version = f"{installed(python, 'vllm-cpu')}, {installed(python, 'torch')}"
        self._port = free_port()
        command = [str(python), "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(huggingface_folder()), "--port", str(self._port), *_ARGUMENTS]
        self._process = Process(
            command,
            log=ROOT / _FOLDER / "server.log",
            environment=_ENVIRONMENT | _preloaded(python.parents[1]),
        )
        await self._process.wait_ready(lambda: is_healthy(self._port), _START_SECONDS)
        self._process.pause()

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens."""
        if self._process is None:
            raise Absent("not started")
        self._process.resume()
        try:
            options = {"model": MODEL, "min_tokens": new_tokens}
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


def _preloaded(environment: Path) -> dict[str, str]:
    """Return the variables that give it the libraries which its manual asks to load first."""
    there = [environment / "lib" / "libiomp5.so", *Path("/usr/lib").glob("*/libtcmalloc*.so.4")]
    names = [str(library) for library in there if library.exists()]
    path = f"{environment / 'bin'}:{os.environ['PATH']}"  # noqa: TID251 - ninja is found there
    return {"LD_PRELOAD": ":".join(names), "PATH": path}
