"""A corpus job, for asyncio. The loop thread of its client."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

import grpc.aio

from hocket.client._corpus_state import CorpusState, MapItem, MapResult
from hocket.client._errors import StreamError
from hocket.client._stream_call import StreamCall
from hocket.client._stream_state import StreamState
from hocket.v1 import text_pb2

ProcessMulticallable = grpc.aio.StreamStreamMultiCallable[
    text_pb2.ProcessRequest, text_pb2.ProcessResponse
]
ProcessCall = grpc.aio.StreamStreamCall[text_pb2.ProcessRequest, text_pb2.ProcessResponse]


class MapStream:
    """What comes of many texts. Made by `AsyncClient.map`; iterated over once.

    The job begins with the iteration. Leaving that, or the block of an `async with`, ends it. What
    the items' own iterable raises is raised here.
    """

    def __init__(
        self,
        items: Iterable[MapItem] | AsyncIterable[MapItem],
        *,
        start: text_pb2.ProcessStart,
        method: ProcessMulticallable,
        state: StreamState,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._items = items
        self._corpus = CorpusState(start)
        self._method = method
        self._state = state
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._attempt = object()
        self._call: StreamCall[text_pb2.ProcessResponse] | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[MapResult]:
        return self._results()

    def close(self) -> None:
        """End the job. Repeatable."""
        self._state.close()
        if self._call is not None:
            self._call.close()
        self._over.set()
        self._announce()

    async def _results(self) -> AsyncIterator[MapResult]:
        if self._call is not None:
            raise StreamError("the results were iterated over before")
        try:
            self._state.check_open()
            self._call = StreamCall(start=self._start, state=self._state, sleep=self._sleep)
            while (message := await self._read(self._call)) is not None:
                result = self._corpus.take(message)
                self._announce()
                if result is not None:
                    yield result
            self._corpus.check_ended()
        finally:
            self.close()

    async def _read(
        self, call: StreamCall[text_pb2.ProcessResponse]
    ) -> text_pb2.ProcessResponse | None:
        try:
            return await call.read()
        except StreamError:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _start(self) -> ProcessCall:
        self._attempt = object()
        self._announce()
        return self._method(self._requests(self._attempt), **self._state.arguments())

    async def _requests(self, attempt: object) -> AsyncIterator[text_pb2.ProcessRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        yield text_pb2.ProcessRequest(start=self._corpus.start)
        if not await self._has_room(attempt):
            return
        self._state.forgo_repeats()
        try:
            async for item in self._taken():
                yield self._corpus.send(item)
                if not await self._has_room(attempt):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the results are read
            self._failure = error
            self.close()

    async def _has_room(self, attempt: object) -> bool:
        """Wait until one more item may be sent; False once the attempt is over."""
        while attempt is self._attempt and not self._over.is_set():
            if self._corpus.has_room:
                return True
            await self._changed.wait()
        return False

    async def _taken(self) -> AsyncIterator[MapItem]:
        """Yield the items; a job that is over does not wait for the next one."""
        if not isinstance(self._items, AsyncIterable):
            for item in self._items:
                yield item
            return
        items = aiter(self._items)
        over = asyncio.ensure_future(self._over.wait())
        try:
            while True:
                taking = asyncio.ensure_future(_next(items))
                try:
                    await asyncio.wait({taking, over}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not taking.done():
                        taking.cancel()
                if over.done():
                    return
                taken = taking.result()
                if taken is None:
                    return
                yield taken
        finally:
            over.cancel()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _next(items: AsyncIterator[MapItem]) -> MapItem | None:
    return await anext(items, None)
