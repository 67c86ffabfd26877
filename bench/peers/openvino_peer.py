"""OpenVINO GenAI as a peer: continuous batching in a process that is handed token ids.

There is no server in front and nothing is sent, so the comparison is in its favour. When tokens
were there is told by the process itself; they become text after the turn.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from bench.peers.environment import peer_python
from bench.peers.peer import Arrival, Stream, Turn, stream_of
from bench.peers.process_peer import ProcessPeer
from bench.peers.weights import gguf_file, tokenizer
from bench.process import Process
from hocket.server.text.detokenizer import Detokenizer

_FOLDER = ".venv-peers"
_START_SECONDS = 120.0


class OpenVino(ProcessPeer):
    """OpenVINO GenAI with one type of weights."""

    def __init__(self, kind: str) -> None:
        """Run it with weights of a type: `f16` or `q8_0`."""
        super().__init__(f"openvino-{kind}", rivals=True)
        self._kind = kind
        self._tokenizer = tokenizer()

    async def _launch(self) -> Process:
        python = await peer_python(_FOLDER, "requirements-openvino.txt")
        engine = Path(__file__).with_name("openvino_engine.py")
        return Process(
            [str(python), str(engine), str(gguf_file(self._kind))],
            log=ROOT / _FOLDER / f"{self.name}.log",
            answers=True,
        )

    async def _wait_ready(self, process: Process) -> None:
        ready = await process.hear(_START_SECONDS)
        self.version = f"openvino-genai {ready['version']}"

    async def _answer(
        self, process: Process, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> Turn:
        answer = await process.ask({"prompts": prompts, "new_tokens": new_tokens})
        return Turn(seconds=answer["seconds"], streams=tuple(map(self._stream, answer["streams"])))

    def _stream(self, steps: Sequence[tuple[float, Sequence[int]]]) -> Stream:
        detokenizer = Detokenizer(self._tokenizer)
        arrivals = [
            Arrival(seconds, "".join(map(detokenizer.push, token_ids)))
            for seconds, token_ids in steps
        ]
        return stream_of(sum(len(token_ids) for _, token_ids in steps), arrivals)
