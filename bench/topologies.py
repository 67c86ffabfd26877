"""How the engine is best laid out over threads and processes, and what the gRPC front costs.

    python -m bench.topologies [--streams 32] [--rounds 5] [--output FILE]

Each topology is a server with the same weights and settings but for the layout; beside them stands
the engine alone, stepped in a tight loop without gRPC and client. Each round gives every one of
them a turn on the same fresh prompts, in changing order; figures are medians, and shares are of the
engine alone. Server, client and engine share the machine. The lag of the event loop is what its
metric counted during all turns; processor time is that of the server's loop thread and of the
client's process.
"""

import argparse
import contextlib
import statistics
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bench import in_process
from bench.command import deliver, origin, run, serving_parser
from bench.load import Turn, load
from bench.metrics import Histogram
from bench.process import Ask, child
from bench.prompts import fresh, take, tokens_of
from bench.serving import WITH_METRICS, Server, started
from hocket.client import AsyncClient

COMMON = ["runner.quantization=int8", "runner.kernels=native"]
SERVER, PROCESS = "hocket.server", "bench.process_server"
TOPOLOGIES = {
    "1 worker, strict": (SERVER, ["engine.delivery=strict"]),
    "1 worker, overlapped": (SERVER, ["engine.delivery=overlapped"]),
    "2 workers, strict": (SERVER, ["engine.delivery=strict", "engine.workers=2"]),
    "2 workers, overlapped": (SERVER, ["engine.delivery=overlapped", "engine.workers=2"]),
    "process, strict": (PROCESS, ["engine.delivery=strict"]),
    "process, overlapped": (PROCESS, ["engine.delivery=overlapped"]),
}
ALONE = "engine alone"
_WARM_TOKENS = 16


@dataclass(slots=True)
class Served:
    """A server under measurement.

    Attributes:
        running: The server.
        client: Connected to it.
        turns: What its turns brought.
        loop_shares: For each turn, the loop thread's share of one core.
        lag: How late the loop was during the turns, in seconds.
    """

    running: Server
    client: AsyncClient
    turns: list[Turn] = field(default_factory=list)
    loop_shares: list[float] = field(default_factory=list)
    lag: Histogram = field(default_factory=Histogram)

    async def turn(self, prompts: list[list[int]], new_tokens: int) -> float:
        """Give it one turn and return its tokens per second."""
        process = self.running.process
        before, used = await self.running.metrics(), process.main_thread_seconds()
        done = await load(self.client, prompts, new_tokens)
        used = process.main_thread_seconds() - used
        self.lag += (await self.running.metrics()).loop_lag - before.loop_lag
        self.turns.append(done)
        self.loop_shares.append(used / done.seconds)
        return done.rate

    def report(self, alone: float) -> dict[str, object]:
        """Return medians over the turns.

        Args:
            alone: Tokens per second of the engine alone.
        """
        rates = [turn.rate for turn in self.turns]
        rate = statistics.median(rates)
        client = statistics.median(turn.client_cpu_share for turn in self.turns)
        return {
            "tokens_per_second": round(rate, 1),
            "front_share": round(1 - rate / alone, 3),
            "loop_lag_ms": self.lag.milliseconds(),
            "loop_cpu_share": round(statistics.median(self.loop_shares), 3),
            "client_cpu_share": round(client, 3),
            "first_token": round(statistics.median(turn.first_token for turn in self.turns), 3),
            "rates": _rounded(rates),
        }


@contextlib.asynccontextmanager
async def served(name: str, extra: list[str]) -> AsyncIterator[Served]:
    """Run the server of a topology until the block ends."""
    module, settings = TOPOLOGIES[name]
    async with (
        started([WITH_METRICS, *COMMON, *settings, *extra], module=module) as running,
        AsyncClient(running.address) as client,
    ):
        yield Served(running, client)


async def _alone(ask: Ask, prompts: list[list[int]], new_tokens: int) -> float:
    """Give the engine alone one turn and return its tokens per second."""
    done = await ask({"prompts": prompts, "new_tokens": new_tokens})
    return float(done["tokens"] / done["seconds"])


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave turns of all topologies and return the result."""
    rates: list[float] = []
    made = origin("bench.topologies", "torch", "grpcio", "protobuf")  # as the servers start
    texts = fresh()
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(served(name, arguments.set))
            for name in arguments.topologies
        }
        command = in_process.command([*COMMON, *arguments.set])
        ask = await stack.enter_async_context(child(command))
        client = next(iter(servers.values())).client
        prompts = await tokens_of(client, take(texts, arguments.streams))
        for server in servers.values():
            await load(server.client, prompts, _WARM_TOKENS)
        await _alone(ask, prompts, _WARM_TOKENS)
        names = [*servers, ALONE]
        for number in range(arguments.rounds):
            prompts = await tokens_of(client, take(texts, arguments.streams))
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name == ALONE:
                    rate = await _alone(ask, prompts, arguments.new_tokens)
                    rates.append(rate)
                else:
                    rate = await servers[name].turn(prompts, arguments.new_tokens)
                print(f"round {number + 1}: {name} {rate:.0f} tok/s", file=sys.stderr, flush=True)
    alone = statistics.median(rates)
    return {
        **made,
        "streams": arguments.streams,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "rounds": arguments.rounds,
        "engine_alone": {"tokens_per_second": round(alone, 1), "rates": _rounded(rates)},
        "topologies": {name: server.report(alone) for name, server in servers.items()},
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 1) for value in values]


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topologies", nargs="+", choices=TOPOLOGIES, default=list(TOPOLOGIES))
    arguments = parser.parse_args()
    deliver(run(compare(arguments)), arguments)


if __name__ == "__main__":
    main()
