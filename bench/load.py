"""A load for any hocket server, and how it bore it.

    python -m bench.load --streams 32 --duration 20
    python -m bench.load --target host:50051 --tls --token-file key --rate 4 --requests 200

A closed loop keeps `--streams` requests in progress, each following on the last. An open loop sends
`--rate` requests a second at random moments, whether or not those before have ended; its latencies
count from the moment at which a request was meant to be sent, so that a server that holds up the
sender is not let off. What was meant to be sent during the warm-up is not counted.

By whole sentences (`--granularity sentence`) the time to the first sentence is measured; token by
token (`--granularity token`) the gaps between tokens. Without `--target` a server is started.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.command import deliver, origin, run, serving_parser
from bench.prompts import Prompt, fresh, from_file, questions, tokens_of
from bench.streams import Stream, follow
from bench.target import add_target_flags, connected
from bench.workload import Workload, bear
from hocket.client import AsyncClient, GenerationOptions, Granularity

_PROMPTS = 64  # of a given length; they come again


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Streams that were begun together.

    Attributes:
        streams: In the order of their prompts; none of them failed.
        seconds: From the first request sent to the last stream's end.
        client_cpu_share: The client's share of one core during that time.
    """

    streams: tuple[Stream, ...]
    seconds: float
    client_cpu_share: float

    @property
    def tokens(self) -> int:
        """Written by all streams."""
        return sum(stream.tokens for stream in self.streams)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of the load.

    Attributes:
        seconds: From the first request sent to the last stream's end.
        tokens: Written by all streams.
        first_token: Median over the streams of the server's time to the first token, in seconds.
        first_sentence: Median of the time until a sentence was received, in seconds.
        client_cpu_share: The client's share of one core during the turn.
    """

    seconds: float
    tokens: int
    first_token: float
    first_sentence: float
    client_cpu_share: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


async def burst(
    client: AsyncClient,
    prompts: Sequence[list[int]],
    new_tokens: int,
    granularity: Granularity = Granularity.SENTENCE,
) -> Burst:
    """Send all prompts at once and wait for all streams.

    Raises:
        RuntimeError: A stream failed.
    """
    begun, used = time.perf_counter(), time.process_time()
    requests = [fixed_length({"token_ids": ids}, new_tokens, granularity) for ids in prompts]
    streams = await asyncio.gather(*(follow(client, request) for request in requests))
    seconds = time.perf_counter() - begun
    if failed := [stream.error for stream in streams if stream.error]:
        raise RuntimeError(f"{len(failed)} streams failed, the first with {failed[0]}")
    return Burst(
        streams=tuple(streams),
        seconds=seconds,
        client_cpu_share=(time.process_time() - used) / seconds,
    )


async def load(client: AsyncClient, prompts: list[list[int]], new_tokens: int) -> Turn:
    """Send all prompts at once, read whole sentences, and wait for all streams.

    Raises:
        RuntimeError: A stream failed.
    """
    done = await burst(client, prompts, new_tokens)
    return Turn(
        seconds=done.seconds,
        tokens=done.tokens,
        first_token=statistics.median(stream.first_token or 0.0 for stream in done.streams),
        first_sentence=statistics.median(stream.first_sentence or 0.0 for stream in done.streams),
        client_cpu_share=done.client_cpu_share,
    )


def fixed_length(
    prompt: GenerationOptions, new_tokens: int, granularity: Granularity
) -> GenerationOptions:
    """Return a request that writes exactly so many tokens."""
    return {
        **prompt,
        "granularity": granularity,
        "max_tokens": new_tokens,
        "min_tokens": new_tokens,
        "ignore_eos": True,
    }


async def _prompts(client: AsyncClient, arguments: argparse.Namespace) -> Iterable[Prompt]:
    """Return those of the file, those of the length asked for, or fresh ones without end."""
    if arguments.prompts:
        return from_file(arguments.prompts)
    if arguments.prompt_tokens is None:
        return (Prompt(text=text, options={}) for text in fresh())
    tokens = await tokens_of(client, questions(_PROMPTS), arguments.prompt_tokens)
    return [Prompt(options={"token_ids": ids}) for ids in tokens]


def _request(prompt: Prompt, arguments: argparse.Namespace) -> Prompt:
    """Return what is sent for a prompt."""
    length = prompt.options.get("max_tokens") or arguments.max_tokens
    options = fixed_length(prompt.options, length, Granularity(arguments.granularity))
    if not arguments.ignore_eos:
        options |= {"min_tokens": 0, "ignore_eos": False}
    return Prompt(text=prompt.text, options=options)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send the load that the arguments describe and return what came of it."""
    async with connected(arguments) as clients:
        prompts = await _prompts(clients[0], arguments)
        load_ = Workload(
            requests=(_request(prompt, arguments) for prompt in prompts),
            streams=arguments.streams,
            rate=arguments.rate,
            seed=arguments.seed,
            warm_up_seconds=arguments.warm_up,
            seconds=arguments.duration,
            count=arguments.requests,
        )
        outcome = await bear(clients, load_)
    return {
        **origin("bench.load", "grpcio", "protobuf"),
        "loop": "closed" if arguments.rate is None else "open",
        "streams": arguments.streams,
        "rate": arguments.rate,
        "granularity": arguments.granularity,
        "max_tokens": arguments.max_tokens,
        **outcome.summary(),
    }


def table(result: dict[str, Any]) -> str:
    """Return a result for people."""
    counted = (
        f"{result['requests']} requests in {result['seconds']:.1f} s:"
        f" {result['tokens_per_second']:.0f} tokens/s, {result['requests_per_second']:.2f}"
        f" requests/s; the client took {result['client_cpu_share']:.0%} of a core"
    )
    lines = [
        counted,
        f"{'milliseconds':<24}{'p50':>10}{'p90':>10}{'p99':>10}",
    ]
    names = {
        "ttft_ms": "first token",
        "ttfs_ms": "first sentence",
        "gap_ms": "between tokens",
        "latency_ms": "whole request",
    }
    for key, name in names.items():
        if found := result[key]:
            lines.append(
                f"{name:<24}" + "".join(f"{found[p]:>10.1f}" for p in ("p50", "p90", "p99"))
            )
    lines += [f"{count} requests failed: {status}" for status, count in result["errors"].items()]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = serving_parser(__doc__)
    add_target_flags(parser)
    loop = parser.add_argument_group("load").add_mutually_exclusive_group()
    loop.add_argument("--streams", type=int, help="closed loop (default: 32 streams)")
    loop.add_argument("--rate", type=float, help="open loop: requests a second")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: 0)")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds (default: 3)")
    parser.add_argument("--duration", type=float, help="seconds after it (default: 20)")
    parser.add_argument("--requests", type=int, help="most requests after it")
    prompts = parser.add_argument_group("prompts").add_mutually_exclusive_group()
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line, as JSON")
    prompts.add_argument("--prompt-tokens", type=int, help="length of the built-in prompts")
    parser.add_argument("--max-tokens", type=int, default=128, help="to write (default: 128)")
    parser.add_argument(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write exactly --max-tokens (default: yes)",
    )
    parser.add_argument(
        "--granularity", choices=[Granularity.TOKEN, Granularity.SENTENCE], default="sentence"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main() -> int:
    """Run as a command; exit 1 if a request failed."""
    arguments = _parser().parse_args()
    if arguments.rate is None and arguments.streams is None:
        arguments.streams = 32
    if arguments.duration is None and arguments.requests is None:
        arguments.duration = 20.0
    result = run(measure(arguments))
    deliver(result, arguments, is_printed=arguments.json)
    if not arguments.json:
        print(table(result))
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
