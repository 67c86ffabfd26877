"""A document in one call against the same sentences in calls of their own, through one server.

    python -m bench.documents [--sentences 200] [--new-tokens 32] [--rounds 3] [--output FILE]

`Transform` with a template; the very same prompts by `Generate`, one after the other; and by as
many concurrent `Generate` calls as the document has places, as a caller would do by hand.
Greedy; the cache of segments and drafts are off, the cache of prefixes is on for all three. Texts
must be the same, or nothing is reported. The turns one after the other take longest, so that they
are done once, on the first round's document.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from bench.command import deliver, origin, run, serving_parser
from bench.prompts import TOPICS
from bench.serving import WITHOUT_METRICS, started
from hocket.client import AsyncClient, Granularity

TEMPLATE = "Say the same in other words: {segment}"
_SHAPES = (
    "In year {number} the people of the valley talked about {topic} all winter.",
    "Nobody knew why {topic} mattered so much to the {number}th visitor.",
    "She kept {number} drawings of {topic} in a box under the stairs.",
    "There is no better teacher than {topic}, he wrote on page {number}.",
)


def sentences(count: int, seed: int) -> list[str]:
    """Return so many sentences, those of one seed unlike those of another."""
    return [
        _SHAPES[index % len(_SHAPES)].format(
            number=seed * 10_000 + index, topic=TOPICS[index % len(TOPICS)]
        )
        for index in range(count)
    ]


async def transformed(
    client: AsyncClient, texts: Sequence[str], new_tokens: int
) -> tuple[float, list[str]]:
    """Return the seconds that a document took, and its segments' texts."""
    begun = time.perf_counter()
    async with client.transform(
        " ".join(texts), template=TEMPLATE, max_tokens=new_tokens, cache=False
    ) as stream:
        result = await stream.result()
    seconds = time.perf_counter() - begun
    if result.failed or len(result.segments) != len(texts):
        raise SystemExit(f"{len(result.failed)} of {len(result.segments)} segments failed")
    return seconds, [segment.text for segment in result.segments]


async def called(
    client: AsyncClient, texts: Sequence[str], new_tokens: int, at_once: int
) -> tuple[float, list[str]]:
    """Return the same of calls of their own, so many at once."""
    room = asyncio.Semaphore(at_once)

    async def one(text: str) -> str:
        async with room:
            answer = await client.generate(
                messages=[{"role": "user", "content": TEMPLATE.format(segment=text)}],
                max_tokens=new_tokens,
                granularity=Granularity.SENTENCE,
            )
        return answer.text.strip()

    begun = time.perf_counter()
    written = await asyncio.gather(*(one(text) for text in texts))
    return time.perf_counter() - begun, list(written)


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Run all turns and return the result."""
    settings = ["engine.speculate_up_to=0", WITHOUT_METRICS, *arguments.set]
    documents: list[float] = []
    by_hand: list[float] = []
    one_by_one = 0.0
    async with started(settings) as server, AsyncClient(server.address) as client:
        await transformed(client, sentences(arguments.at_once, 0), 8)
        for number in range(1, arguments.rounds + 1):
            texts = sentences(arguments.sentences, number)
            seconds, whole = await transformed(client, texts, arguments.new_tokens)
            documents.append(seconds)
            seconds, apart = await called(client, texts, arguments.new_tokens, arguments.at_once)
            by_hand.append(seconds)
            _check(whole, apart)
            if number == 1:
                one_by_one, apart = await called(client, texts, arguments.new_tokens, 1)
                _check(whole, apart)
            print(
                f"round {number}: document {documents[-1]:.1f} s,"
                f" by hand {by_hand[-1]:.1f} s, one by one {one_by_one:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    own = statistics.median(documents)
    return {
        **origin("bench.documents", "torch", "grpcio", "protobuf"),
        "sentences": arguments.sentences,
        "new_tokens": arguments.new_tokens,
        "at_once": arguments.at_once,
        "document_seconds": [round(value, 2) for value in documents],
        "by_hand_seconds": [round(value, 2) for value in by_hand],
        "one_by_one_seconds": round(one_by_one, 2),
        "one_by_one_over_document": round(one_by_one / own, 2),
        "by_hand_over_document": round(statistics.median(by_hand) / own, 2),
    }


def _check(whole: Sequence[str], apart: Sequence[str]) -> None:
    different = sum(a != b for a, b in zip(whole, apart, strict=True))
    if different:
        raise SystemExit(f"{different} of {len(whole)} texts differ: this is no measurement")


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    deliver(run(compare(arguments)), arguments)


if __name__ == "__main__":
    main()
