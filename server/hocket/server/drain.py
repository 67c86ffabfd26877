"""How the server leaves without losing anything: told, then quiet, then gone. Loop thread.

    asked to leave       health NOT_SERVING, new work is still taken
    + delay_seconds      new work is refused; watch streams end; the listener stops taking calls
    + grace_seconds      what still runs is ended with a status that says why
    at last              the engine stops

The delay gives load balancers time to see health before calls are refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import structlog
from annotated_types import Ge, Le

from hocket.server.lifecycle import Lifecycle, ServerState

_log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 2.0  # for the statuses of aborted calls to reach their callers


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainConfig:
    """How the server leaves.

    Attributes:
        delay_seconds: Seconds during which it goes on taking new work after health has turned, so
            that load balancers see it first. An interrupt from the keyboard does not wait.
        grace_seconds: Seconds that accepted work then has to finish.
    """

    delay_seconds: Annotated[float, Ge(0), Le(3_600)] = 5.0
    grace_seconds: Annotated[float, Ge(0), Le(86_400)] = 120.0


class Door(Protocol):
    """What takes calls."""

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls; return when all have ended, cancelled after that many seconds."""
        ...


class Departure:
    """The wish to leave, whoever has it: a signal, an operator's call, a fault. Loop thread."""

    def __init__(self, config: DrainConfig) -> None:
        self._config = config
        self._wished = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def is_wished(self) -> bool:
        """Whether somebody asked to leave."""
        return self._wished.is_set()

    def wish(self, *, in_hurry: bool = False) -> float:
        """Ask to leave, without the delay if in a hurry; return the delay. Repeatable."""
        self._wished.set()
        if in_hurry:
            self._hurried.set()
        return 0.0 if self._hurried.is_set() else self._config.delay_seconds

    async def wait_wished(self) -> None:
        """Wait until somebody asks to leave."""
        await self._wished.wait()

    async def drain(
        self, lifecycle: Lifecycle, door: Door, *, abort_all: Callable[[], int]
    ) -> None:
        """Let accepted work finish and take no more.

        Args:
            lifecycle: Told of each stage.
            door: Takes no more calls after the delay.
            abort_all: Ends all that runs with a status that says why; returns how many. Called
                again, it waits for nothing on the way.
        """
        was_serving = lifecycle.is_serving
        lifecycle.enter(ServerState.DRAINING)
        _log.info("draining", grace_seconds=self._config.grace_seconds)
        if was_serving:  # otherwise nobody was sent here
            await _passed(self._hurried, self._config.delay_seconds)
        lifecycle.close_admission()
        grace = self._config.grace_seconds
        stopping = asyncio.create_task(door.stop(grace + _LAST_WORDS_SECONDS))
        try:
            if not (await asyncio.wait({stopping}, timeout=grace))[0]:
                _log.warning("aborting what did not finish", generations=abort_all())
                if not (await asyncio.wait({stopping}, timeout=_LAST_WORDS_SECONDS / 2))[0]:
                    abort_all()
        finally:
            await stopping


async def _passed(event: asyncio.Event, seconds: float) -> None:
    """Wait for so many seconds, or for the event if it comes first."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
