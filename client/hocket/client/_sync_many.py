"""Many generations over one stream, blocking.

Any thread may submit, cancel and close; one reads. gRPC's own thread takes what is to be sent. One
condition guards the state between them.
"""

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Unpack

from hocket.client._many_state import ManyEvent, ManyResult, ManyState, Outbox
from hocket.client._requests import GenerationOptions
from hocket.client._stream_state import StreamState
from hocket.client._sync_stream_call import ReadableCall, SyncStreamCall
from hocket.v1 import generation_pb2

if TYPE_CHECKING:
    import grpc

    # At run time gRPC's blocking classes take no parameters.
    ManyMulticallable = grpc.StreamStreamMultiCallable[
        generation_pb2.GenerateManyRequest, generation_pb2.GenerateManyResponse
    ]


class SyncManyStream:
    """Many generations; the blocking twin of `ManyStream`, which describes it.

    Made by `Client.generate_many`; leaving that block cancels all that are in progress.
    """

    def __init__(
        self,
        *,
        method: "ManyMulticallable",
        state: StreamState,
        sleep: Callable[[float], object],
    ) -> None:
        self._method = method
        self._state = state
        self._requests = ManyState()
        self._outbox = Outbox[generation_pb2.GenerateManyRequest]()
        self._changed = threading.Condition()
        self._is_reading = False
        self._call = SyncStreamCall[generation_pb2.GenerateManyResponse](
            start=self._start, state=state, sleep=sleep
        )

    @property
    def in_progress(self) -> frozenset[str]:
        """Ids of the requests that have neither finished nor failed."""
        with self._changed:
            return self._requests.in_progress

    def submit(self, prompt: str | None = None, **options: Unpack[GenerationOptions]) -> str:
        """Start one more generation and return its id; see `ManyStream.submit`."""
        with self._changed:
            self._state.check_unfinished()
            while not self._outbox.has_room(is_served=self._is_reading or not self._call.is_over):
                self._changed.wait()
                self._state.check_unfinished()
            self._outbox.check_open()
            action = self._requests.begin(prompt, options)
            self._outbox.put(action)
            self._changed.notify_all()
        return action.generate.request_id

    def cancel(self, request_id: str) -> None:
        """End one generation; see `ManyStream.cancel`."""
        with self._changed:
            action = self._requests.cancel(request_id)
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
            self._outbox.is_closed = True
        self._call.close()
        self._end_attempt()

    def _next(self) -> tuple[ManyEvent, ManyResult | None]:
        while (message := self._read()) is not None:
            with self._changed:
                taken = self._requests.take(message)
            if taken is not None:
                return taken
        with self._changed:
            self._requests.check_ended()
        raise StopIteration

    def _read(self) -> generation_pb2.GenerateManyResponse | None:
        with self._changed:
            self._is_reading = True
        try:
            message = self._call.read()
        finally:
            with self._changed:
                self._is_reading = False
            if self._call.is_over:
                self._end_attempt()
        with self._changed:
            self._outbox.forget()
        return message

    def _start(self) -> ReadableCall[generation_pb2.GenerateManyResponse]:
        with self._changed:
            self._end_attempt()
            self._outbox.rewind()
            actions = self._actions(self._attempt)
        call = self._method(actions, **self._state.arguments())
        # Who waits for room hears of an end that nobody reads; or looks for itself, if it was.
        call.add_callback(self._announce)
        return call

    def _end_attempt(self) -> None:
        with self._changed:
            # An attempt that is over takes nothing more, so gRPC's sending thread ends.
            self._attempt = object()
            self._changed.notify_all()

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()

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
                if not self._outbox.keeps_sent:
                    self._state.forgo_repeats()
                self._changed.notify_all()
            if action is None:
                return
            yield action
