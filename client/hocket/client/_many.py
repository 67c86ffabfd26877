"""Many generations over one stream, for asyncio. The loop thread of its client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Unpack

import grpc.aio

from hocket.client._calls import CallSettings
from hocket.client._errors import ClientError, StreamError
from hocket.client._many_state import ManyEvent, ManyResult, ManyState, Outbox
from hocket.client._requests import GenerationOptions
from hocket.client._stream import error_of_aio, is_task_cancelled
from hocket.v1 import generation_pb2

ManyMulticallable = grpc.aio.StreamStreamMultiCallable[
    generation_pb2.GenerateManyRequest, generation_pb2.GenerateManyResponse
]
ManyCall = grpc.aio.StreamStreamCall[
    generation_pb2.GenerateManyRequest, generation_pb2.GenerateManyResponse
]


class ManyStream:
    """Many generations; iterating gives pairs of a request id and its next event, or its error.

    Made by `AsyncClient.generate_many`; leaving that block cancels all that are in progress. The
    iteration ends after `close_sending`, when every request has finished or failed. A request that
    fails disturbs no other; an exception means that the whole stream failed.

    Until the first event arrives, a refused or lost stream is opened again as the retry policy
    says, with all requests. One request that is refused is not sent again by itself: its error
    says `retry_after`.
    """

    def __init__(
        self,
        *,
        method: ManyMulticallable,
        settings: CallSettings,
        timeout: float | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._method = method
        self._settings = settings
        self._sleep = sleep
        self._attempts = settings.attempts(timeout)
        self._state = ManyState()
        self._outbox = Outbox()
        self._changed = asyncio.Event()
        self._is_closed = False
        self._is_at_end = False
        self._failure: ClientError | None = None
        self._open()

    @property
    def in_progress(self) -> frozenset[str]:
        """Ids of the requests that have neither finished nor failed."""
        return self._state.in_progress

    async def submit(self, prompt: str | None = None, **options: Unpack[GenerationOptions]) -> str:
        """Start one more generation and return its id. Waits only while many wait to be sent.

        Args:
            prompt: What is continued; or `messages` or `token_ids` among the options.
            **options: See `GenerationOptions`.

        Raises:
            StreamError: The sending side is closed, or the stream is.
            TypeError: There is not exactly one input, or an option is unknown.
            ValueError: A value cannot be sent, or the id is in use on this stream.
        """
        self._check_open()
        while not self._outbox.has_room:
            await self._changed.wait()
            self._check_open()
        self._outbox.check_open()
        action = self._state.begin(prompt, options)
        self._outbox.put(action)
        self._announce()
        return action.generate.request_id

    def cancel(self, request_id: str) -> None:
        """End one generation; unknown and finished ones are ignored.

        Its last event is `Finished`, with `FinishReason.CANCELLED` unless it ended before.

        Raises:
            StreamError: The sending side is closed.
        """
        action = self._state.cancel(request_id)
        if action is not None:
            self._outbox.put(action)
            self._announce()

    def close_sending(self) -> None:
        """Say that no more requests will come. Repeatable."""
        self._outbox.is_closed = True
        self._announce()

    def __aiter__(self) -> AsyncIterator[ManyEvent]:
        return self

    async def __anext__(self) -> ManyEvent:
        event, _ = await self._next()
        return event

    async def results(self) -> AsyncIterator[ManyResult]:
        """Yield whole generations, or the errors of those that failed, in the order of their end.

        Those whose last event was iterated over before are not among them.
        """
        while True:
            try:
                _, result = await self._next()
            except StopAsyncIteration:
                return
            if result is not None:
                yield result

    def close(self) -> None:
        """Cancel all that is in progress. Repeatable; done by leaving the block."""
        self._is_closed = True
        self._outbox.is_closed = True
        self._call.cancel()
        self._announce()

    async def _next(self) -> tuple[ManyEvent, ManyResult | None]:
        while True:
            message = await self._read()
            if message is None:
                self._state.check_ended()
                raise StopAsyncIteration
            taken = self._state.take(message)
            if taken is not None:
                return taken

    def _open(self) -> None:
        self._outbox.rewind()
        self._attempt = object()
        self._call: ManyCall = self._method(
            self._actions(self._attempt),
            timeout=self._attempts.remaining_seconds(),
            metadata=self._settings.metadata(),
        )

    async def _actions(self, attempt: object) -> AsyncIterator[generation_pb2.GenerateManyRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        while attempt is self._attempt:
            action = self._outbox.take()
            if action is not None:
                self._announce()
                yield action
            elif self._outbox.is_closed:
                return
            else:
                await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closed or self._is_at_end:
            raise StreamError("the stream is closed")

    async def _read(self) -> generation_pb2.GenerateManyResponse | None:
        """Return the next message, opening the stream again as needed; None at the end."""
        while True:
            if self._is_at_end:
                return None
            self._check_open()
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                failure = error_of_aio(error)
            except asyncio.CancelledError:
                if is_task_cancelled():
                    raise
                raise StreamError("the stream is closed") from None
            else:
                self._attempts.begin()
                self._outbox.commit()
                if isinstance(message, generation_pb2.GenerateManyResponse):
                    return message
                self._is_at_end = True
                self._announce()
                return None
            wait = self._attempts.wait_after(failure)
            if wait is None:
                self._failure = failure
                self._announce()
                raise failure from None
            await self._sleep(wait)
            if not self._is_closed:
                self._open()
