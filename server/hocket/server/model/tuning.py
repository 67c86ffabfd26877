"""How many threads compute, and what a step takes: measured once, at load. Engine thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_TRIES = 3  # the fastest counts: whatever disturbs makes a try slower
_FEW, _MANY = 1, 64  # rows of the two steps whose times tell what a row adds
_STREAMS = 16  # of the step whose time tells what a stream adds
_GAIN = 0.95  # fewer threads must be so much faster to be chosen
# No fewer threads than this are tried. So many always pay, and where others happen to use the cores
# of a small machine while a model is loaded, a trial would tell of them.
_LEAST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What a step takes, in milliseconds.

    Attributes:
        step_ms: Whatever is in it.
        token_ms: For each token that looks back at few.
        stream_ms: For each stream, whose next token is drawn; no less than `token_ms`.
    """

    step_ms: float
    token_ms: float
    stream_ms: float


Compute = Callable[[int], object]
"""Computes one step of so many rows, or of so many streams."""


def step_cost(
    compute: Compute, compute_streams: Compute, clock: Callable[[], float] = time.perf_counter
) -> StepCost:
    """Measure a step of few and one of many rows, and one of some streams."""
    few, many = _fastest(compute, _FEW, clock), _fastest(compute, _MANY, clock)
    streams = _fastest(compute_streams, _STREAMS, clock)
    token = max(many - few, 0.0) / (_MANY - _FEW)
    step = max(few - token * _FEW, 0.0)
    stream = max(token, (streams - step) / _STREAMS)
    return StepCost(step_ms=1e3 * step, token_ms=1e3 * token, stream_ms=1e3 * stream)


def choose_threads(
    most: int,
    set_threads: Callable[[int], None],
    compute: Compute,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Try all threads, then half as many and so on while that is faster; return the best number.

    A small model has too little work in a step for many cores to share. The number that is returned
    is set.
    """
    if most < 2 * _LEAST:
        set_threads(most)
        return most
    best, fastest = most, _with(most, set_threads, compute, clock)
    while best >= 2 * _LEAST:
        fewer = best // 2
        seconds = _with(fewer, set_threads, compute, clock)
        if seconds > _GAIN * fastest:
            break
        best, fastest = fewer, seconds
    set_threads(best)
    return best


def _with(
    threads: int,
    set_threads: Callable[[int], None],
    compute: Compute,
    clock: Callable[[], float],
) -> float:
    set_threads(threads)
    compute(_MANY)  # new threads start
    return _fastest(compute, _MANY, clock)


def _fastest(compute: Compute, rows: int, clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(_TRIES):
        begun = clock()
        compute(rows)
        seconds.append(clock() - begun)
    return min(seconds)
