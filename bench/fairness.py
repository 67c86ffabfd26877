"""What single calls wait for beside a document of hundreds of segments.

    python -m bench.fairness [--rate 2] [--documents 3] [--segments 500] [--output FILE]

Single calls of one sentence arrive at random moments over a connection of their own, and their time
to the first sentence counts from the moment at which each was meant to be sent. They are measured

- `alone`: beside nothing;
- `room`: beside as many calls of their own as leave some seats of the batch free: nobody waits for
  a seat, but the steps are as large as they get;
- `fair`: beside documents that fill all seats and have more waiting, each in one call of
  `Transform`, which is one group for the scheduler;
- `first_come`: beside as many segments, sent as calls of their own: each is a group, so whoever
  came first is first.

The figures are the ratios of the 95th percentiles. Kinds take turns, in an order that moves on each
round.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from bench.command import deliver, origin, run, serving_parser
from bench.documents import TEMPLATE, sentences
from bench.load import fixed_length
from bench.prompts import TOPICS, Prompt, fresh
from bench.samples import percentile
from bench.serving import server
from bench.workload import Workload, bear
from hocket.client import (
    NO_RETRIES,
    AsyncClient,
    GenerationOptions,
    Granularity,
    SegmentFinished,
)

KINDS = ("alone", "room", "fair", "first_come")
_WARM_UP_SECONDS = 3.0


@dataclass(slots=True)
class Kind:
    """What was measured of one kind.

    Attributes:
        first_sentences: Seconds until the first sentence of each single call.
        segments: Segments of documents that ended.
        seconds: For which documents were written.
        errors: Calls and segments that failed.
    """

    first_sentences: list[float] = field(default_factory=list)
    segments: int = 0
    seconds: float = 0.0
    errors: int = 0

    def summary(self) -> dict[str, object]:
        """Return percentiles in milliseconds, and segments a second."""
        return {
            "calls": len(self.first_sentences),
            "ttfs_p50_ms": round(percentile(self.first_sentences, 50) * 1e3, 1),
            "ttfs_p95_ms": round(percentile(self.first_sentences, 95) * 1e3, 1),
            "segments_per_second": round(self.segments / self.seconds, 1),
            "errors": self.errors,
        }


def ratios(kinds: dict[str, Kind]) -> dict[str, float]:
    """Return how many times as long the slowest calls of each pair of kinds took."""
    tails = {name: percentile(kind.first_sentences, 95) for name, kind in kinds.items()}
    pairs = (("fair", "room"), ("first_come", "room"), ("fair", "alone"), ("room", "alone"))
    return {f"{one}_to_{other}": round(tails[one] / tails[other], 2) for one, other in pairs}


class Documents:
    """Documents without end, one after the other."""

    def __init__(self, client: AsyncClient, *, segments: int, tokens: int) -> None:
        """Make them.

        Args:
            client: Sends them.
            segments: Of each.
            tokens: That each segment's text has.
        """
        self._client = client
        self._segments = segments
        self._tokens = tokens
        self._texts = fresh()
        self.done = self.failed = 0

    async def as_transforms(self, at_once: int, window: int) -> None:
        """Send so many at a time, each as one call that may have so many segments in progress."""

        async def one(number: int) -> None:
            for seed in count(number, at_once):
                text = " ".join(sentences(self._segments, seed))
                async with self._client.transform(
                    text, template=TEMPLATE, max_tokens=self._tokens, cache=False, window=window
                ) as stream:
                    async for event in stream:
                        if isinstance(event, SegmentFinished):
                            self._count(is_good=event.error is None)

        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(one(number))

    async def as_calls(self, window: int) -> None:
        """Send each segment as a call of its own, so many at a time."""

        async def one() -> None:
            while True:
                await self._client.generate(next(self._texts), **self._options())
                self._count(is_good=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(window):
                group.create_task(one())

    def _options(self) -> GenerationOptions:
        return fixed_length({}, self._tokens, Granularity.SENTENCE)

    def _count(self, *, is_good: bool) -> None:
        self.done += is_good
        self.failed += not is_good


def _calls(tokens: int) -> Iterator[Prompt]:
    """Yield requests for one sentence without end, none like another."""
    options = fixed_length({}, tokens, Granularity.SENTENCE)
    for number in count(1):
        topic = TOPICS[number % len(TOPICS)]
        yield Prompt(text=f"{number}. One sentence on {topic}, please:", options=options)


async def _write(name: str, documents: Documents, arguments: argparse.Namespace) -> None:
    """Write what a kind of measurement has beside single calls."""
    match name:
        case "room":
            await documents.as_calls(arguments.seats - arguments.free_seats)
        case "fair":
            await documents.as_transforms(arguments.documents, arguments.window)
        case "first_come":
            await documents.as_calls(arguments.documents * arguments.window)


async def _measure(
    name: str, kind: Kind, address: str, arguments: argparse.Namespace, seed: int
) -> None:
    """Measure one kind for a while."""
    async with contextlib.AsyncExitStack() as stack:
        singles, client = [
            await stack.enter_async_context(
                AsyncClient(
                    address, retry=NO_RETRIES, options=(("grpc.use_local_subchannel_pool", 1),)
                )
            )
            for _ in range(2)
        ]
        documents = Documents(client, segments=arguments.segments, tokens=arguments.segment_tokens)
        begun = time.perf_counter()
        task = asyncio.create_task(_write(name, documents, arguments))
        try:
            outcome = await bear(
                [singles],
                Workload(
                    requests=_calls(arguments.call_tokens),
                    rate=arguments.rate,
                    seed=seed,
                    warm_up_seconds=_WARM_UP_SECONDS,
                    seconds=arguments.seconds,
                ),
            )
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    kind.first_sentences += [
        stream.first_sentence for stream in outcome.streams if stream.first_sentence is not None
    ]
    kind.segments += documents.done
    kind.seconds += time.perf_counter() - begun
    kind.errors += documents.failed + sum(stream.error is not None for stream in outcome.streams)


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure all kinds in turn and return the result."""
    kinds = {name: Kind() for name in KINDS}
    sets = [f"engine.max_num_seqs={arguments.seats}", *arguments.set]
    async with server("auto", sets) as address:
        for number in range(arguments.rounds):
            turn = number % len(KINDS)
            for name in (*KINDS[turn:], *KINDS[:turn]):
                await _measure(name, kinds[name], address, arguments, seed=number)
    return {
        **origin("bench.fairness", "torch", "grpcio", "protobuf"),
        "rate": arguments.rate,
        "seats": arguments.seats,
        "free_seats": arguments.free_seats,
        "documents": arguments.documents,
        "window": arguments.window,
        "segments": arguments.segments,
        "segment_tokens": arguments.segment_tokens,
        "call_tokens": arguments.call_tokens,
        **ratios(kinds),
        "kinds": {name: kind.summary() for name, kind in kinds.items()},
    }


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--rate", type=float, default=2.0, help="single calls a second")
    parser.add_argument("--seconds", type=float, default=11.0, help="of each turn, after warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seats", type=int, default=32, help="of the batch")
    parser.add_argument("--free-seats", type=int, default=8, help="that `room` leaves")
    parser.add_argument("--segments", type=int, default=500, help="of a document")
    parser.add_argument("--documents", type=int, default=3, help="at once")
    parser.add_argument("--window", type=int, default=32, help="segments of each in progress")
    parser.add_argument("--segment-tokens", type=int, default=40)
    parser.add_argument("--call-tokens", type=int, default=24)
    arguments = parser.parse_args()
    deliver(run(compare(arguments)), arguments)


if __name__ == "__main__":
    main()
