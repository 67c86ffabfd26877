"""One generation as it is written, for asyncio. The loop thread of its client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio

from hocket.client._calls import CallSettings
from hocket.client._collect import Collector
from hocket.client._errors import ClientError, StreamError, error_of_call
from hocket.client._events import Delta, Event, GenerationResult, Sentence
from hocket.client._parse import parse_event
from hocket.client._requests import make_request_id
from hocket.v1 import generation_pb2

GenerateMulticallable = grpc.aio.UnaryStreamMultiCallable[
    generation_pb2.GenerateRequest, generation_pb2.GenerateResponse
]
GenerateCall = grpc.aio.UnaryStreamCall[
    generation_pb2.GenerateRequest, generation_pb2.GenerateResponse
]


def error_of_aio(error: grpc.aio.AioRpcError) -> ClientError:
    """Make our error of grpc.aio's."""
    return error_of_call(error.code().name, error.details() or "", error.trailing_metadata() or ())


def is_task_cancelled() -> bool:
    """Whether a `CancelledError` is meant for this task, and not only for the call it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class GenerationStream:
    """One generation; iterating gives its events.

    Made by `AsyncClient.stream`; leaving that block cancels what is still being written. Until the
    first event arrives, a refused or lost call is made again as the retry policy says.
    """

    def __init__(
        self,
        *,
        method: GenerateMulticallable,
        request: generation_pb2.GenerateRequest,
        settings: CallSettings,
        timeout: float | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._method = method
        self._request = request
        self._settings = settings
        self._sleep = sleep
        self._makes_ids = not request.request_id
        self._attempts = settings.attempts(timeout)
        self._is_closed = False
        self._is_at_end = False
        self._failure: ClientError | None = None
        self._open()

    @property
    def request_id(self) -> str:
        """The id that the request runs under; another one for each attempt unless given."""
        return self._request.request_id

    @property
    def texts(self) -> tuple[str, ...]:
        """What has arrived of each answer, by index. Stays valid when the stream fails."""
        return self._collector.texts

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while True:
            message = await self._read()
            if message is None:
                self._collector.check_finished()
                raise StopAsyncIteration
            event = parse_event(message)
            if event is not None:
                self._collector.add(event)
                return event

    async def text(self, *, choice_index: int = 0) -> AsyncIterator[str]:
        """Yield the text of one answer in pieces, as they arrive; none is empty."""
        async for event in self:
            if not isinstance(event, Delta | Sentence):
                continue
            if event.choice_index == choice_index and event.text:
                yield event.text

    async def result(self) -> GenerationResult:
        """Wait for the end and return the whole generation, with what was iterated before."""
        async for _ in self:
            pass
        return self._collector.result()

    def close(self) -> None:
        """Cancel what is still being written. Repeatable; done by leaving the block."""
        self._is_closed = True
        self._call.cancel()

    def _open(self) -> None:
        if self._makes_ids:
            # The id of a lost attempt may still be in use on the server.
            self._request.request_id = make_request_id()
        self._collector = Collector(self._request.request_id)
        self._call: GenerateCall = self._method(
            self._request,
            timeout=self._attempts.remaining_seconds(),
            metadata=self._settings.metadata(),
        )

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise StreamError("the stream is closed")

    async def _read(self) -> generation_pb2.GenerateResponse | None:
        """Return the next message, making the call again as needed; None at the end."""
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
                if isinstance(message, generation_pb2.GenerateResponse):
                    return message
                self._is_at_end = True
                return None
            wait = self._attempts.wait_after(failure)
            if wait is None:
                self._failure = failure
                raise failure from None
            await self._sleep(wait)
            if not self._is_closed:
                self._open()
