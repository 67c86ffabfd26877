"""Gives every side its turns, interleaved, and gathers what they took.

Only one side computes at a time. In each round every side answers the same prompts once, in an
order that moves on by one from round to round.
"""

import asyncio
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.peers.peer import Peer, Turn
from bench.process import Absent
from hocket.client import ClientError

_WARM_TOKENS = 8


@dataclass(slots=True)
class Comparison:
    """What a run found.

    Attributes:
        turns: For each number of streams, the turns of each side by name.
        absent: Why a side took no turns, by name.
        idle_cpu: The largest share of one core that all idle sides together used during a turn.
        prompt_tokens: The longest prompt's length.
    """

    turns: dict[int, dict[str, list[Turn]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    idle_cpu: float = 0.0
    prompt_tokens: int = 0


async def start_all(sides: Sequence[Peer], comparison: Comparison) -> list[Peer]:
    """Start the sides one after the other; return those that did, and note why others did not."""
    present: list[Peer] = []
    for side in sides:
        _say(f"starting {side.name} ...")
        try:
            await side.start()
        except Absent as reason:
            _say(f"{side.name} is absent: {reason}")
            comparison.absent[side.name] = str(reason)
            await side.stop()
        else:
            present.append(side)
    return present


async def compare(
    sides: Sequence[Peer],
    comparison: Comparison,
    prompts: Iterator[list[int]],
    *,
    streams: int,
    rounds: int,
    new_tokens: int,
) -> None:
    """Warm every side up with a round of few tokens, then give it a turn in each round.

    Args:
        sides: Started; those that fail on the way are noted as absent and asked no more.
        comparison: Is filled.
        prompts: Token ids, none of which come twice.
        streams: How many each turn has.
        rounds: How many turns each side has.
        new_tokens: How many each stream writes.
    """
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    for number in range(-1, rounds):  # the first warms up and is not counted
        asked = list(itertools.islice(prompts, streams))
        comparison.prompt_tokens = max(comparison.prompt_tokens, *map(len, asked))
        first = number % len(sides)
        for side in itertools.islice(itertools.cycle(sides), first, first + len(sides)):
            if side.name in comparison.absent:
                continue
            others = [other for other in sides if other is not side]
            before = sum(other.cpu_seconds() for other in others)
            try:
                turn = await side.turn(asked, _WARM_TOKENS if number < 0 else new_tokens)
            except (
                Absent,
                ClientError,
                RuntimeError,
                OSError,
                asyncio.IncompleteReadError,
            ) as error:
                _say(f"{side.name} failed: {error}")
                comparison.absent[side.name] = f"failed with {streams} streams: {error}"
                continue
            used = sum(other.cpu_seconds() for other in others) - before
            if number >= 0:
                comparison.idle_cpu = max(comparison.idle_cpu, used / turn.seconds)
                turns[side.name].append(turn)
                _say(f"{streams} streams, round {number + 1}: {side.name} {turn.rate:.0f} tokens/s")
    comparison.turns[streams] = {name: found for name, found in turns.items() if found}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
