"""One document as it is written, blocking.

One thread reads; any may cancel and close. gRPC's own thread takes what is to be sent, and a thread
of the stream's takes the parts from the caller's iterable, if there is one. One condition guards
the state between them.
"""

import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hocket.client._document_parse import DocumentResponse
from hocket.client._document_requests import Source
from hocket.client._document_state import DocumentState
from hocket.client._document_types import DocumentEvent, DocumentFinished, DocumentResult
from hocket.client._document_upload import DocumentRequest, DocumentUpload
from hocket.client._errors import StreamError
from hocket.client._stream_state import StreamState
from hocket.client._sync_stream_call import ReadableCall, SyncStreamCall

if TYPE_CHECKING:
    import grpc

    # At run time gRPC's blocking classes take no parameters.
    DocumentMulticallable = grpc.StreamStreamMultiCallable[Any, Any]


class SyncDocumentStream:
    """One document; the blocking twin of `DocumentStream`, which describes it.

    Made by `Client.transform` and `Client.compose`; leaving that block cancels what is still being
    written. An iterable that blocks delays neither the reading nor the leaving.
    """

    def __init__(
        self,
        *,
        method: "DocumentMulticallable",
        request: DocumentRequest,
        source: Source | None,
        state: StreamState,
        sleep: Callable[[float], object],
    ) -> None:
        parts = None if source is None else source.parts
        if isinstance(parts, AsyncIterable):
            raise TypeError("an async iterable needs AsyncClient")
        self._method = method
        self._state = state
        self._document = DocumentState()
        self._upload = DocumentUpload(request, source)
        self._outbox = self._upload.outbox
        self._changed = threading.Condition()
        self._source_error: Exception | None = None
        self._call = SyncStreamCall[DocumentResponse](start=self._start, state=state, sleep=sleep)
        if source is not None and parts is not None:
            threading.Thread(
                target=self._feed, args=(source, parts), name="hocket-upload", daemon=True
            ).start()

    @property
    def request_id(self) -> str:
        """The id that the request runs under; another one for each attempt unless given."""
        return self._upload.request_id

    def __iter__(self) -> Iterator[DocumentEvent]:
        return self

    def __next__(self) -> DocumentEvent:
        while (message := self._read()) is not None:
            try:
                with self._changed:
                    event = self._document.take(message)
            except StreamError:
                self.close()
                raise
            if isinstance(event, DocumentFinished):
                self._end_sending()
            if event is not None:
                return event
        self._document.check_finished()
        raise StopIteration

    def document(self) -> DocumentResult:
        """Return the document as far as it has come. Stays valid when the stream fails."""
        with self._changed:
            return self._document.document()

    def result(self) -> DocumentResult:
        """Wait for the end and return the whole document, with what was iterated before."""
        for _ in self:
            pass
        return self.document()

    def cancel_segment(self, segment: int, variant: int | None = None) -> None:
        """End a segment or section; see `DocumentStream.cancel_segment`."""
        self._state.check_open()
        with self._changed:
            if not self._document.is_finished and not self._document.is_over(segment, variant):
                self._upload.cancel(segment, variant)
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel what is still being written. Repeatable; done by leaving the block."""
        self._end_sending()
        self._call.close()
        self._end_attempt()

    def _read(self) -> DocumentResponse | None:
        try:
            message = self._call.read()
        except StreamError:
            if self._source_error is not None:
                raise self._source_error from None
            raise
        finally:
            if self._call.is_over:
                self._end_attempt()
        with self._changed:
            self._outbox.forget()
        return message

    def _start(self) -> ReadableCall[DocumentResponse]:
        with self._changed:
            self._end_attempt()
            actions = self._actions(self._upload.begin(), self._attempt)
        return self._method(actions, **self._state.arguments())

    def _end_attempt(self) -> None:
        with self._changed:
            # An attempt that is over takes nothing more, so gRPC's sending thread ends.
            self._attempt = object()
            self._changed.notify_all()

    def _end_sending(self) -> None:
        with self._changed:
            self._outbox.is_closed = True
            self._changed.notify_all()

    def _actions(self, first: DocumentRequest, attempt: object) -> Iterator[DocumentRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        yield first
        while True:
            with self._changed:
                action = None
                while attempt is self._attempt:
                    action = self._outbox.take()
                    if action is not None or self._outbox.is_closed:
                        break
                    self._changed.wait()
                if not self._outbox.keeps_sent:
                    self._state.forgo_repeats()
                self._changed.notify_all()
            if action is None:
                return
            yield action

    def _feed(self, source: Source, parts: Iterable[Any]) -> None:
        """Take the caller's parts, as there is room for them."""
        try:
            for part in parts:
                for action in source.convert(part):
                    if not self._put(action):
                        return
        except Exception as error:  # noqa: BLE001 - raised again where the stream is read
            self._source_error = error
            self._call.close()
        else:
            with self._changed:
                if not self._outbox.is_closed:
                    self._upload.end()
                    self._changed.notify_all()

    def _put(self, action: DocumentRequest) -> bool:
        """Wait for room and add an action; False if the stream takes no more."""
        with self._changed:
            while not self._outbox.is_closed and not self._outbox.has_room(is_served=True):
                self._changed.wait()
            if self._outbox.is_closed:
                return False
            self._outbox.put(action)
            self._changed.notify_all()
            return True
