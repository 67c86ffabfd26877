"""Tokens per second of concurrent streams over gRPC, against `transformers.generate` one by one.

    python -m bench.baseline [--streams 32] [--rounds 3] [--dtype bfloat16] [--output FILE]

Same weights, same dtype, same prompts (about 105 tokens), same number of new tokens, greedy, end
tokens ignored. Server, client and baseline share the machine; the turns are interleaved (A B A B
...), so that only one of the two computes at a time. The figure is the ratio of the medians.
"""

import argparse
import os
import statistics
import sys
from dataclasses import asdict

from bench.command import deliver, origin, run, serving_parser
from bench.load import Turn, load
from bench.machine import ROOT
from bench.process import Ask, child
from bench.prompts import fresh, take, tokens_of
from bench.serving import server
from hocket.client import AsyncClient
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import resolve


async def _rate(ask: Ask, prompts: list[list[int]], new_tokens: int) -> float:
    """Run one turn of the baseline and return its tokens per second."""
    answer = await ask({"prompts": prompts, "new_tokens": new_tokens})
    return float(sum(map(len, answer["tokens"])) / sum(answer["seconds"]))


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave turns of both and return the result."""
    weights = resolve(ModelSourceConfig(model="smollm2")).path
    settings = ["runner.quantization=none", *arguments.set]  # the baseline has no int8
    script = ROOT / "bench" / "transformers_peer.py"
    command = [sys.executable, script, weights, arguments.dtype, str(os.cpu_count())]
    texts = fresh()
    turns: list[Turn] = []
    rates: list[float] = []
    async with (
        server(arguments.dtype, settings) as address,
        AsyncClient(address) as client,
        child(command) as ask,
    ):
        prompts = await tokens_of(client, take(texts, arguments.streams))
        await load(client, prompts, 16)  # warms both up
        await _rate(ask, prompts[:1], 16)
        for number in range(arguments.rounds):
            prompts = await tokens_of(client, take(texts, arguments.streams))
            turns.append(await load(client, prompts, arguments.new_tokens))
            rates.append(await _rate(ask, prompts[:2], arguments.new_tokens))
            print(
                f"round {number + 1}: hocket {turns[-1].rate:.0f} tok/s,"
                f" transformers {rates[-1]:.1f}",
                file=sys.stderr,
            )
    ours, theirs = statistics.median(t.rate for t in turns), statistics.median(rates)
    return {
        **origin("bench.baseline", "torch", "transformers", "grpcio", "protobuf"),
        "streams": arguments.streams,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "dtype": arguments.dtype,
        "ratio": round(ours / theirs, 2),
        "hocket_tokens_per_second": round(ours, 1),
        "transformers_tokens_per_second": round(theirs, 2),
        "turns": [asdict(turn) | {"rate": round(turn.rate, 1)} for turn in turns],
        "transformers_rates": [round(rate, 2) for rate in rates],
    }


def main() -> int:
    """Run as a command; exit 1 if the ratio misses `--at-least`."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--at-least", type=float, default=8.0, help="the ratio to reach")
    arguments = parser.parse_args()
    result = run(compare(arguments))
    deliver(result, arguments)
    return 0 if float(str(result["ratio"])) >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
