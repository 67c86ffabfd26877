"""hocket alone, from one stream to many: how fast, how soon, how evenly, and how near the bound.

    python -m bench.overview [--streams 1 8 32 64] [--rounds 4] [--output FILE] [--chart FILE]

Each turn sends so many fresh prompts of about 105 tokens at once over gRPC and reads 128 new tokens
of each. Turns read whole sentences and single tokens by turns: the first tell the time to the first
sentence, the others the time to the first token and the gaps between tokens. Drafts are off: these
prompts make small models repeat themselves, and the roofline knows no drafts. How late the server's
event loop was during the turns is what its metric says. The engine without gRPC takes a turn in
each round, so that the cost of the front is a ratio of one run. The roofline is computed from what
the machine read and multiplied just before and just after.

Prints a table; the bound of a decode step and of the whole job is written as shares of it.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import in_process
from bench.command import deliver, origin, run, serving_parser
from bench.load import burst
from bench.metrics import Histogram
from bench.overview_report import chart, table
from bench.process import Ask, child, output_of
from bench.prompts import fresh, take, tokens_of
from bench.roofline import Rates, Roofline, Size
from bench.samples import milliseconds, percentile
from bench.serving import WITH_METRICS, Server, started
from hocket.client import AsyncClient, Granularity

_SHORT_TURNS = 4  # a turn of fewer streams is repeated until so many have run


@dataclass(slots=True)
class Tally:
    """What the turns of one number of streams brought. Times are in seconds.

    `turns` holds what was read (`sentence` or `token`) with tokens per second; `lag` how late the
    server's event loop was.
    """

    turns: list[tuple[str, float]] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    first_sentences: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    lag: Histogram = field(default_factory=Histogram)

    def rates(self) -> dict[str, float]:
        """Return the median tokens per second by what was read, `sentence` or `token`."""
        by_kind: dict[str, list[float]] = defaultdict(list)
        for kind, rate in self.turns:
            by_kind[kind].append(rate)
        return {kind: statistics.median(found) for kind, found in by_kind.items()}

    def summary(self) -> dict[str, object]:
        """Return medians and percentiles."""
        return {
            "tokens_per_second": {kind: round(rate, 1) for kind, rate in self.rates().items()},
            "turns": [[name, round(rate, 1)] for name, rate in self.turns],
            "ttft_ms": milliseconds(self.first_tokens),
            "ttfs_ms": milliseconds(self.first_sentences),
            "gap_ms": milliseconds(self.gaps),
            "loop_lag_ms": self.lag.milliseconds(),
            "mean_step_ms": round(statistics.median(self.steps) * 1e3, 2),
            "client_cpu_share": round(statistics.median(self.client), 3),
        }


async def turn(
    serving: Server,
    client: AsyncClient,
    texts: Iterator[str],
    streams: int,
    new_tokens: int,
    granularity: Granularity,
    tally: Tally,
) -> None:
    """Send so many prompts at once, as often as it takes to have enough of them, and note it."""
    for _ in range(max(1, _SHORT_TURNS // streams)):
        prompts = await tokens_of(client, take(texts, streams))
        before = await serving.metrics()
        done = await burst(client, prompts, new_tokens, granularity)
        after = await serving.metrics()
        tally.turns.append((granularity.value, done.rate))
        tally.client.append(done.client_cpu_share)
        tally.gaps += [gap for stream in done.streams for gap in stream.gaps]
        tally.first_sentences += [s.first_sentence for s in done.streams if s.first_sentence]
        if granularity is Granularity.TOKEN:
            tally.first_tokens += [s.first_token for s in done.streams if s.first_token]
        seconds, steps = (
            after.values[name] - before.values[name]
            for name in ("hocket_step_seconds_sum", "hocket_step_seconds_count")
        )
        tally.steps.append(seconds / max(steps, 1))
        tally.lag += after.loop_lag - before.loop_lag


async def probe() -> Rates:
    """Measure the machine in a process of its own."""
    found = json.loads(await output_of([sys.executable, "-m", "bench.probe"]))
    return Rates(**found["rates"])


def decode_shares(steps: Sequence[dict[str, Any]], bound: Roofline, streams: int) -> list[float]:
    """Return for each step that only wrote tokens, for all streams, how near it came to the bound.

    Args:
        steps: As `in_process.Step` has them.
        bound: Of model and machine.
        streams: How many were written.
    """
    return [
        bound.decode_step(streams, step["context"] / streams) / step["total"]
        for step in steps
        if step["streams"] == streams and not step["prompt_tokens"]
    ]


def front_costs(
    served: Sequence[tuple[str, float]], engine: Sequence[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return which share of the engine's tokens per second the front costs, by what is read.

    `best` compares the fastest turn of either side: what else runs on the machine only ever slows
    a turn, so that this is what the front itself costs. `median` is the median over the rounds.

    Args:
        served: For each round what was read over gRPC, and tokens per second.
        engine: For each round what the engine brought by itself.
    """
    alone = [job["tokens"] / job["seconds"] for job in engine]
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (name, rate), own in zip(served, alone, strict=True):
        found[name].append((rate, own))
    return {
        name: {
            "best": round(1 - max(rate for rate, _ in pairs) / max(alone), 3),
            "median": round(statistics.median(1 - rate / own for rate, own in pairs), 3),
        }
        for name, pairs in found.items()
    }


