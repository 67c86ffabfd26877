"""The watchdog: it bites a stalled engine and nothing else."""

import asyncio
import faulthandler

import pytest

from hocket.server.engine.commands import StepOutputs
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.observe.watchdog import Watchdog, WatchdogConfig, WatchedCore

OUTPUTS = StepOutputs(outputs=(), has_work=False, statistics=EngineStatistics())


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowCore:
    """Takes as long as told for each step; `during` is called in the middle of it."""

    def __init__(self, clock, seconds=0.0, during=lambda: None) -> None:
        self.clock, self.seconds, self.during = clock, seconds, during

    def step(self, commands):
        self.clock.now += self.seconds
        self.during()
        return OUTPUTS


def make(step_seconds=10.0, **core):
    clock = Clock()
    steps: list[float] = []
    slow = SlowCore(clock, **core)
    watched = WatchedCore(slow, observe_step=steps.append, clock=clock)
    config = WatchdogConfig(step_seconds=step_seconds, loop_seconds=0)
    return clock, slow, watched, Watchdog(config, watched, clock=clock), steps


def look_each_second(clock, watchdog, seconds):
    """Look once a second and return what was seen."""
    seen = []
    for _ in range(seconds):
        clock.now += 1
        seen.append(watchdog.is_stalled())
    return seen


@pytest.mark.parametrize("stalled", range(3))
def test_each_of_several_engines_is_watched(stalled):
    """One that hangs is enough, whatever the others do."""
    clock = Clock()
    cores = [WatchedCore(SlowCore(clock), observe_step=lambda _: None) for _ in range(3)]
    watchdog = Watchdog(WatchdogConfig(step_seconds=10.0, loop_seconds=0), *cores, clock=clock)
    assert not any(look_each_second(clock, watchdog, 100))
    cores[stalled].step_began_at = clock.now
    assert look_each_second(clock, watchdog, 11)[-2:] == [False, True]


def test_an_idle_engine_is_not_stalled():
    """Without a step in progress time does not matter."""
    clock, _, _, watchdog, _ = make()
    assert not any(look_each_second(clock, watchdog, 100))


def test_a_step_that_does_not_end_is_a_stall():
    """Patience ends after `step_seconds`, and not before."""
    clock, slow, watched, watchdog, _ = make()
    seen: list[bool] = []
    slow.during = lambda: seen.extend(look_each_second(clock, watchdog, 12))
    watched.step(())
    assert seen == [False] * 10 + [True] * 2


def test_nothing_is_a_stall_if_patience_is_endless():
    """0 turns it off."""
    clock, slow, watched, watchdog, _ = make(step_seconds=0)
    slow.during = lambda: seen.extend(look_each_second(clock, watchdog, 1000))
    seen: list[bool] = []
    watched.step(())
    assert not any(seen)


def test_a_model_with_long_steps_is_given_time():
    """Four times the longest step so far is never a stall."""
    clock, slow, watched, watchdog, _ = make(seconds=5.0)
    watched.step(())
    slow.seconds = 0.0
    seen: list[bool] = []
    watchdog.is_stalled()
    slow.during = lambda: seen.extend(look_each_second(clock, watchdog, 21))
    watched.step(())
    assert seen == [False] * 20 + [True]


def test_a_paused_process_gets_a_new_start():
    """After SIGSTOP and SIGCONT the step in progress is not to blame for the pause."""
    clock, slow, watched, watchdog, _ = make()
    seen: list[bool] = []

    def pause() -> None:
        clock.now += 3600
        seen.append(watchdog.is_stalled())
        seen.extend(look_each_second(clock, watchdog, 11))

    slow.during = pause
    watched.step(())
    assert seen == [False] * 11 + [True]


def test_steps_are_timed_and_passed_on():
    """Each step that returned is observed once, with its time."""
    _, _, watched, _, steps = make(seconds=0.25)
    assert OUTPUTS is watched.step(())
    watched.step(())
    assert steps == [0.25, 0.25]


def test_a_step_that_raises_is_over():
    """An exception passes through and leaves no step in progress."""
    clock, slow, watched, watchdog, steps = make()

    def fail() -> None:
        raise RuntimeError("no")

    slow.during = fail
    with pytest.raises(RuntimeError):
        watched.step(())
    assert not any(look_each_second(clock, watchdog, 50))
    assert steps == []


async def test_waiting_ends_when_the_engine_stalls():
    """`wait_stalled` returns in the middle of the endless step."""
    clock, _, watched, watchdog, _ = make(step_seconds=1.0)
    watchdog.is_stalled()
    watched.step_began_at = clock.now
    clock.now += 2
    async with asyncio.timeout(10):
        await watchdog.wait_stalled()


async def test_the_alarm_for_the_loop_is_wound_up_and_taken_away(monkeypatch):
    """While the watchdog looks, the alarm is set; when it is cancelled, it is not."""
    calls = []
    wound = asyncio.Event()

    def wind(seconds, **options):
        calls.append((seconds, options))
        wound.set()

    monkeypatch.setattr(faulthandler, "dump_traceback_later", wind)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append("off"))
    _, _, watched, _, _ = make()
    watchdog = Watchdog(WatchdogConfig(loop_seconds=30), watched)
    task = asyncio.create_task(watchdog.wait_stalled())
    await wound.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == [(30, {"exit": True}), "off"]
