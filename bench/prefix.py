"""How much sooner the first token comes where most of the prompt is in the prefix cache.

    python -m bench.prefix [--prefix-tokens 1000] [--rounds 7] [--output FILE]

Over gRPC, one request at a time. In each round a prefix of random tokens that nobody sent before is
followed by a few more: the first request computes all of it, the second, with another end, finds
the prefix. The figure is the ratio of the medians of the times to the first token as the client
sees them.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path

from bench.machine import description
from bench.serving import server
from hocket.client import AsyncClient, Delta, Granularity, Started

_TAIL_TOKENS = 16
_TOKEN_IDS = range(1_000, 30_000)  # ordinary ones in every vocabulary that is served


async def _first_token(client: AsyncClient, prompt: list[int]) -> tuple[float, int]:
    """Return the seconds to the first token, and the tokens that were found in the cache."""
    begun, cached = time.perf_counter(), 0
    async with client.stream(
        token_ids=prompt, granularity=Granularity.TOKEN, max_tokens=2, ignore_eos=True
    ) as events:
        async for event in events:
            if isinstance(event, Started):
                cached = event.cached_tokens
            if isinstance(event, Delta):
                return time.perf_counter() - begun, cached
    raise RuntimeError("a stream ended without a token")


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Alternate requests that miss and that hit and return the result."""
    rng = random.Random(1)

    def tokens(count: int) -> list[int]:
        return rng.choices(_TOKEN_IDS, k=count)

    async with server("auto", arguments.set) as address, AsyncClient(address) as client:
        await _first_token(client, tokens(arguments.prefix_tokens))  # warms it up
        cold: list[float] = []
        warm: list[float] = []
        found = 0
        for _ in range(arguments.rounds):
            prefix = tokens(arguments.prefix_tokens)
            for times in (cold, warm):
                seconds, found = await _first_token(client, prefix + tokens(_TAIL_TOKENS))
                times.append(seconds)
    return {
        "command": " ".join(["python", "-m", "bench.prefix", *sys.argv[1:]]),
        "prefix_tokens": arguments.prefix_tokens,
        "cached_tokens": found,
        "ratio": round(statistics.median(cold) / statistics.median(warm), 1),
        "cold_ms": [round(value * 1e3, 1) for value in cold],
        "warm_ms": [round(value * 1e3, 1) for value in warm],
        "machine": description("torch", "grpcio", "protobuf"),
    }


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prefix-tokens", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(compare(arguments)), indent=2) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
