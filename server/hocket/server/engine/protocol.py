"""An engine as the porch sees it: reserve, submit, abort, statistics. Loop thread."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from hocket.server.engine.commands import Command, FinishReason, RequestOutput, StepOutputs, Submit
from hocket.server.engine.statistics import EngineStatistics

_T = TypeVar("_T")


class Core(Protocol):
    """What a driver drives. Engine thread."""

    def step(self, commands: Sequence[Command]) -> StepOutputs:
        """Apply commands and compute one batch."""
        ...


class Generation(Protocol):
    """A request from the reservation of its id to its last output."""

    async def prepare(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Await what must be done before the request is submitted.

        Raises:
            HocketError: The request failed meanwhile; the work was given up.
            Exception: Whatever the work raises.
        """
        ...

    def submit_nowait(self, submit: Submit) -> None:
        """Hand the request in, once.

        Raises:
            HocketError: It has failed already, as all have if the engine died.
        """
        ...

    def __aiter__(self) -> AsyncIterator[RequestOutput]:
        """Yield outputs until the last; what gathers while the reader is away is merged.

        Raises:
            HocketError: The request failed; raised in place of an output with a failure.
        """
        ...

    def abort_nowait(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask that the request end; its last output still comes. Repeatable.

        One that is not submitted yet ends as soon as it is.
        """
        ...

    def close_nowait(self) -> None:
        """Leave: the request is aborted if it runs, and its outputs are thrown away. Repeatable."""
        ...


class Engine(Protocol):
    """Something that writes text."""

    def reserve_nowait(self, request_id: str) -> Generation:
        """Take an id for a request that will be submitted; `close_nowait` gives it back.

        Raises:
            DuplicateRequest: A request with this id is in progress.
            Draining: The engine takes no more.
            EngineFailed: It died.
        """
        ...

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end; False if none with this id is in progress."""
        ...

    def statistics(self) -> EngineStatistics:
        """Return the newest snapshot."""
        ...
