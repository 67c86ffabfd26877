"""Leaving: told first, then quiet, then gone; nothing accepted is lost."""

import asyncio

import pytest

from hocket.server.drain import Departure, DrainConfig
from hocket.server.errors import Draining
from hocket.server.lifecycle import Lifecycle, ServerState


class FakeDoor:
    """Takes calls until stopped; the calls in progress end when `finished` is set."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.finished = asyncio.Event()
        self.grace: float | None = None

    async def stop(self, grace_seconds: float) -> None:
        self.grace = grace_seconds
        self.stopping.set()
        await self.finished.wait()


def serving() -> Lifecycle:
    lifecycle = Lifecycle()
    for state in (ServerState.LOADING, ServerState.WARMING, ServerState.SERVING):
        lifecycle.enter(state)
    return lifecycle


def nothing_to_abort() -> int:
    raise AssertionError("nothing should be aborted")


async def test_new_work_is_taken_until_the_delay_is_over():
    """Health turns first; calls are refused only after the delay."""
    lifecycle, door = serving(), FakeDoor()
    departure = Departure(DrainConfig(delay_seconds=3600))
    async with asyncio.TaskGroup() as group:
        assert departure.wish() == 3600
        group.create_task(departure.drain(lifecycle, door, abort_all=nothing_to_abort))
        assert ServerState.DRAINING is await lifecycle.wait_for(ServerState.DRAINING)
        assert not lifecycle.is_serving
        lifecycle.check_accepting()
        assert not door.stopping.is_set()
        departure.wish(in_hurry=True)  # ends the delay
        await door.stopping.wait()
        with pytest.raises(Draining):
            lifecycle.check_accepting()
        door.finished.set()


async def test_accepted_work_has_the_grace_to_finish():
    """What ends in time is not aborted; core's own cancellation comes later than ours would."""
    lifecycle, door = serving(), FakeDoor()
    departure = Departure(DrainConfig(delay_seconds=0, grace_seconds=3600))
    async with asyncio.TaskGroup() as group:
        group.create_task(departure.drain(lifecycle, door, abort_all=nothing_to_abort))
        await door.stopping.wait()
        assert door.grace > 3600
        door.finished.set()


async def test_what_outlives_the_grace_is_aborted_with_details():
    """When the grace is over all that runs is ended by us, and the end of it awaited."""
    lifecycle, door = serving(), FakeDoor()
    departure = Departure(DrainConfig(delay_seconds=0, grace_seconds=0))
    aborted = []

    def abort_all() -> int:
        aborted.append(door.stopping.is_set())
        door.finished.set()
        return 3

    await departure.drain(lifecycle, door, abort_all=abort_all)
    assert aborted == [True]


async def test_a_server_that_never_served_does_not_wait():
    """Nobody was sent to a server that is loading, so nobody must be warned."""
    lifecycle, door = Lifecycle(), FakeDoor()
    lifecycle.enter(ServerState.LOADING)
    door.finished.set()
    departure = Departure(DrainConfig(delay_seconds=3600))
    async with asyncio.timeout(10):
        await departure.drain(lifecycle, door, abort_all=nothing_to_abort)
    assert lifecycle.is_leaving


async def test_wishing_twice_changes_nothing_but_the_hurry():
    """A wish is repeatable and tells the delay that stands."""
    departure = Departure(DrainConfig(delay_seconds=7))
    assert not departure.is_wished
    assert [
        departure.wish(), departure.wish(), departure.wish(in_hurry=True), departure.wish(),
    ] == [7, 7, 0, 0]  # fmt: skip
    await departure.wait_wished()
    assert departure.is_wished
