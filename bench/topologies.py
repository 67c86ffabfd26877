"""How the engine is best laid out over threads and processes, and what the gRPC front costs.

    python -m bench.topologies [--streams 32] [--rounds 5] [--output FILE]

Each topology is a server with the same weights and settings but for the layout; beside them stands
the engine alone, stepped in a tight loop without gRPC and client. Each round gives every one of
them a turn, in changing order; figures are medians, and shares are of the engine alone. Server,
client and engine share the machine. The lag of the event loop is what its metric counted during all
turns; processor time is that of the server's loop thread and of the client's process.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from bench.load import Turn, load
from bench.machine import description
from bench.prompts import QUESTION, TOPICS
from bench.serving import Server, started
from hocket.client import AsyncClient

HERE = Path(__file__).resolve().parent
COMMON = ["runner.quantization=int8", "runner.kernels=native", "metrics.address=127.0.0.1:0"]
SERVER, PROCESS = ["-m", "hocket.server"], [str(HERE / "process_server.py")]
TOPOLOGIES = {
    "1 worker, strict": (SERVER, ["engine.delivery=strict"]),
    "1 worker, overlapped": (SERVER, ["engine.delivery=overlapped"]),
    "2 workers, strict": (SERVER, ["engine.delivery=strict", "engine.workers=2"]),
    "2 workers, overlapped": (SERVER, ["engine.delivery=overlapped", "engine.workers=2"]),
    "process, strict": (PROCESS, ["engine.delivery=strict"]),
    "process, overlapped": (PROCESS, ["engine.delivery=overlapped"]),
}
ALONE = "engine alone"
_BUCKET = re.compile(r'^hocket_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


@dataclass
class Served:
    """A server under measurement.

    Attributes:
        running: Its process.
        client: Connected to it.
        turns: What its turns brought.
        loop_shares: For each turn, the loop thread's share of one core.
        lags: Moments by how late the loop was: upper bound in seconds to count.
    """

    running: Server
    client: AsyncClient
    turns: list[Turn] = field(default_factory=list)
    loop_shares: list[float] = field(default_factory=list)
    lags: dict[float, float] = field(default_factory=dict)

    async def turn(self, prompts: list[list[int]], new_tokens: int) -> None:
        """Give it one turn."""
        before, used = self._lags(), self._loop_seconds()
        done = await load(self.client, prompts, new_tokens)
        self.turns.append(done)
        self.loop_shares.append((self._loop_seconds() - used) / done.seconds)
        for bound, count in self._lags().items():
            self.lags[bound] = self.lags.get(bound, 0) + count - before[bound]

    def _loop_seconds(self) -> float:
        threads = psutil.Process(self.running.pid).threads()
        return sum(t.user_time + t.system_time for t in threads if t.id == self.running.pid)

    def _lags(self) -> dict[float, float]:
        with urllib.request.urlopen(f"http://{self.running.metrics_address}/metrics") as answer:
            text = answer.read().decode()
        return {float(bound): float(count) for bound, count in _BUCKET.findall(text)}

    def lag_p99_ms(self) -> float:
        """Return the 99th percentile of the lag in ms, interpolated between two bounds."""
        wanted = 0.99 * max(self.lags.values())
        for (low, under), (high, count) in pairwise([(0.0, 0.0), *sorted(self.lags.items())]):
            if count >= wanted:
                return 1e3 * (low + (high - low) * (wanted - under) / (count - under))
        return float("inf")


@contextlib.asynccontextmanager
async def served(name: str, extra: list[str]) -> AsyncIterator[Served]:
    """Run the server of a topology until the block ends."""
    program, settings = TOPOLOGIES[name]
    async with (
        started([*COMMON, *settings, *extra], program) as running,
        AsyncClient(running.address) as client,
    ):
        yield Served(running, client)


@contextlib.contextmanager
def alone(extra: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run the engine alone until the block ends."""
    command = [sys.executable, str(HERE / "engine_alone.py"), *COMMON, *extra]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if running.stdout is None or not running.stdout.readline():
            raise SystemExit("the engine did not start")
        yield running
    finally:
        running.terminate()
        running.wait(timeout=60)


def alone_rate(running: "subprocess.Popen[str]", prompts: list[list[int]], tokens: int) -> float:
    """Give the engine alone one turn and return its tokens per second."""
    if running.stdin is None or running.stdout is None:
        raise RuntimeError("the engine has no pipes")
    running.stdin.write(json.dumps({"prompts": prompts, "new_tokens": tokens}) + "\n")
    running.stdin.flush()
    answer = json.loads(running.stdout.readline())
    rate: float = answer["tokens"] / answer["seconds"]
    return rate


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Enclose a round; a place for whoever must keep others away from the machine meanwhile."""
    yield


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave turns of all topologies and return the result."""
    rates: list[float] = []
    machine = description("torch", "grpcio", "protobuf")  # as it is when the servers start
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(served(name, arguments.set))
            for name in arguments.topologies
        }
        engine = stack.enter_context(alone(arguments.set))
        first = next(iter(servers.values()))
        texts = [
            QUESTION.format(topic=TOPICS[number % len(TOPICS)], number=number)
            for number in range(arguments.streams)
        ]
        prompts = [[token.id for token in await first.client.tokenize(text)] for text in texts]
        for server in servers.values():
            await load(server.client, prompts, 16)  # warms it up
        alone_rate(engine, prompts, 16)
        names = [*servers, ALONE]
        for number in range(arguments.rounds):
            with undisturbed():
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if name == ALONE:
                        rate = alone_rate(engine, prompts, arguments.new_tokens)
                        rates.append(rate)
                    else:
                        await servers[name].turn(prompts, arguments.new_tokens)
                        rate = servers[name].turns[-1].rate
                    print(f"round {number + 1}: {name} {rate:.0f} tok/s", file=sys.stderr)
    base = statistics.median(rates)
    return {
        "command": " ".join(["python", "bench/topologies.py", *sys.argv[1:]]),
        "streams": arguments.streams,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "rounds": arguments.rounds,
        "engine_alone": {"tokens_per_second": round(base, 1), "rates": _rounded(rates)},
        "topologies": {name: _report(server, base) for name, server in servers.items()},
        "machine": machine,
    }


def _report(server: Served, base: float) -> dict[str, object]:
    rates = [turn.rate for turn in server.turns]
    rate = statistics.median(rates)
    return {
        "tokens_per_second": round(rate, 1),
        "front_share": round(1 - rate / base, 3),
        "loop_lag_p99_ms": round(server.lag_p99_ms(), 1),
        "loop_cpu_share": round(statistics.median(server.loop_shares), 3),
        "client_cpu_share": round(statistics.median(t.client_cpu_share for t in server.turns), 3),
        "first_token": round(statistics.median(t.first_token for t in server.turns), 3),
        "rates": _rounded(rates),
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 1) for value in values]


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topologies", nargs="+", choices=TOPOLOGIES, default=list(TOPOLOGIES))
    parser.add_argument("--set", action="append", default=[], help="a setting of all")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(compare(arguments)), indent=2) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
