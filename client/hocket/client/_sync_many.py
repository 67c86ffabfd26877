"""Many generations over one stream, blocking.

Any thread may submit, cancel and close; one reads. gRPC's own thread takes what is to be sent. One
condition guards the state between them.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import grpc

from hocket.client._calls import CallSettings
from hocket.client._errors import ClientError, StreamError
from hocket.client._many_state import ManyEvent, ManyResult, ManyState, Outbox
from hocket.client._requests import GenerationOptions
from hocket.client._sync_stream import error_of_rpc
from hocket.v1 import generation_pb2


class SyncManyStream:
    """Many generations; the blocking twin of `ManyStream`, which describes it.

    Made by `Client.generate_many`; leaving that block cancels all that are in progress.
    """

    def __init__(
        self,
        *,
        method: Callable[..., Any],
        settings: CallSettings,
        timeout: float | None,
        sleep: Callable[[float], object],
    ) -> None:
        self._method = method
        self._settings = settings
        self._sleep = sleep
        self._attempts = settings.attempts(timeout)
        self._state = ManyState()
        self._outbox = Outbox()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_at_end = False
        self._failure: ClientError | None = None
        self._open()

    @property
    def in_progress(self) -> frozenset[str]:
        """Ids of the requests that have neither finished nor failed."""
        with self._changed:
            return self._state.in_progress

    def submit(self, prompt: str | None = None, **options: Unpack[GenerationOptions]) -> str:
        """Start one more generation and return its id; see `ManyStream.submit`."""
        with self._changed:
            self._check_open()
            while not self._outbox.has_room:
                self._changed.wait()
                self._check_open()
            self._outbox.check_open()
            action = self._state.begin(prompt, options)
            self._outbox.put(action)
            self._changed.notify_all()
        return action.generate.request_id

    def cancel(self, request_id: str) -> None:
        """End one generation; see `ManyStream.cancel`."""
        with self._changed:
            action = self._state.cancel(request_id)
            if action is not None:
                self._outbox.put(action)
                self._changed.notify_all()

    def close_sending(self) -> None:
        """Say that no more requests will come. Repeatable."""
        with self._changed:
            self._outbox.is_closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[ManyEvent]:
        return self

    def __next__(self) -> ManyEvent:
        event, _ = self._next()
        return event

    def results(self) -> Iterator[ManyResult]:
        """Yield whole generations, or the errors of those that failed, in the order of their end.

        Those whose last event was iterated over before are not among them.
        """
        while True:
            try:
                _, result = self._next()
            except StopIteration:
                return
            if result is not None:
                yield result

    def close(self) -> None:
        """Cancel all that is in progress. Repeatable; done by leaving the block."""
        with self._changed:
            self._is_closed = True
            self._outbox.is_closed = True
            # An attempt that is over takes nothing more, so gRPC's sending thread ends.
            self._attempt = object()
            self._changed.notify_all()
        self._call.cancel()

    def _next(self) -> tuple[ManyEvent, ManyResult | None]:
        while True:
            message = self._read()
            with self._changed:
                if message is None:
                    self._state.check_ended()
                    raise StopIteration
                taken = self._state.take(message)
            if taken is not None:
                return taken

    def _open(self) -> None:
        with self._changed:
            self._outbox.rewind()
            self._attempt = object()
            self._changed.notify_all()
        self._call = self._method(
            self._actions(self._attempt),
            timeout=self._attempts.remaining_seconds(),
            metadata=self._settings.metadata(),
        )
        if self._is_closed:  # by another thread, meanwhile
            self._call.cancel()

    def _actions(self, attempt: object) -> Iterator[generation_pb2.GenerateManyRequest]:
        """Yield what one attempt sends; an attempt that is over takes nothing more."""
        while True:
            with self._changed:
                action = None
                while attempt is self._attempt:
                    action = self._outbox.take()
                    if action is not None or self._outbox.is_closed:
                        break
                    self._changed.wait()
                self._changed.notify_all()
            if action is None:
                return
            yield action

    def _end_attempt(self) -> None:
        with self._changed:
            self._attempt = object()
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closed or self._is_at_end:
            raise StreamError("the stream is closed")

    def _read(self) -> generation_pb2.GenerateManyResponse | None:
        """Return the next message, opening the stream again as needed; None at the end."""
        while True:
            if self._is_at_end:
                return None
            self._check_open()
            try:
                message: generation_pb2.GenerateManyResponse = next(self._call)
            except StopIteration:
                self._attempts.begin()
                self._is_at_end = True
                self._end_attempt()
                return None
            except grpc.RpcError as error:
                if self._is_closed:
                    raise StreamError("the stream is closed") from None
                failure = error_of_rpc(error)
            else:
                self._attempts.begin()
                with self._changed:
                    self._outbox.commit()
                return message
            wait = self._attempts.wait_after(failure)
            if wait is None:
                self._failure = failure
                self._end_attempt()
                raise failure from None
            self._sleep(wait)
            if not self._is_closed:
                self._open()
