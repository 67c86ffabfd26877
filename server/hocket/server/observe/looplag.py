"""How late the event loop comes to what is due. Loop thread.

A task sleeps a little, again and again; how much later than it asked for it wakes is what any other
task waits for its turn at such a moment. Timers of the loop are up to a millisecond late by nature.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

_SLEEP_SECONDS = 0.02  # 50 times a second: cheap, and often enough for a 99th percentile


async def watch_lag(
    observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic
) -> NoReturn:
    """Tell of the loop's lateness in seconds, again and again, until cancelled."""
    while True:
        due = clock() + _SLEEP_SECONDS
        await asyncio.sleep(_SLEEP_SECONDS)
        observe(max(0.0, clock() - due))
