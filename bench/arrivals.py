"""When requests are sent, whether or not those before them have ended."""

import random
from collections.abc import Iterator


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield moments in seconds from 0 on, without end: a Poisson process.

    The gaps are drawn independently from an exponential distribution, so that requests sometimes
    come in bursts, as those of independent callers do.

    Args:
        rate: Requests a second, above 0.
        seed: The same gives the same moments.
    """
    draw, moment = random.Random(seed), 0.0
    while True:
        moment += draw.expovariate(rate)
        yield moment
