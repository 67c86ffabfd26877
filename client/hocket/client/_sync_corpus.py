"""A corpus job, blocking.

One thread reads the results; gRPC's own takes the items and sends them. One condition guards the
state between them.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hocket.client._corpus_state import CorpusState, MapItem, MapResult
from hocket.client._errors import StreamError
from hocket.client._stream_state import StreamState
from hocket.client._sync_stream_call import ReadableCall, SyncStreamCall
from hocket.v1 import text_pb2

if TYPE_CHECKING:
    import grpc

    # At run time gRPC's blocking classes take no parameters.
    ProcessMulticallable = grpc.StreamStreamMultiCallable[
        text_pb2.ProcessRequest, text_pb2.ProcessResponse
    ]


class SyncMapStream:
    """What comes of many texts; the blocking twin of `MapStream`, which describes it.

    Made by `Client.map`. The items are taken by another thread than the one that reads.
    """

    def __init__(
        self,
        items: Iterable[MapItem],
        *,
        start: text_pb2.ProcessStart,
        method: "ProcessMulticallable",
        state: StreamState,
        sleep: Callable[[float], object],
    ) -> None:
        self._items = items
        self._corpus = CorpusState(start)
        self._method = method
        self._state = state
        self._sleep = sleep
        self._changed = threading.Condition()
        self._is_over = False
        self._attempt = object()
        self._call: SyncStreamCall[text_pb2.ProcessResponse] | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[MapResult]:
        return self._results()

    def close(self) -> None:
        """End the job. Repeatable; any thread."""
        self._state.close()
        if self._call is not None:
            self._call.close()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _results(self) -> Iterator[MapResult]:
        if self._call is not None:
            raise StreamError("the results were iterated over before")
        try:
            self._state.check_open()
            self._call = SyncStreamCall(start=self._start, state=self._state, sleep=self._sleep)
            while (message := self._read(self._call)) is not None:
                with self._changed:
                    result = self._corpus.take(message)
                    self._changed.notify_all()
                if result is not None:
                    yield result
            self._corpus.check_ended()
        finally:
            self.close()

    def _read(
        self, call: SyncStreamCall[text_pb2.ProcessResponse]
    ) -> text_pb2.ProcessResponse | None:
        try:
            return call.read()
        except StreamError:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _start(self) -> ReadableCall[text_pb2.ProcessResponse]:
        with self._changed:
            self._attempt = object()
            self._changed.notify_all()
            requests = self._requests(self._attempt)
        return self._method(requests, **self._state.arguments())

    def _requests(self, attempt: object) -> Iterator[text_pb2.ProcessRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        yield text_pb2.ProcessRequest(start=self._corpus.start)
        if not self._has_room(attempt):
            return
        self._state.forgo_repeats()
        try:
            for item in self._items:
                with self._changed:
                    request = self._corpus.send(item)
                yield request
                if not self._has_room(attempt):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the results are read
            self._failure = error
            self.close()

    def _has_room(self, attempt: object) -> bool:
        """Wait until one more item may be sent; False once the attempt is over."""
        with self._changed:
            while attempt is self._attempt and not self._is_over:
                if self._corpus.has_room:
                    return True
                self._changed.wait()
        return False
