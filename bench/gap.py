"""How much a long prompt widens the gaps between the tokens of running streams.

    python -m bench.gap [--streams 8] [--prompt-tokens 2000] [--output FILE]

Streams are read token by token over gRPC. In quiet rounds they run alone; in the others a long
prompt arrives in their midst. The figure is the ratio of the 99th percentiles of the gaps between
tokens as the client sees them; quiet and disturbed rounds alternate.
"""

import argparse
import asyncio
import itertools
import statistics
import time

from bench.command import deliver, origin, run, serving_parser
from bench.prompts import fresh, of_length, take, tokens_of
from bench.samples import percentile
from bench.serving import server
from hocket.client import AsyncClient, Delta, Granularity


async def _gaps(
    client: AsyncClient, prompt: list[int], tokens: int, started: asyncio.Event
) -> list[float]:
    """Return the gaps of one stream in seconds; tell once its first tokens have come."""
    moments: list[float] = []
    async with client.stream(
        token_ids=prompt, granularity=Granularity.TOKEN, max_tokens=tokens, ignore_eos=True
    ) as events:
        async for event in events:
            if isinstance(event, Delta):
                moments.append(time.perf_counter())
                if len(moments) == 8:  # noqa: PLR2004 - by then it decodes
                    started.set()
    return [after - before for before, after in itertools.pairwise(moments[8:])]


async def _round(
    client: AsyncClient, prompts: list[list[int]], long: list[int] | None
) -> list[float]:
    started = [asyncio.Event() for _ in prompts]
    async with asyncio.TaskGroup() as group:
        streams = [
            group.create_task(_gaps(client, prompt, 160, event))
            for prompt, event in zip(prompts, started, strict=True)
        ]
        for event in started:
            await event.wait()
        if long is not None:
            group.create_task(client.generate(token_ids=long, max_tokens=1))
    return [gap for stream in streams for gap in stream.result()]


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Alternate quiet and disturbed rounds and return the result."""
    async with server("auto", arguments.set) as address, AsyncClient(address) as client:
        texts = fresh()

        async def prompts() -> list[list[int]]:
            return await tokens_of(client, take(texts, arguments.streams))

        async def long() -> list[int]:
            return of_length(list(itertools.chain(*await prompts())), arguments.prompt_tokens)

        await _round(client, await prompts(), None)  # warms it up
        quiet: list[float] = []
        disturbed: list[float] = []
        for _ in range(arguments.rounds):
            quiet.append(percentile(await _round(client, await prompts(), None), 99))
            gaps = await _round(client, await prompts(), await long())
            disturbed.append(percentile(gaps, 99))
    calm, widened = statistics.median(quiet), statistics.median(disturbed)
    return {
        **origin("bench.gap", "torch", "grpcio", "protobuf"),
        "streams": arguments.streams,
        "prompt_tokens": arguments.prompt_tokens,
        "ratio": round(widened / calm, 2),
        "quiet_p99_ms": [round(value * 1e3, 1) for value in quiet],
        "disturbed_p99_ms": [round(value * 1e3, 1) for value in disturbed],
    }


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    deliver(run(compare(arguments)), arguments)


if __name__ == "__main__":
    main()
