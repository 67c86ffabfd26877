"""A request in progress, as its handler holds it. Loop thread.

    reserved ▸ prepared ▸ submitted ▸ read to its last output ▸ closed

Its id is taken from the first moment, so that it can be aborted, and no other can take its name,
while its prompt is still being tokenised.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from hocket.server.engine.commands import FinishReason, RequestOutput, Submit
from hocket.server.engine.mailbox import Mailbox
from hocket.server.errors import HocketError

_T = TypeVar("_T")


class Owner(Protocol):
    """Who knows all requests in progress."""

    def enter_nowait(
        self, submit: Submit, mailbox: Mailbox, abort_for: FinishReason | None
    ) -> None:
        """Let a reserved request in, to be aborted at once where a reason is given."""
        ...

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end."""
        ...

    def forget_nowait(self, request_id: str, mailbox: Mailbox) -> None:
        """Abort a request whose reader left."""
        ...


class DrivenGeneration:
    """One request of a driver."""

    def __init__(self, owner: Owner, request_id: str, mailbox: Mailbox) -> None:
        self._owner = owner
        self._request_id = request_id
        self._mailbox = mailbox
        self._is_submitted = False
        self._abort_for: FinishReason | None = None
        self._preparing: asyncio.Timeout | None = None

    async def prepare(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Await what must be done before `submit_nowait`; see `Generation.prepare`."""
        self._mailbox.check_not_failed()
        scope = asyncio.timeout(None)  # no time limit: a scope that `fail_nowait` can cancel
        try:
            async with scope:
                self._preparing = scope
                return await work()
        except TimeoutError:
            if scope.expired():
                self._mailbox.check_not_failed()
            raise
        finally:
            self._preparing = None

    def submit_nowait(self, submit: Submit) -> None:
        """Hand the request in, once; see `Generation.submit_nowait`."""
        self._mailbox.check_not_failed()
        self._owner.enter_nowait(submit, self._mailbox, self._abort_for)
        self._is_submitted = True

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        while (output := await self._mailbox.take()) is not None:
            yield output

    def abort_nowait(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask that the request end; its last output still comes. Repeatable."""
        if not self._is_submitted:
            self._abort_for = self._abort_for or reason
        elif not self._mailbox.has_end:
            self._owner.abort_nowait(self._request_id, reason)

    def fail_nowait(self, failure: HocketError) -> None:
        """End a request that is not submitted yet; what is being prepared is given up."""
        self._mailbox.fail(failure)
        if self._preparing is not None:
            self._preparing.reschedule(asyncio.get_running_loop().time())

    def owns(self, mailbox: Mailbox) -> bool:
        """Whether this is the request whose outputs come into a mailbox."""
        return mailbox is self._mailbox

    def close_nowait(self) -> None:
        """Leave: abort the request if it runs, and throw its outputs away. Repeatable."""
        self._owner.forget_nowait(self._request_id, self._mailbox)
