"""The loop's lateness is what a task waits for its turn."""

import asyncio

import pytest

from hocket.server.observe.looplag import watch_lag


@pytest.mark.parametrize("held", [0.0, 0.06, 3.0])
async def test_a_loop_that_is_held_is_late_by_as_much(held):
    """Whoever computes on the loop makes all others late; afterwards it is on time again."""
    told: list[float] = []
    two = asyncio.Event()
    moments = iter([10.0, 10.02 + held, 20.0, 20.02, 30.0, 30.02])

    def observe(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 2:
            two.set()

    watching = asyncio.create_task(watch_lag(observe, clock=lambda: next(moments)))
    await two.wait()
    watching.cancel()
    assert told[0] == pytest.approx(held)
    assert told[1] == pytest.approx(0.0)


async def test_it_tells_of_a_real_loop_too():
    told: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch_lag(told.put_nowait))
    assert await told.get() >= 0.0
    watching.cancel()
