"""Many generations over one stream, for asyncio. The loop thread of its client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Unpack

import grpc.aio

from hocket.client._many_state import ManyEvent, ManyResult, ManyState, Outbox
from hocket.client._requests import GenerationOptions
from hocket.client._stream_call import StreamCall
from hocket.client._stream_state import StreamState
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
        state: StreamState,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._method = method
        self._state = state
        self._requests = ManyState()
        self._outbox = Outbox[generation_pb2.GenerateManyRequest]()
        self._changed = asyncio.Event()
        self._is_reading = False
        self._call = StreamCall[generation_pb2.GenerateManyResponse](
            start=self._start, state=state, sleep=sleep
        )

    @property
    def in_progress(self) -> frozenset[str]:
        """Ids of the requests that have neither finished nor failed."""
        return self._requests.in_progress

    async def submit(self, prompt: str | None = None, **options: Unpack[GenerationOptions]) -> str:
        """Start one more generation and return its id. Waits only while many wait to be sent.

        Args:
            prompt: What is continued; or `messages` or `token_ids` among the options.
            **options: See `GenerationOptions`.

        Raises:
            ClientError: The stream failed; this error.
            StreamError: The sending side is closed, or the stream is.
            TypeError: There is not exactly one input, or an option is unknown.
            ValueError: A value cannot be sent, or the id is in use on this stream.
        """
        self._state.check_unfinished()
        while not self._outbox.has_room(is_served=self._is_reading or not self._call.is_over):
            await self._changed.wait()
            self._state.check_unfinished()
        self._outbox.check_open()
        action = self._requests.begin(prompt, options)
        self._outbox.put(action)
        self._announce()
        return action.generate.request_id

    def cancel(self, request_id: str) -> None:
        """End one generation; unknown and finished ones are ignored.

        Its last event is `Finished`, with `FinishReason.CANCELLED` unless it ended before.

        Raises:
            StreamError: The sending side is closed.
        """
        action = self._requests.cancel(request_id)
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
        self._outbox.is_closed = True
        self._call.close()
        self._end_attempt()

    async def _next(self) -> tuple[ManyEvent, ManyResult | None]:
        while (message := await self._read()) is not None:
            taken = self._requests.take(message)
            if taken is not None:
                return taken
        self._requests.check_ended()
        raise StopAsyncIteration

    async def _read(self) -> generation_pb2.GenerateManyResponse | None:
        self._is_reading = True
        try:
            message = await self._call.read()
        finally:
            self._is_reading = False
            if self._call.is_over:
                self._end_attempt()
        self._outbox.forget()
        return message

    def _start(self) -> ManyCall:
        self._end_attempt()
        self._outbox.rewind()
        call = self._method(self._actions(self._attempt), **self._state.arguments())
        # Who waits for room hears of an end that nobody reads.
        call.add_done_callback(lambda _: self._announce())
        return call

    def _end_attempt(self) -> None:
        self._attempt = object()
        self._announce()

    async def _actions(self, attempt: object) -> AsyncIterator[generation_pb2.GenerateManyRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        while attempt is self._attempt:
            action = self._outbox.take()
            if action is not None:
                if not self._outbox.keeps_sent:
                    self._state.forgo_repeats()
                self._announce()
                yield action
            elif self._outbox.is_closed:
                return
            else:
                await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
