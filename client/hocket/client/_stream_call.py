"""The messages of one streaming call, for asyncio. The loop thread of its client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from hocket.client._errors import ClientError, StreamError, error_of_call, unreadable_answer
from hocket.client._stream_state import StreamState

ResultT = TypeVar("ResultT")
MessageT = TypeVar("MessageT")
MessageT_co = TypeVar("MessageT_co", covariant=True)


class ReadableCall(Protocol[MessageT_co]):
    """What both of grpc.aio's kinds of call can do whose answer is a stream."""

    def __aiter__(self) -> AsyncIterator[MessageT_co]: ...

    def add_done_callback(self, callback: Callable[[Any], None], /) -> None:
        """Call this with the call, as soon as its status is known."""

    def cancel(self) -> bool:
        """End the call."""

    def cancelled(self) -> bool:
        """Whether it was ended here."""

    def done(self) -> bool:
        """Whether its status is known."""


def error_of_aio(error: grpc.aio.AioRpcError) -> ClientError:
    """Make our error of grpc.aio's."""
    return error_of_call(error.code().name, error.details() or "", error.trailing_metadata() or ())


def is_task_cancelled() -> bool:
    """Whether a `CancelledError` is meant for this task, and not only for the call it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class StreamCall(Generic[MessageT]):
    """A call whose answer is a stream; made again, as its state decides, until the first message.

    The call is made at once.
    """

    def __init__(
        self,
        *,
        start: Callable[[], ReadableCall[MessageT]],
        state: StreamState,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._start = start
        self._state = state
        self._sleep = sleep
        self._attempt = _Attempt(start())

    @property
    def is_over(self) -> bool:
        """Whether the present attempt has ended, so that it sends and receives nothing more."""
        return self._attempt.call.done()

    async def read(self) -> MessageT | None:
        """Return the next message; None at the end, as often as asked.

        Raises:
            ClientError: The call failed for good, or was closed.
        """
        while not self._state.is_at_end:
            self._state.check_open()
            try:
                message: MessageT | None = await anext(self._attempt.messages)
            except StopAsyncIteration:
                if self._attempt.call.cancelled():
                    raise StreamError("the stream is closed") from None
                self._state.end()
                return None
            except grpc.aio.AioRpcError as error:
                if self._attempt.ended_well:
                    self._state.end()
                    return None
                failure = self._attempt.failure(error)
            except asyncio.CancelledError:
                if is_task_cancelled():
                    raise
                raise StreamError("the stream is closed") from None
            else:
                self._state.begin()
                if message is not None:
                    return message
                failure = unreadable_answer()
            if self._state.is_complete:
                self._state.end()
                return None
            await self._sleep(self._state.wait_after(failure))
            self._state.check_open()
            self._attempt = _Attempt(self._start())
        return None

    def close(self) -> None:
        """Cancel the call. Repeatable."""
        self._state.close()
        self._attempt.call.cancel()


class _Attempt(Generic[MessageT]):
    """One call, and the status that it ended with.

    grpc.aio puts INTERNAL in place of the server's status when a write fails because the server
    has ended the call (grpc/grpc#36066). Often the true one was known before; then it is kept
    here. Otherwise it comes in the end. `call.read()` is not used, since it drops messages that
    arrived before such a write.
    """

    def __init__(self, call: ReadableCall[MessageT]) -> None:
        self.call = call
        self.messages = aiter(call)
        self.ended_well = False
        self._failure: ClientError | None = None
        call.add_done_callback(self._note_status)

    def failure(self, error: grpc.aio.AioRpcError) -> ClientError:
        """Return how the call failed, which is not always what grpc.aio raises."""
        return self._failure or error_of_aio(error)

    def _note_status(self, call: grpc.aio.Call) -> None:
        code = _result_of(call.code())
        self.ended_well = code is grpc.StatusCode.OK
        if code is not None and code not in {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL}:
            message, trailers = _result_of(call.details()), _result_of(call.trailing_metadata())
            self._failure = error_of_call(code.name, message or "", trailers or ())


def _result_of(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Return what a coroutine gives without waiting; None if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: ResultT = stop.value
        return result
    coroutine.close()
    return None
