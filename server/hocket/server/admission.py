"""Who may come in: places to run and to wait, in all and for each connection. Loop thread.

The door is not waited at: there is a place or there is none. Who got in waits, if need be, in the
engine's scheduler, which knows priorities and deadlines. A refusal says when to come back,
estimated from the rate at which places have really been given back. Only a corpus job, whose caller
is kept from sending more meanwhile, waits outside.

Who is inside with one request of many parts, a document or a corpus, asks for more places as it
goes on, and does with fewer where none are free. All such places together are no more than a share:
the others are kept for those who have none.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Self

from annotated_types import Ge, Le

from hocket.server.errors import Overloaded

_LEAST_WAIT, _MOST_WAIT = 0.05, 30.0  # seconds
_UNKNOWN_WAIT = 1.0  # before anybody has left
_NEVER = -1.0  # for what is larger than the whole house
_MEMORY_SECONDS = 10.0  # over how long the rate is a mean


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionConfig:
    """How many requests may be in progress. A request of `n` choices counts `n` times.

    Attributes:
        max_running: Places to run. Keep it at `engine.max_num_seqs` of all workers together or
            below.
        max_waiting: Places to wait for one to run.
        max_per_connection: Places of one connection. A proxy in front shares few connections among
            many callers: raise it there.
        document_share: Share of the places, in all and of each connection, that documents and
            corpus jobs may take beyond the one that each comes in with. They take what is free and
            give it back segment by segment, item by item; the rest is kept for other calls. 0: one
            place each.
    """

    max_running: Annotated[int, Ge(1), Le(4_096)] = 32
    max_waiting: Annotated[int, Ge(0), Le(65_536)] = 128
    max_per_connection: Annotated[int, Ge(1), Le(65_536)] = 128
    document_share: Annotated[float, Ge(0), Le(1)] = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """The door at one moment.

    Attributes:
        in_progress: Places taken.
        further: Of these, taken by documents and corpus jobs beyond their first.
        connections: Connections that hold one.
        refused: Requests refused so far.
        leave_rate: Places given back in a second, lately.
    """

    in_progress: int
    further: int
    connections: int
    refused: int
    leave_rate: float


class Permit:
    """One or more places; given back once."""

    def __init__(
        self, admission: "Admission", connection: str, places: int, *, is_further: bool = False
    ) -> None:
        self._admission = admission
        self._connection = connection
        self._places = places
        self._is_further = is_further

    @property
    def is_held(self) -> bool:
        """Whether the places were not given back."""
        return self._places > 0

    def release(self) -> None:
        """Give the places back. Repeatable."""
        places, self._places = self._places, 0
        if places:
            self._admission._leave(  # noqa: SLF001 - its other half
                self._connection, places, is_further=self._is_further
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Semaphore:
    """A counting semaphore that is never waited for, and taken by several at once.

    Only so many may be taken further, by those who have some; they are among those taken.
    """

    def __init__(self, count: int, share: float) -> None:
        self.count = count
        self.taken = 0
        self.further = 0
        self._most_further = int(count * share)

    def acquire_nowait(self, places: int, *, is_further: bool = False) -> bool:
        """Take all of these places or none; False if there are too few."""
        free = self.count - self.taken
        if is_further:
            free = min(free, self._most_further - self.further)
        if places > free:
            return False
        self.taken += places
        self.further += places * is_further
        return True

    def release(self, places: int, *, is_further: bool = False) -> None:
        self.taken -= places
        self.further -= places * is_further


class Admission:
    """The door."""

    def __init__(
        self,
        config: AdmissionConfig,
        clock: Callable[[], float] = time.monotonic,
        *,
        noun: str = "requests in progress",
    ) -> None:
        """Open it; `noun` is what its places are called in a refusal."""
        self._config = config
        self._clock = clock
        self._noun = noun
        self._all = self._semaphore(config.max_running + config.max_waiting)
        self._connections: dict[str, _Semaphore] = {}
        self._refused = 0
        self._rate = 0.0
        self._rate_at = clock()
        self._left = asyncio.Event()

    def enter_nowait(self, connection: str, places: int = 1) -> Permit:
        """Take places, all or none.

        Args:
            connection: Names the caller's connection.
            places: How many, at least 1.

        Raises:
            Overloaded: There are too few, in all or for this connection.
        """
        own = self._own(connection)
        if not own.acquire_nowait(places):
            raise self._refusal("connection", own, places)
        if not self._all.acquire_nowait(places):
            own.release(places)
            raise self._refusal("server", self._all, places)
        self._connections[connection] = own
        return Permit(self, connection, places)

    def try_enter(self, connection: str, places: int = 1) -> Permit | None:
        """Take further places for who is inside, all or none; None if too few are free for that.

        Nobody is refused by it: who asked goes on with what it has, and may ask again.

        Args:
            connection: Names the caller's connection.
            places: How many, at least 1.
        """
        own = self._own(connection)
        if not own.acquire_nowait(places, is_further=True):
            return None
        if not self._all.acquire_nowait(places, is_further=True):
            own.release(places, is_further=True)
            return None
        self._connections[connection] = own
        return Permit(self, connection, places, is_further=True)

    async def enter(self, connection: str, places: int = 1) -> Permit:
        """Take places, all or none, once there are enough.

        Raises:
            Overloaded: There will never be enough.
        """
        own = self._config.max_per_connection
        while places <= min(own, self._all.count) and not self._has_room(connection, places):
            await self.wait_left()
        return self.enter_nowait(connection, places)

    async def wait_left(self) -> None:
        """Wait until somebody leaves."""
        await self._left.wait()

    def statistics(self) -> AdmissionStatistics:
        """Return how things stand."""
        return AdmissionStatistics(
            in_progress=self._all.taken,
            further=self._all.further,
            connections=len(self._connections),
            refused=self._refused,
            leave_rate=self._decayed_rate(),
        )

    def _has_room(self, connection: str, places: int) -> bool:
        own = self._connections.get(connection)
        taken = own.taken if own else 0
        return (
            places <= self._config.max_per_connection - taken
            and places <= self._all.count - self._all.taken
        )

    def _semaphore(self, count: int) -> _Semaphore:
        return _Semaphore(count, self._config.document_share)

    def _own(self, connection: str) -> _Semaphore:
        """Return the places of a connection, which is remembered once it holds one."""
        own = self._connections.get(connection)
        return own or self._semaphore(self._config.max_per_connection)

    def _leave(self, connection: str, places: int, *, is_further: bool) -> None:
        self._all.release(places, is_further=is_further)
        own = self._connections[connection]
        own.release(places, is_further=is_further)
        if not own.taken:
            del self._connections[connection]
        self._left.set()
        self._left = asyncio.Event()
        # An exponentially weighted count of departures, as a rate.
        self._rate = self._decayed_rate() + places / _MEMORY_SECONDS
        self._rate_at = self._clock()

    def _decayed_rate(self) -> float:
        elapsed = self._clock() - self._rate_at
        return self._rate * math.exp(-elapsed / _MEMORY_SECONDS)

    def _refusal(self, scope: str, met: _Semaphore, places: int) -> Overloaded:
        self._refused += 1
        # Half of those inside will have left by then: enough room, without all coming back at once.
        wait = self._expected_wait(max(places, met.taken / 2))
        return Overloaded(
            scope=scope,
            limit=met.count,
            noun=self._noun,
            retry_after_seconds=wait if places <= met.count else _NEVER,
        )

    def _expected_wait(self, places: float) -> float:
        """Return the seconds after which so many places will have been given back."""
        if self._rate == 0:
            return _UNKNOWN_WAIT
        rate = self._decayed_rate()
        wait = places / rate if rate > 0 else _MOST_WAIT  # it decays to nothing within hours
        return min(max(wait, _LEAST_WAIT), _MOST_WAIT)
