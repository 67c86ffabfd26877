"""How far a stream has come, without any I/O: of one generation or many, asyncio or blocking.

It belongs to whoever reads the stream. Closing may come from any thread.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypedDict

from hocket.client._channel import CallMetadata, Connection
from hocket.client._errors import ClientError, DuplicateRequest, InvalidRequest, StreamError
from hocket.client._retry import Attempts, is_loss


class CallArguments(TypedDict):
    """What each attempt at a call is made with, besides its request."""

    timeout: float | None
    metadata: CallMetadata


class Resumable(Protocol):
    """What has arrived on a stream, as far as a next attempt may go on with it."""

    @property
    def can_resume(self) -> bool:
        """Whether the next attempt can go on where this one breaks."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing even though the stream broke."""

    def take_progress(self) -> bool:
        """Return whether something new has arrived since this was asked last."""


class StreamState:
    """Whether a stream may still be used, and what its failures lead to."""

    def __init__(
        self,
        *,
        connection: Connection[Any],
        attempts: Attempts,
        metadata: Callable[[], CallMetadata],
    ) -> None:
        self._resumable: Resumable | None = None
        self._loss: ClientError | None = None
        self._connection = connection
        self._attempts = attempts
        self._metadata = metadata
        self._failure: ClientError | None = None
        self._is_closed = False
        self._is_repeatable = True
        self._is_at_end = False

    @property
    def is_closed(self) -> bool:
        """Whether the stream was closed, or its client left."""
        return self._is_closed or self._connection.is_closed

    @property
    def is_at_end(self) -> bool:
        """Whether the server has said all."""
        return self._is_at_end

    @property
    def is_complete(self) -> bool:
        """Whether all has arrived but the status."""
        return self._resumable is not None and self._resumable.is_complete

    def resume_by(self, resumable: Resumable) -> None:
        """Let the next attempt go on where one breaks, as far as this allows."""
        self._resumable = resumable

    def spent_seconds(self) -> float:
        """Return how long ago the first attempt was made of which something has arrived."""
        return self._attempts.spent_seconds()

    def arguments(self) -> CallArguments:
        """Return what the next attempt is made with: the time that is left, and a fresh token."""
        self._attempts.start()
        return {"timeout": self._attempts.remaining_seconds(), "metadata": self._metadata()}

    def check_open(self) -> None:
        """Return if the stream may be read.

        Raises:
            ClientError: It failed; the same error each time.
            StreamError: It is closed.
        """
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self.is_closed:
            raise StreamError("the stream is closed")

    def check_unfinished(self) -> None:
        """Return if the stream may be written to.

        Raises:
            ClientError: It failed; the same error each time.
            StreamError: It is closed or at its end.
        """
        self.check_open()
        if self._is_at_end:
            raise StreamError("the stream is closed")

    def begin(self) -> None:
        """Note that something of the answer has arrived. Repeatable."""
        self._attempts.begin()

    def end(self) -> None:
        """Note that the server has said all. Repeatable."""
        self._attempts.begin()
        self._is_at_end = True

    def forgo_repeats(self) -> None:
        """Make no further attempt: what it would have to send is no longer known. Repeatable."""
        self._is_repeatable = False

    def close(self) -> None:
        """Let nothing more be read. Repeatable."""
        self._is_closed = True

    def wait_after(self, failure: ClientError) -> float:
        """Note how an attempt failed and return the seconds to wait before the next.

        Raises:
            ClientError: There is no next one; this failure, or the loss that it could not mend.
        """
        wait = self._wait_after(failure) if self._is_repeatable else None
        if wait is not None:
            return wait
        if self._loss is not None and _is_refusal(failure):
            self._failure = self._loss
            raise self._loss from failure
        self._failure = failure
        raise failure

    def _wait_after(self, failure: ClientError) -> float | None:
        if self._resumable is None or not self._resumable.can_resume:
            return self._attempts.wait_after(failure)
        if self._attempts.has_begun:
            if not is_loss(failure):
                return None
            self._loss = failure
            has_progressed = self._resumable.take_progress()
            return self._attempts.wait_after_loss(failure, has_progressed=has_progressed)
        if isinstance(failure, DuplicateRequest) and self._loss is not None:
            # The server has not noticed yet that the stream of this name is lost.
            failure = self._loss
        return self._attempts.wait_after(failure)


def _is_refusal(failure: ClientError) -> bool:
    """Whether a server could not go on with a stream that it was asked to."""
    return isinstance(failure, InvalidRequest) and any(
        violation.field.partition(".")[0] == "resume" for violation in failure.violations
    )
