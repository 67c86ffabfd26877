"""The loop's lateness is what a task waits for its turn."""

import asyncio
import time

import pytest

from hocket.server.observe.looplag import watch_lag


@pytest.mark.parametrize("held", [0.0, 0.06])
async def test_a_loop_that_is_held_is_late_by_as_much(held):
    """Whoever computes on the loop makes all others late; afterwards it is on time again."""
    told: list[float] = []
    two = asyncio.Event()

    def observe(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 2:
            two.set()

    watching = asyncio.create_task(watch_lag(observe))
    await asyncio.sleep(0)
    deadline = time.monotonic() + held
    while time.monotonic() < deadline:
        pass
    await two.wait()
    watching.cancel()
    assert told[0] >= max(0.0, held - 0.025)
    assert min(told) >= 0.0
