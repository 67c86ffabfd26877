"""One generation as it is written, blocking. Read by one thread at a time; any may close it."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc

from hocket.client._calls import CallSettings
from hocket.client._collect import Collector
from hocket.client._errors import ClientError, StreamError, error_of_call
from hocket.client._events import Delta, Event, GenerationResult, Sentence
from hocket.client._parse import parse_event
from hocket.client._requests import make_request_id
from hocket.v1 import generation_pb2


def error_of_rpc(error: grpc.RpcError) -> ClientError:
    """Make our error of gRPC's, which is also the call."""
    call = cast("grpc.Call", error)
    return error_of_call(call.code().name, call.details() or "", call.trailing_metadata() or ())


class SyncGenerationStream:
    """One generation; iterating gives its events.

    Made by `Client.stream`; leaving that block cancels what is still being written. Until the
    first event arrives, a refused or lost call is made again as the retry policy says.
    """

    def __init__(
        self,
        *,
        method: Callable[..., Any],
        request: generation_pb2.GenerateRequest,
        settings: CallSettings,
        timeout: float | None,
        sleep: Callable[[float], object],
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

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while True:
            message = self._read()
            if message is None:
                self._collector.check_finished()
                raise StopIteration
            event = parse_event(message)
            if event is not None:
                self._collector.add(event)
                return event

    def text(self, *, choice_index: int = 0) -> Iterator[str]:
        """Yield the text of one answer in pieces, as they arrive; none is empty."""
        for event in self:
            if not isinstance(event, Delta | Sentence):
                continue
            if event.choice_index == choice_index and event.text:
                yield event.text

    def result(self) -> GenerationResult:
        """Wait for the end and return the whole generation, with what was iterated before."""
        for _ in self:
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
        self._call = self._method(
            self._request,
            timeout=self._attempts.remaining_seconds(),
            metadata=self._settings.metadata(),
        )
        if self._is_closed:  # by another thread, meanwhile
            self._call.cancel()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise StreamError("the stream is closed")

    def _read(self) -> generation_pb2.GenerateResponse | None:
        """Return the next message, making the call again as needed; None at the end."""
        while True:
            if self._is_at_end:
                return None
            self._check_open()
            try:
                message: generation_pb2.GenerateResponse = next(self._call)
            except StopIteration:
                self._attempts.begin()
                self._is_at_end = True
                return None
            except grpc.RpcError as error:
                if self._is_closed:
                    raise StreamError("the stream is closed") from None
                failure = error_of_rpc(error)
            else:
                self._attempts.begin()
                return message
            wait = self._attempts.wait_after(failure)
            if wait is None:
                self._failure = failure
                raise failure from None
            self._sleep(wait)
            if not self._is_closed:
                self._open()
