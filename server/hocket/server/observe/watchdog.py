"""Notices when the engine, or the loop itself, no longer gets on.

Each engine thread stamps the beginning and the end of its steps; the loop looks at the stamps once
a second. A loop that is stuck cannot look, so each look also winds up an alarm of `faulthandler`,
whose thread needs neither the loop nor the interpreter's lock: unless it is wound up again in time,
it writes all stacks to stderr and ends the process.
"""

import asyncio
import faulthandler
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TextIO

from annotated_types import Ge, Le

from hocket.server.engine.commands import Command, StepOutputs

_LOOK_SECONDS = 1.0
_LATE_FACTOR = 3  # a look that comes so many times too late tells of a pause of the whole process
_LONGEST_FACTOR = 4  # of the longest step so far: that long is not yet a stall


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogConfig:
    """When a server that no longer gets on gives itself up.

    Attributes:
        step_seconds: An engine step that takes longer, and longer than four times the longest step
            so far, ends the process with exit code 1. 0: never.
        loop_seconds: An event loop that is stuck for longer does so too. Choose it above any pause
            of the process that is to be survived, such as SIGSTOP. 0: never.
    """

    step_seconds: Annotated[float, Ge(0), Le(86_400)] = 60.0
    loop_seconds: Annotated[float, Ge(0), Le(86_400)] = 120.0


class Core(Protocol):
    """What is stepped."""

    def step(self, commands: Sequence[Command]) -> StepOutputs:
        """Apply commands and compute one batch."""
        ...


class WatchedCore:
    """A core whose steps are timed, on the engine's thread; the loop's reads the stamps."""

    def __init__(
        self,
        core: Core,
        *,
        observe_step: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._observe_step = observe_step
        self._clock = clock
        self.step_began_at: float | None = None
        self.longest_step_seconds = 0.0

    def step(self, commands: Sequence[Command]) -> StepOutputs:
        """Step the core; whatever it raises passes through."""
        began = self._clock()
        self.step_began_at = began
        try:
            outputs = self._core.step(commands)
        finally:
            self.step_began_at = None
        seconds = self._clock() - began
        self.longest_step_seconds = max(self.longest_step_seconds, seconds)
        self._observe_step(seconds)
        return outputs


class Watchdog:
    """Looks at all cores once a second. Loop thread."""

    def __init__(
        self,
        config: WatchdogConfig,
        *cores: WatchedCore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._cores = cores
        self._clock = clock
        self._looked_at = clock()
        self._awake_since = self._looked_at

    def is_stalled(self) -> bool:
        """Look: whether a step in progress takes too long. A paused process gets a new start."""
        now = self._clock()
        if now - self._looked_at > _LATE_FACTOR * _LOOK_SECONDS:
            self._awake_since = now
        self._looked_at = now
        return any(self._is_stalled(core, now) for core in self._cores)

    def _is_stalled(self, core: WatchedCore, now: float) -> bool:
        began = core.step_began_at
        if began is None or not self._config.step_seconds:
            return False
        patience = max(self._config.step_seconds, _LONGEST_FACTOR * core.longest_step_seconds)
        return now - max(began, self._awake_since) > patience

    async def wait_stalled(self) -> None:
        """Return once an engine has stalled; keep the alarm for the loop wound up until then."""
        # Where standard error is no file, as in a notebook, the alarm would have nowhere to write.
        has_alarm = self._config.loop_seconds > 0 and _has_descriptor(sys.stderr)
        try:
            while not self.is_stalled():
                if has_alarm:
                    faulthandler.dump_traceback_later(self._config.loop_seconds, exit=True)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            if has_alarm:
                faulthandler.cancel_dump_traceback_later()


def _has_descriptor(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False
