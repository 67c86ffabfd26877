"""Tokens per second of concurrent streams over gRPC, against `transformers.generate` one by one.

    python bench/load.py [--streams 32] [--rounds 3] [--dtype bfloat16] [--output FILE]

Same weights, same dtype, same prompts (about 100 tokens), same number of new tokens, greedy, end
tokens ignored. Server, client and baseline share the machine; the turns are interleaved (A B A B
...), so that only one of the two computes at a time. The figure is the ratio of the medians.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import description

from hocket.client import AsyncClient, Finished, Granularity, Sentence
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import resolve

HERE = Path(__file__).resolve().parent
TOPICS = (
    "lighthouses", "bicycles", "rain", "bread", "chess", "maps", "violins", "honey", "clocks",
    "bridges", "owls", "glass", "tea", "volcanoes", "kites", "salt",
)  # fmt: skip
QUESTION = (
    "You are asked to explain {topic} to a group of curious visitors who have never heard about"
    " them. Begin with what everybody can see, go on with how it came to be, and say what is still"
    " unknown. Use short sentences, give one example from daily life and one from history, avoid"
    " lists, avoid numbers, and close with a question that the visitors could take home and think"
    " about in the evening. This is request number {number} of the day, so please take care to"
    " answer it freshly, in your own words, as if nobody had ever asked you before."
)


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


async def _stream(
    client: AsyncClient, prompt: list[int], new_tokens: int
) -> tuple[int, float, float]:
    begun, sentence = time.perf_counter(), None
    async with client.stream(
        token_ids=prompt, granularity=Granularity.SENTENCE, max_tokens=new_tokens,
        min_tokens=new_tokens, ignore_eos=True,
    ) as events:  # fmt: skip
        async for event in events:
            match event:
                case Sentence():
                    sentence = sentence or time.perf_counter() - begun
                case Finished(usage=usage, timings=timings):
                    return usage.completion_tokens, timings.first_token or 0.0, sentence or 0.0
    raise RuntimeError("a stream ended without Finished")


async def load(client: AsyncClient, prompts: list[list[int]], new_tokens: int) -> Turn:
    """Send all prompts at once and wait for all streams."""
    begun, used = time.perf_counter(), time.process_time()
    done = await asyncio.gather(*(_stream(client, prompt, new_tokens) for prompt in prompts))
    seconds = time.perf_counter() - begun
    return Turn(
        seconds=seconds,
        tokens=sum(tokens for tokens, _, _ in done),
        first_token=statistics.median(first for _, first, _ in done),
        first_sentence=statistics.median(first for _, _, first in done),
        client_cpu_share=(time.process_time() - used) / seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that runs.

    Attributes:
        address: Where it listens.
        metrics_address: Where its metrics are; empty if it has none.
        pid: Its process.
    """

    address: str
    metrics_address: str
    pid: int


@contextlib.asynccontextmanager
async def process(program: list[str], settings: list[str]) -> AsyncIterator[Running]:
    """Run a server's program on a free loopback port until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, *program, "--address", "127.0.0.1:0"]
        command += ["--ready-file", str(ready)]
        for setting in ["log.level=warning", "drain.delay_seconds=0", *settings]:
            command += ["--set", setting]
        running = subprocess.Popen(command)
        try:
            async with asyncio.timeout(600):
                while not ready.exists():
                    if running.poll() is not None:
                        raise SystemExit(f"the server left with exit code {running.returncode}")
                    await asyncio.sleep(0.05)
            yield Running(**json.loads(ready.read_text()))
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=60)


@contextlib.asynccontextmanager
async def server(dtype: str, extra: list[str]) -> AsyncIterator[str]:
    """Run a server on a free loopback port; yield its address."""
    settings = [f"runner.dtype={dtype}", "metrics.enabled=false", *extra]
    async with process(["-m", "hocket.server"], settings) as running:
        yield running.address


@contextlib.contextmanager
def baseline(weights: Path, dtype: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the baseline's process until the block ends."""
    command = [sys.executable, str(HERE / "baseline.py"), str(weights), dtype, str(os.cpu_count())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or not process.stdout.readline():
            raise SystemExit("the baseline did not start")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def baseline_rate(
    process: "subprocess.Popen[str]", prompts: list[list[int]], new_tokens: int
) -> float:
    """Run one turn of the baseline and return its tokens per second."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the baseline has no pipes")
    process.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    return sum(map(len, answer["tokens"])) / sum(answer["seconds"])


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave turns of both and return the result."""
    weights = resolve(ModelSourceConfig(model="smollm2")).path
    settings = ["runner.quantization=none", *arguments.set]  # the baseline has no int8
    async with server(arguments.dtype, settings) as address, AsyncClient(address) as client:
        texts = [
            QUESTION.format(topic=TOPICS[number % len(TOPICS)], number=number)
            for number in range(arguments.streams)
        ]
        prompts = [[token.id for token in await client.tokenize(text)] for text in texts]
        turns: list[Turn] = []
        rates: list[float] = []
        with baseline(weights, arguments.dtype) as process:
            await load(client, prompts, 16)  # warms both up
            baseline_rate(process, prompts[:1], 16)
            for number in range(arguments.rounds):
                turns.append(await load(client, prompts, arguments.new_tokens))
                chosen = [prompts[(number * 2 + i) % len(prompts)] for i in range(2)]
                rates.append(
                    await asyncio.to_thread(baseline_rate, process, chosen, arguments.new_tokens)
                )
                print(
                    f"round {number + 1}: hocket {turns[-1].rate:.0f} tok/s,"
                    f" transformers {rates[-1]:.1f}",
                    file=sys.stderr,
                )
    ours, theirs = statistics.median(t.rate for t in turns), statistics.median(rates)
    return {
        "command": " ".join(["python", "bench/load.py", *sys.argv[1:]]),
        "streams": arguments.streams,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "dtype": arguments.dtype,
        "ratio": round(ours / theirs, 2),
        "hocket_tokens_per_second": round(ours, 1),
        "transformers_tokens_per_second": round(theirs, 2),
        "turns": [asdict(turn) | {"rate": round(turn.rate, 1)} for turn in turns],
        "transformers_rates": [round(rate, 2) for rate in rates],
        "machine": description("torch", "transformers", "grpcio", "protobuf"),
    }


def main() -> int:
    """Run as a command; exit 1 if the ratio misses `--at-least`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--at-least", type=float, default=8.0, help="the ratio to reach")
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    result = asyncio.run(compare(arguments))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "turns"}, indent=2))
    return 0 if float(str(result["ratio"])) >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
