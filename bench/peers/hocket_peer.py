"""hocket as a side: its server as users start it, asked over gRPC on the loopback.

Streams are asked for token by token, as the peers' are, so that the first text means the same for
all. Sides that end in `-sentences` ask for whole sentences instead, which is what hocket does by
default.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence

from bench.peers.peer import Arrival, Stream, Turn, stream_of
from bench.peers.weights import MODEL
from bench.process import Absent
from bench.serving import WITHOUT_METRICS, Server, started
from hocket.client import AsyncClient, Delta, Finished, Granularity, Sentence, __version__

SIDES: dict[str, tuple[str, ...]] = {
    "hocket": (),
    "hocket-bfloat16": ("runner.quantization=none",),
    "hocket-torch": ("runner.kernels=torch",),
    "hocket-sentences": (),
    "hocket-bfloat16-sentences": ("runner.quantization=none",),
}
_ALWAYS = (f"model.model={MODEL}", WITHOUT_METRICS)


class Hocket:
    """hocket's server with some settings.

    Attributes:
        name: As tables show it, and a key of `SIDES`.
        version: What runs.
        rivals: False: it is what the others are rivals of.
    """

    def __init__(self, name: str, extra: Sequence[str]) -> None:
        """Run it with the settings of its name and with extra ones."""
        self.name = name
        self.version = f"hocket {__version__}"
        self.rivals = False
        self._settings = [*_ALWAYS, *SIDES[name], *extra]
        by_sentence = name.endswith("-sentences")
        self._granularity = Granularity.SENTENCE if by_sentence else Granularity.TOKEN
        self._server: Server | None = None
        self._client: AsyncClient | None = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            Absent: It does not start.
        """
        self._server = await self._stack.enter_async_context(started(self._settings))
        client = AsyncClient(self._server.address)
        self._client = await self._stack.enter_async_context(client)
        await self._client.tokenize("opens the connection")

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens."""
        client = self._client
        if client is None:
            raise Absent("not started")
        begun = time.perf_counter()
        answers = await asyncio.gather(
            *(self._follow(client, prompt, new_tokens, begun) for prompt in prompts)
        )
        return Turn(
            seconds=time.perf_counter() - begun,
            streams=tuple(itertools.starmap(self._stream, answers)),
        )

    def cpu_seconds(self) -> float:
        """Return the processor time that it used since it started."""
        return self._server.process.cpu_seconds() if self._server else 0.0

    async def stop(self) -> None:
        """Close the connection and end the server."""
        await self._stack.aclose()

    async def _follow(
        self, client: AsyncClient, prompt: Sequence[int], new_tokens: int, begun: float
    ) -> tuple[int, list[Arrival]]:
        arrivals: list[Arrival] = []
        async with client.stream(
            token_ids=list(prompt), granularity=self._granularity, max_tokens=new_tokens,
            min_tokens=new_tokens, ignore_eos=True, temperature=0.0,
        ) as events:  # fmt: skip
            async for event in events:
                match event:
                    case Delta(text=text) | Sentence(text=text):
                        arrivals.append(Arrival(time.perf_counter() - begun, text))
                    case Finished(usage=usage):
                        return usage.completion_tokens, arrivals
        raise RuntimeError("a stream ended without Finished")

    def _stream(self, tokens: int, arrivals: Sequence[Arrival]) -> Stream:
        is_whole = self._granularity is Granularity.SENTENCE
        return stream_of(tokens, arrivals, is_whole=is_whole)
