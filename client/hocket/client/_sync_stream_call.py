"""The messages of one streaming call, blocking. Read by one thread at a time; any may close it."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

import grpc

from hocket.client._errors import ClientError, error_of_call
from hocket.client._stream_state import StreamState

MessageT = TypeVar("MessageT")
MessageT_co = TypeVar("MessageT_co", covariant=True)


class ReadableCall(Protocol[MessageT_co]):
    """What both of gRPC's kinds of call can do whose answer is a stream."""

    def __next__(self) -> MessageT_co: ...

    def cancel(self) -> bool:
        """End the call."""

    def is_active(self) -> bool:
        """Whether its status is still open."""


def error_of_rpc(error: grpc.RpcError) -> ClientError:
    """Make our error of gRPC's, which is also the call."""
    call = cast("grpc.Call", error)
    return error_of_call(call.code().name, call.details() or "", call.trailing_metadata() or ())


class SyncStreamCall(Generic[MessageT]):
    """The blocking twin of `StreamCall`, which describes it."""

    def __init__(
        self,
        *,
        start: Callable[[], ReadableCall[MessageT]],
        state: StreamState,
        sleep: Callable[[float], object],
    ) -> None:
        self._start = start
        self._state = state
        self._sleep = sleep
        self._open()

    @property
    def is_over(self) -> bool:
        """Whether the present attempt has ended, so that it sends and receives nothing more."""
        return not self._call.is_active()

    def read(self) -> MessageT | None:
        """Return the next message; None at the end, as often as asked.

        Raises:
            ClientError: The call failed for good, or was closed.
        """
        while not self._state.is_at_end:
            self._state.check_open()
            try:
                message = next(self._call)
            except StopIteration:
                self._state.end()
                return None
            except grpc.RpcError as error:
                failure = error_of_rpc(error)
            else:
                self._state.begin()
                return message
            # Closing by another thread looks like a failure to the one that reads.
            self._state.check_open()
            if self._state.is_complete:
                self._state.end()
                return None
            self._sleep(self._state.wait_after(failure))
            self._state.check_open()
            self._open()
        return None

    def close(self) -> None:
        """Cancel the call. Repeatable."""
        self._state.close()
        self._call.cancel()

    def _open(self) -> None:
        try:
            self._call = self._start()
        except ValueError:
            self._state.check_open()  # gRPC's word for a channel that was closed meanwhile
            raise
        if self._state.is_closed:  # by another thread, before it could see this call
            self._call.cancel()
