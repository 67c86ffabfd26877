"""What it brings that idle threads spin for a moment, against threads that wait or spin long.

    python -m bench.spinning [--streams 32] [--rounds 6] [--output FILE]

Threads that have shared a product wait for the next one. Three servers have the same weights and
settings, and differ in how often their threads look for it before they sleep (`GOMP_SPINCOUNT`): as
often as hocket asks for where the environment says nothing, never, and as often as libgomp does of
itself. Each round gives every one of them a turn on the same fresh prompts, all streams at once
and by the sentence, in an order that moves on by one.

Figures are medians over the turns. `against_hocket` is the median over the rounds of a server's
tokens per second over those of the first in the same round: below 1, hocket's choice is faster.
`server_cores` is the processor time of the whole server for each second, spinning included. Servers
and client share the machine; idle servers do not compute.
"""

import argparse
import contextlib
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.command import deliver, origin, run, serving_parser
from bench.load import Turn, load
from bench.metrics import Histogram
from bench.process import Absent
from bench.prompts import fresh, take, tokens_of
from bench.serving import WITH_METRICS, Server, started
from bench.topologies import COMMON
from hocket.client import AsyncClient

HOCKET = "hocket"
SPINS = {
    HOCKET: None,  # the server sets it itself
    "waiting": "0",
    "libgomp": "300000",  # where neither it nor OMP_WAIT_POLICY is set
}
# The library tells on standard error which values it took.
ENVIRONMENT = {"OMP_DISPLAY_ENV": "VERBOSE", "OMP_WAIT_POLICY": None}
_TOLD = re.compile(r"GOMP_SPINCOUNT = '(\d+)'")
_WARM_TOKENS = 16


@dataclass(slots=True)
class Side:
    """What the turns of one server brought.

    Attributes:
        spins: How often an idle thread looks for work before it sleeps, as libgomp says.
        turns: In the order of the rounds.
        cores: For each turn, seconds of processor time that the server used for each second.
        lag: How late its event loop was during the turns, in seconds.
    """

    spins: int
    turns: list[Turn] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    lag: Histogram = field(default_factory=Histogram)

    def report(self, hocket: "Side") -> dict[str, object]:
        """Return medians over the turns.

        Args:
            hocket: The server with hocket's own choice; it had the same rounds.
        """
        rates = [turn.rate for turn in self.turns]
        shares = [
            mine.rate / theirs.rate for mine, theirs in zip(self.turns, hocket.turns, strict=True)
        ]
        client = statistics.median(turn.client_cpu_share for turn in self.turns)
        return {
            "spins": self.spins,
            "tokens_per_second": round(statistics.median(rates), 1),
            "against_hocket": round(statistics.median(shares), 3),
            "server_cores": round(statistics.median(self.cores), 3),
            "client_cpu_share": round(client, 3),
            "loop_lag_ms": self.lag.milliseconds(),
            "first_token": round(statistics.median(turn.first_token for turn in self.turns), 3),
            "first_sentence": round(
                statistics.median(turn.first_sentence for turn in self.turns), 3
            ),
            "rates": [round(rate, 1) for rate in rates],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server under measurement.

    Attributes:
        running: The server.
        client: Connected to it.
        side: Gathers what its turns bring.
    """

    running: Server
    client: AsyncClient
    side: Side

    async def turn(self, prompts: list[list[int]], new_tokens: int) -> Turn:
        """Give it one turn, and return what that brought."""
        process = self.running.process
        before, used = await self.running.metrics(), process.cpu_seconds()
        done = await load(self.client, prompts, new_tokens)
        used = process.cpu_seconds() - used
        self.side.lag += (await self.running.metrics()).loop_lag - before.loop_lag
        self.side.turns.append(done)
        self.side.cores.append(used / done.seconds)
        return done


def spins_told(log: str) -> int:
    """Return how often threads spin by what libgomp told as it was loaded.

    Args:
        log: What the server wrote, among other things.

    Raises:
        Absent: No libgomp told it, so that setting it has no effect; or several told different.
    """
    told = set(_TOLD.findall(log))
    if len(told) != 1:
        raise Absent(f"takes GOMP_SPINCOUNT to be {' and '.join(sorted(told)) or 'nothing'}")
    return int(told.pop())


@contextlib.asynccontextmanager
async def served(spins: str | None, settings: Sequence[str]) -> AsyncIterator[Served]:
    """Run a server until the block ends.

    Args:
        spins: How often its threads look for work before they sleep; None as the server has it.
        settings: Of the server, as `SECTION.KEY=VALUE`.

    Raises:
        Absent: It does not start, or does not compute with libgomp.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        environment = {**ENVIRONMENT, "GOMP_SPINCOUNT": spins}
        async with (
            started([WITH_METRICS, *settings], log=log, environment=environment) as running,
            AsyncClient(running.address) as client,
        ):
            side = Side(spins_told(log.read_text(encoding="utf-8", errors="replace")))
            yield Served(running=running, client=client, side=side)


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave turns of all servers and return the result."""
    made = origin("bench.spinning", "torch", "grpcio", "protobuf")  # as the servers start
    texts = fresh()
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(served(spins, [*COMMON, *arguments.set]))
            for name, spins in SPINS.items()
        }
        client = servers[HOCKET].client
        prompts = await tokens_of(client, take(texts, arguments.streams))
        for server in servers.values():
            await load(server.client, prompts, _WARM_TOKENS)
        names = list(servers)
        for number in range(arguments.rounds):
            prompts = await tokens_of(client, take(texts, arguments.streams))
            first = number % len(names)
            for name in names[first:] + names[:first]:
                done = await servers[name].turn(prompts, arguments.new_tokens)
                told = f"round {number + 1}: {name} {done.rate:.0f} tok/s"
                print(told, file=sys.stderr, flush=True)
    hocket = servers[HOCKET].side
    return {
        **made,
        "streams": arguments.streams,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "rounds": arguments.rounds,
        "servers": {name: server.side.report(hocket) for name, server in servers.items()},
    }


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6, help="best a multiple of 3 (default: 6)")
    arguments = parser.parse_args()
    deliver(run(compare(arguments)), arguments)


if __name__ == "__main__":
    main()
