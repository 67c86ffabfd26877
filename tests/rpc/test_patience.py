"""One timer for the writes of a call."""

import asyncio

import pytest

from hocket.server.errors import ReaderTooSlow
from hocket.server.rpc.patience import Patience


async def _at_once() -> None:
    pass


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_write_that_takes_too_long_is_cancelled_and_its_task_goes_on():
    ended = []

    async def write() -> None:
        try:
            await _never()
        finally:
            ended.append("write")

    with Patience(0.01) as patience, pytest.raises(ReaderTooSlow) as caught:
        await patience.wait(write())
    assert "0.01" in str(caught.value)
    assert ended == ["write"]
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)  # would raise if a cancellation were still under way


async def test_each_write_has_the_whole_time(monkeypatch):
    """The one timer that is set looks again when the write in progress would be too slow."""
    loop = asyncio.get_running_loop()
    now = [100.0]
    looks: list[tuple[float, object]] = []

    class Timer:
        def cancel(self) -> None:
            looks.clear()

    def call_at(when, look):
        looks.append((when, look))
        return Timer()

    monkeypatch.setattr(loop, "time", lambda: now[0])
    monkeypatch.setattr(loop, "call_at", call_at)
    with Patience(10) as patience:
        await patience.wait(_at_once())
        assert [when for when, _ in looks] == [110]
        now[0] = 105.0
        writing = asyncio.ensure_future(_never())

        async def write() -> None:
            now[0] = 110.0
            ((_, look),) = looks
            looks.clear()
            look()  # the timer of the first write; this one has lasted for five of its ten seconds
            assert [when for when, _ in looks] == [115]
            writing.cancel()

        await patience.wait(write())
        ((_, look),) = looks
        looks.clear()
        look()  # nothing is written: no timer until the next write
        assert looks == []
        await patience.wait(_at_once())
        assert [when for when, _ in looks] == [120]
    assert looks == []


async def test_a_thousand_writes_set_one_timer(monkeypatch):
    loop = asyncio.get_running_loop()
    original, count = loop.call_at, []
    monkeypatch.setattr(
        loop, "call_at", lambda *args, **more: count.append(1) or original(*args, **more)
    )
    with Patience(60) as patience:
        for _ in range(1000):
            await patience.wait(_at_once())
    assert len(count) == 1


async def test_a_cancellation_from_outside_stays_one():
    async def call() -> None:
        with Patience(60) as patience:
            await patience.wait(_never())

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_very_end_of_patience_wins():
    """The call is over, and who ended it waits for it to be."""

    async def call() -> None:
        with Patience(60) as patience:

            async def write() -> None:
                patience._began -= 120
                patience._look()
                task.cancel()
                await _never()

            await patience.wait(write())

    task = asyncio.create_task(call())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_write_raises_passes():
    async def write() -> None:
        raise ConnectionError

    with Patience(60) as patience, pytest.raises(ConnectionError):
        await patience.wait(write())