async def starts(settings: Sequence[str], count: int) -> list[float]:
    """Start a server so often, one after the other; return the seconds until it served."""
    found = []
    for _ in range(count):
        async with started(settings) as serving:
            found.append(serving.start_seconds)
    return found


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all turns and return the result."""
    most = max(arguments.streams)
    room = [f"{key}={max(32, most)}" for key in ("engine.max_num_seqs", "admission.max_running")]
    settings = [*room, "engine.speculate_up_to=0", *arguments.set]
    begins = await starts([WITH_METRICS, *settings], arguments.starts - 1)
    tallies = {streams: Tally() for streams in arguments.streams}
    engine: list[dict[str, Any]] = []
    texts, new_tokens = fresh(), arguments.new_tokens
    async with (
        started([WITH_METRICS, *settings]) as serving,
        AsyncClient(serving.address) as client,
    ):
        begins.append(serving.start_seconds)
        memory = [serving.process.resident_mib]
        model = (await client.list_models())[0]
        async with child(in_process.command(settings)) as ask:
            await turn(serving, client, texts, 8, 8, Granularity.TOKEN, Tally())
            prompts = await tokens_of(client, take(texts, arguments.engine_streams))
            await _engine_turn(ask, prompts, 8)
            rates = await probe()
            for number in range(arguments.rounds):
                granularity = (Granularity.SENTENCE, Granularity.TOKEN)[number % 2]
                for streams, tally in tallies.items():
                    await turn(serving, client, texts, streams, new_tokens, granularity, tally)
                prompts = await tokens_of(client, take(texts, arguments.engine_streams))
                engine.append(await _engine_turn(ask, prompts, new_tokens))
                print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
            rates = rates.better(await probe())
            memory.append(serving.process.resident_mib)
    prompt = statistics.median(map(len, prompts))
    bound = Roofline(size=Size(**engine[0]["size"]), rates=rates, is_int8=model.dtype == "int8")
    alone = statistics.median(job["tokens"] / job["seconds"] for job in engine)
    decode = [
        share
        for job in engine
        for share in decode_shares(job["steps"], bound, arguments.engine_streams)
    ]
    served = tallies.get(arguments.engine_streams)
    return {
        **origin("bench.overview", "torch", "grpcio", "protobuf"),
        "model": model.name,
        "dtype": model.dtype,
        "prompt_tokens": prompt,
        "new_tokens": arguments.new_tokens,
        "rounds": arguments.rounds,
        "settings": settings,
        "streams": {
            str(streams): tally.summary() | _bounded(tally, bound, streams, prompt, arguments)
            for streams, tally in tallies.items()
        },
        "engine": {
            "streams": arguments.engine_streams,
            "tokens_per_second": round(alone, 1),
            "decode_step_ms": _decode_milliseconds(engine, arguments.engine_streams),
            "decode_share_of_roofline": round(percentile(decode, 50), 3) if decode else None,
            "front_cost": front_costs(served.turns, engine) if served else {},
        },
        "resident_mib": {"before": round(memory[0]), "after": round(memory[1])},
        "start_seconds": {
            "median": round(statistics.median(begins), 2),
            "all": [round(seconds, 2) for seconds in begins],
        },
        "rates": asdict(rates),
    }


async def _engine_turn(ask: Ask, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    return await ask({"prompts": prompts, "new_tokens": new_tokens})


def _decode_milliseconds(engine: Sequence[dict[str, Any]], streams: int) -> dict[str, float] | None:
    return milliseconds(
        [
            step["total"]
            for job in engine
            for step in job["steps"]
            if step["streams"] == streams and not step["prompt_tokens"]
        ]
    )


def _bounded(
    tally: Tally, bound: Roofline, streams: int, prompt: float, arguments: argparse.Namespace
) -> dict[str, object]:
    """Return the most tokens per second that the machine allows, and the share reached of it."""
    most = streams * arguments.new_tokens / bound.job(streams, prompt, arguments.new_tokens)
    return {
        "roofline_tokens_per_second": round(most, 1),
        "share_of_roofline": {kind: round(rate / most, 3) for kind, rate in tally.rates().items()},
    }


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument(
        "--engine-streams", type=int, default=32, help="of the engine alone; at least 4"
    )
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=4, help="even, so that both kinds have some")
    parser.add_argument("--starts", type=int, default=3, help="how often the server is started")
    parser.add_argument("--chart", type=Path, help="where to write a chart as SVG")
    arguments = parser.parse_args()
    result = run(measure(arguments))
    deliver(result, arguments, is_printed=False)
    if arguments.chart:
        arguments.chart.write_text(chart(result).svg(), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
