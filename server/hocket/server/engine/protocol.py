"""An engine as the porch sees it: submit, abort, drain, statistics. Loop thread."""

from collections.abc import AsyncIterator
from typing import Protocol

from hocket.server.engine.commands import FinishReason, RequestOutput, Submit
from hocket.server.engine.statistics import EngineStatistics


class Generation(Protocol):
    """A submitted request, whose outputs wait in a mailbox."""

    def __aiter__(self) -> AsyncIterator[RequestOutput]:
        """Yield outputs until the last; what gathers while the reader is away is merged.

        Raises:
            HocketError: The request failed; raised in place of an output with a failure.
        """
        ...

    def abort_nowait(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask that the request end; its last output still comes. Repeatable."""
        ...

    def close_nowait(self) -> None:
        """Leave: the request is aborted if it runs, and its outputs are thrown away. Repeatable."""
        ...


class Engine(Protocol):
    """Something that writes text."""

    def submit_nowait(self, submit: Submit) -> Generation:
        """Hand in a request.

        Raises:
            DuplicateRequest: A request with this id is in progress.
            EngineFailed: The engine died.
        """
        ...

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end; False if none with this id is in progress."""
        ...

    def statistics(self) -> EngineStatistics:
        """Return the newest snapshot."""
        ...
