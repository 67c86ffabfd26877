"""OpenVINO GenAI as a peer: continuous batching in a process that is handed token ids.

There is no server in front and nothing is sent, so the comparison is in its favour. When tokens
were there is told by the process itself; they become text after the turn.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from bench.peers.environment import peer_python
from bench.peers.peer import Arrival, Stream, Turn, stream_of
from bench.peers.weights import gguf_file, tokenizer
from bench.process import Absent, Process
from hocket.server.text.detokenizer import Detokenizer

_FOLDER = ".venv-peers"
_START_SECONDS = 120.0


class OpenVino:
    """OpenVINO GenAI with one type of weights.

    Attributes:
        name: As tables show it.
        version: What runs.
        rivals: It is one of the packages that hocket is measured against.
    """

    def __init__(self, kind: str) -> None:
        """Run it with weights of a type: `f16` or `q8_0`."""
        self.name = f"openvino-{kind}"
        self.version = ""
        self.rivals = True
        self._kind = kind
        self._tokenizer = tokenizer()
        self._process: Process | None = None

    async def start(self) -> None:
        """Install it, start it and wait until it is ready.

        Raises:
            Absent: That is impossible here.
        """
        python = await peer_python(_FOLDER, "requirements-openvino.txt")
        engine = Path(__file__).with_name("openvino_engine.py")
        self._process = Process(
            [str(python), str(engine), str(gguf_file(self._kind))],
            log=ROOT / _FOLDER / f"{self.name}.log",
            answers=True,
        )
        ready = await self._process.hear(_START_SECONDS)
        self.version = f"openvino-genai {ready['version']}"
        self._process.pause()

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens."""
        if self._process is None:
            raise Absent("not started")
        self._process.resume()
        try:
            answer = await self._process.ask({"prompts": prompts, "new_tokens": new_tokens})
        finally:
            self._process.pause()
        return Turn(seconds=answer["seconds"], streams=tuple(map(self._stream, answer["streams"])))

    def cpu_seconds(self) -> float:
        """Return the processor time that it used since it started."""
        return self._process.cpu_seconds() if self._process else 0.0

    async def stop(self) -> None:
        """End it."""
        if self._process:
            await self._process.end()

    def _stream(self, steps: Sequence[tuple[float, Sequence[int]]]) -> Stream:
        detokenizer = Detokenizer(self._tokenizer)
        arrivals = [
            Arrival(seconds, "".join(map(detokenizer.push, token_ids)))
            for seconds, token_ids in steps
        ]
        return stream_of(sum(len(token_ids) for _, token_ids in steps), arrivals)
