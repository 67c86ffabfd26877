"""One document as it is written, for asyncio. The loop thread of its client.

Results are read while the document still goes up: gRPC's own task sends, and another one takes the
parts from wherever the caller has them.
"""

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc.aio

from hocket.client._document_parse import DocumentResponse
from hocket.client._document_requests import Source
from hocket.client._document_state import DocumentState
from hocket.client._document_types import DocumentEvent, DocumentFinished, DocumentResult
from hocket.client._document_upload import DocumentRequest, DocumentUpload
from hocket.client._errors import StreamError
from hocket.client._stream_call import StreamCall
from hocket.client._stream_state import StreamState

# Of transformed and of composed documents.
DocumentMulticallable: TypeAlias = grpc.aio.StreamStreamMultiCallable[Any, Any]


class DocumentStream:
    """One document; iterating gives its events.

    Made by `AsyncClient.transform` and `AsyncClient.compose`; leaving that block cancels what is
    still being written. A segment that fails disturbs no other: its `SegmentFinished` has an
    error. An exception means that the whole document failed; what had come stays in `document`.

    Until the first event arrives, a refused or lost call is made again as the retry policy says,
    with the document so far, unless that was too much to keep.
    """

    def __init__(
        self,
        *,
        method: DocumentMulticallable,
        request: DocumentRequest,
        source: Source | None,
        state: StreamState,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._method = method
        self._state = state
        self._document = DocumentState()
        self._upload = DocumentUpload(request, source)
        self._outbox = self._upload.outbox
        self._changed = asyncio.Event()
        self._source_error: Exception | None = None
        self._call = StreamCall[DocumentResponse](start=self._start, state=state, sleep=sleep)
        self._feeder: asyncio.Task[None] | None = None
        if source is not None and source.parts is not None:
            self._feeder = asyncio.create_task(self._feed(source, source.parts))

    @property
    def request_id(self) -> str:
        """The id that the request runs under; another one for each attempt unless given."""
        return self._upload.request_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if self._feeder is not None:
            await asyncio.wait({self._feeder})  # the caller's own iterable shall be closed, too

    def __aiter__(self) -> AsyncIterator[DocumentEvent]:
        return self

    async def __anext__(self) -> DocumentEvent:
        while (message := await self._read()) is not None:
            try:
                event = self._document.take(message)
            except StreamError:
                self.close()
                raise
            if isinstance(event, DocumentFinished):
                self._end_sending()
            if event is not None:
                return event
        self._document.check_finished()
        raise StopAsyncIteration

    def document(self) -> DocumentResult:
        """Return the document as far as it has come. Stays valid when the stream fails."""
        return self._document.document()

    async def result(self) -> DocumentResult:
        """Wait for the end and return the whole document, with what was iterated before."""
        async for _ in self:
            pass
        return self.document()

    def cancel_segment(self, segment: int, variant: int | None = None) -> None:
        """End a segment or section, in all variants or in one; what is over is left alone.

        It ends with `FinishReason.CANCELLED`. One that is not known yet is never begun.

        Raises:
            ClientError: The stream failed; this error.
            StreamError: The stream is closed.
            ValueError: There can be no such segment.
        """
        self._state.check_open()
        if not self._document.is_finished and not self._document.is_over(segment, variant):
            self._upload.cancel(segment, variant)
            self._announce()

    def close(self) -> None:
        """Cancel what is still being written. Repeatable; done by leaving the block."""
        self._end_sending()
        self._call.close()
        self._end_attempt()

    async def _read(self) -> DocumentResponse | None:
        try:
            message = await self._call.read()
        except StreamError:
            if self._source_error is not None:
                raise self._source_error from None
            raise
        finally:
            if self._call.is_over:
                self._end_attempt()
        self._outbox.forget()
        return message

    def _start(self) -> "grpc.aio.StreamStreamCall[Any, Any]":
        self._end_attempt()
        actions = self._actions(self._upload.begin(), self._attempt)
        return self._method(actions, **self._state.arguments())

    def _end_attempt(self) -> None:
        self._attempt = object()
        self._announce()

    def _end_sending(self) -> None:
        self._outbox.is_closed = True
        if self._feeder is not None:
            self._feeder.cancel()
        self._announce()

    async def _actions(
        self, first: DocumentRequest, attempt: object
    ) -> AsyncIterator[DocumentRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        yield first
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

    async def _feed(self, source: Source, parts: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Take the caller's parts, as there is room for them."""
        try:
            async with contextlib.aclosing(_each(parts)) as each:
                async for part in each:
                    for action in source.convert(part):
                        while not self._outbox.has_room(is_served=True):
                            await self._changed.wait()
                        self._outbox.put(action)
                        self._announce()
            self._upload.end()
            self._announce()
        except Exception as error:  # noqa: BLE001 - raised again where the stream is read
            self._source_error = error
            self._call.close()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _each(parts: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    """Iterate either way."""
    if not isinstance(parts, AsyncIterable):
        for part in parts:
            yield part
        return
    try:
        async for part in parts:
            yield part
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()
