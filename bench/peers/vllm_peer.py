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
from bench.peers.process_peer import ProcessPeer
from bench.peers.weights import MODEL, huggingface_folder
from bench.process import Process

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


class Vllm(ProcessPeer):
    """vLLM's server."""

    def __init__(self) -> None:
        super().__init__("vllm-bfloat16", rivals=True)
        self._port = 0

    async def _launch(self) -> Process:
        python = await peer_python(_FOLDER, "requirements-vllm.txt")
        self.version = f"{installed(python, 'vllm-cpu')}, {installed(python, 'torch')}"
        self._port = free_port()
        command = [str(python), "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(huggingface_folder()), "--port", str(self._port), *_ARGUMENTS]
        return Process(
            command,
            log=ROOT / _FOLDER / "server.log",
            environment=_ENVIRONMENT | _preloaded(python.parents[1]),
        )

    async def _wait_ready(self, process: Process) -> None:
        await process.wait_ready(lambda: is_healthy(self._port), _START_SECONDS)

    async def _answer(
        self, _process: Process, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Turn:
        options = {"model": MODEL, "min_tokens": new_tokens}
        return await completions(self._port, prompts, new_tokens, options)


def _preloaded(environment: Path) -> dict[str, str]:
    """Return the variables that give it the libraries which its manual asks to load first."""
    there = [environment / "lib" / "libiomp5.so", *Path("/usr/lib").glob("*/libtcmalloc*.so.4")]
    names = [str(library) for library in there if library.exists()]
    path = f"{environment / 'bin'}:{os.environ['PATH']}"  # noqa: TID251 - ninja is found there
    return {"LD_PRELOAD": ":".join(names), "PATH": path}
