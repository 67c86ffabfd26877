"""One generation as it is written, blocking. Read by one thread at a time; any may close it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hocket.client._collect import GenerationState
from hocket.client._errors import StreamError
from hocket.client._events import Event, GenerationResult, text_of
from hocket.client._stream_state import StreamState
from hocket.client._sync_stream_call import SyncStreamCall
from hocket.v1 import generation_pb2

if TYPE_CHECKING:
    import grpc

    # At run time gRPC's blocking classes take no parameters.
    GenerateMulticallable = grpc.UnaryStreamMultiCallable[
        generation_pb2.GenerateRequest, generation_pb2.GenerateResponse
    ]


class SyncGenerationStream:
    """One generation; iterating gives its events.

    Made by `Client.stream`; leaving that block cancels what is still being written. Until the
    first event arrives, a refused or lost call is made again as the retry policy says. So is
    one that is lost later, if the server can go on where it broke: no event comes twice.
    """

    def __init__(
        self,
        *,
        method: "GenerateMulticallable",
        request: generation_pb2.GenerateRequest,
        state: StreamState,
        resume: bool,
        sleep: Callable[[float], object],
    ) -> None:
        self._generation = GenerationState(request, resume=resume)
        state.resume_by(self._generation)
        self._call = SyncStreamCall[generation_pb2.GenerateResponse](
            start=lambda: method(
                self._generation.begin(state.spent_seconds()), **state.arguments()
            ),
            state=state,
            sleep=sleep,
        )

    @property
    def request_id(self) -> str:
        """The id that the request runs under; another one for each attempt unless given."""
        return self._generation.request_id

    @property
    def texts(self) -> tuple[str, ...]:
        """What has arrived of each answer, by index. Stays valid when the stream fails."""
        return self._generation.texts

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while (message := self._call.read()) is not None:
            try:
                event = self._generation.take(message)
            except StreamError:
                self.close()  # nothing that follows can be trusted
                raise
            if event is not None:
                return event
        self._generation.check_finished()
        raise StopIteration

    def text(self, *, choice_index: int = 0) -> Iterator[str]:
        """Yield the text of one answer in pieces, as they arrive; none is empty."""
        for event in self:
            if text := text_of(event, choice_index):
                yield text

    def result(self) -> GenerationResult:
        """Wait for the end and return the whole generation, with what was iterated before."""
        for _ in self:
            pass
        return self._generation.result()

    def close(self) -> None:
        """Cancel what is still being written. Repeatable; done by leaving the block."""
        self._call.close()
