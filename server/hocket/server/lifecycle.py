"""Which state the server is in, and who wants to know. Loop thread.

    STARTING → LOADING → WARMING → SERVING → DRAINING → STOPPED
                    FAILED from any of the first five

While DRAINING the server first goes on accepting, so that load balancers have time to see that it
is leaving; `close_admission` ends that.
"""

import asyncio
from collections.abc import AsyncIterator
from enum import Enum

from hocket.server.errors import Draining, EngineFailed, NotReady


class ServerState(Enum):
    """A state of the server's life."""

    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


_NEXT: dict[ServerState, frozenset[ServerState]] = {
    ServerState.STARTING: frozenset(
        {ServerState.LOADING, ServerState.DRAINING, ServerState.FAILED}
    ),
    ServerState.LOADING: frozenset({ServerState.WARMING, ServerState.DRAINING, ServerState.FAILED}),
    ServerState.WARMING: frozenset({ServerState.SERVING, ServerState.DRAINING, ServerState.FAILED}),
    ServerState.SERVING: frozenset({ServerState.DRAINING, ServerState.FAILED}),
    ServerState.DRAINING: frozenset({ServerState.STOPPED, ServerState.FAILED}),
    ServerState.STOPPED: frozenset(),
    ServerState.FAILED: frozenset(),
}


class Lifecycle:
    """The server's state, with a way to wait for the next one."""

    def __init__(self) -> None:
        self._state = ServerState.STARTING
        self._is_admission_closed = False
        self._changed = asyncio.Event()

    @property
    def state(self) -> ServerState:
        """The present state."""
        return self._state

    @property
    def is_serving(self) -> bool:
        """Whether health says so: new work is welcome."""
        return self._state is ServerState.SERVING

    @property
    def is_leaving(self) -> bool:
        """Whether long-lived watch streams must end now."""
        return self._is_admission_closed or self._state in {ServerState.STOPPED, ServerState.FAILED}

    def enter(self, state: ServerState) -> None:
        """Go to a later state; the present one again, or FAILED after FAILED, changes nothing.

        Raises:
            ValueError: The state cannot follow the present one.
        """
        if state is self._state:
            return
        if state not in _NEXT[self._state]:
            raise ValueError(f"{state.name} cannot follow {self._state.name}")
        self._state = state
        self._announce()

    def close_admission(self) -> None:
        """Refuse new work from now on. Repeatable."""
        self._is_admission_closed = True
        self._announce()

    def check_accepting(self) -> None:
        """Return if new work may come in.

        Raises:
            NotReady: The model is not loaded yet.
            Draining: The server is leaving.
            EngineFailed: The engine died.
        """
        if self._state is ServerState.FAILED:
            raise EngineFailed
        if self._is_admission_closed or self._state is ServerState.STOPPED:
            raise Draining
        if self._state in {ServerState.STARTING, ServerState.LOADING, ServerState.WARMING}:
            raise NotReady

    async def states(self) -> AsyncIterator[ServerState]:
        """Yield the present state, then each newest one after a change; states may be skipped.

        A change is also announced when admission closes, so that watchers can see `is_leaving`.
        """
        while True:
            changed = self._changed
            yield self._state
            await changed.wait()

    async def wait_for(self, *states: ServerState) -> ServerState:
        """Wait until the server is in one of these states and return it."""
        while self._state not in states:
            await self._changed.wait()
        return self._state

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
