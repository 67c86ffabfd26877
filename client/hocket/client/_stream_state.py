"""How far a stream has come, without any I/O: of one generation or many, asyncio or blocking.

It belongs to whoever reads the stream. Closing may come from any thread.
"""

from collections.abc import Callable
from typing import Any, TypedDict

from hocket.client._channel import CallMetadata, Connection
from hocket.client._errors import ClientError, StreamError
from hocket.client._retry import Attempts


class CallArguments(TypedDict):
    """What each attempt at a call is made with, besides its request."""

    timeout: float | None
    metadata: CallMetadata


class StreamState:
    """Whether a stream may still be used, and what its failures lead to."""

    def __init__(
        self,
        *,
        connection: Connection[Any],
        attempts: Attempts,
        metadata: Callable[[], CallMetadata],
    ) -> None:
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

    def arguments(self) -> CallArguments:
        """Return what the next attempt is made with: the time that is left, and a fresh token."""
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
            ClientError: There is no next one; this failure.
        """
        wait = self._attempts.wait_after(failure) if self._is_repeatable else None
        if wait is None:
            self._failure = failure
            raise failure
        return wait
