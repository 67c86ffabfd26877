"""Many generations over one stream: each in a task of its own, all events through one queue.

Loop thread. The queue is short: where the caller reads slowly its tasks wait, and their mailboxes
merge what gathers. Leaving cancels the tasks and waits for none.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from hocket.server.engine.commands import FinishReason
from hocket.server.engine.protocol import Generation
from hocket.server.errors import DuplicateRequest, HocketError, InternalError, InvalidRequest
from hocket.server.rpc.access import AccessLog
from hocket.server.rpc.generator import Generator
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.render import Event
from hocket.server.rpc.status import to_status
from hocket.v1 import generation_pb2

_log = structlog.get_logger(__name__)

_QUEUE_EVENTS = 64

Response = generation_pb2.GenerateManyResponse


@dataclass(eq=False, slots=True)
class _Live:
    """A generation of the stream that has not ended."""

    generation: Generation | None = None
    is_cancelled: bool = False

    def submitted(self, generation: Generation) -> None:
        self.generation = generation
        if self.is_cancelled:
            generation.abort_nowait(FinishReason.CANCELLED)

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.generation is not None:
            self.generation.abort_nowait(FinishReason.CANCELLED)


class ManyGenerations:
    """The generations of one `GenerateMany` call."""

    def __init__(
        self,
        generator: Generator,
        log: AccessLog,
        *,
        connection: str,
        remaining: Callable[[], float | None],
        max_in_progress: int,
    ) -> None:
        self._generator = generator
        self._log = log
        self._connection = connection
        self._remaining = remaining
        self._live: dict[str, _Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0  # pieces of work that may still put something into the queue
        self._room = asyncio.Semaphore(max_in_progress)
        self._queue: asyncio.Queue[Response | BaseException | None] = asyncio.Queue(_QUEUE_EVENTS)

    async def responses(
        self, requests: AsyncIterator[generation_pb2.GenerateManyRequest]
    ) -> AsyncGenerator[Response]:
        """Yield the events of all generations, until no request and no generation is left.

        Raises:
            InvalidRequest: What came is not one of the actions, so nobody can be told by an event.
        """
        self._start(self._read(requests))
        try:
            while self._open or not self._queue.empty():
                item = await self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is not None:
                    yield item
        finally:
            for task in self._tasks:
                task.cancel()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._open += 1
        task = asyncio.create_task(self._watched(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watched(self, work: Coroutine[None, None, None]) -> None:
        """Run a piece of work and let the writer see that it is over."""
        try:
            await work
        finally:
            self._open -= 1
            with contextlib.suppress(asyncio.QueueFull):  # then the writer is not asleep
                self._queue.put_nowait(None)

    async def _read(self, requests: AsyncIterator[generation_pb2.GenerateManyRequest]) -> None:
        """Start or cancel what is asked for, until the caller closes its side."""
        try:
            async for request in requests:
                match request.WhichOneof("action"):
                    case "generate":
                        await self._room.acquire()
                        self._start(self._run(request.generate))
                    case "cancel":
                        if live := self._live.get(request.cancel.request_id):
                            live.cancel()
                    case _:
                        raise InvalidRequest.of("action", "one of generate and cancel must be set")  # noqa: TRY301 - told with the others
        except Exception as error:  # noqa: BLE001 - raised again where the call can end with it
            await self._queue.put(error)

    async def _run(self, request: generation_pb2.GenerateRequest) -> None:
        """Run one generation to its last event."""
        record = AccessRecord(method="GenerateMany", request_id=request.request_id)
        live = _Live()
        is_own = request.request_id not in self._live
        if is_own:
            self._live[request.request_id] = live
        try:
            await self._write_events(request, record, live, is_own=is_own)
        except asyncio.CancelledError:
            record.note_failure("CANCELLED", "")
            raise
        finally:
            if is_own:
                del self._live[request.request_id]
            self._room.release()
            self._log.write(record, peer=self._connection)

    async def _write_events(
        self,
        request: generation_pb2.GenerateRequest,
        record: AccessRecord,
        live: _Live,
        *,
        is_own: bool,
    ) -> None:
        try:
            if not request.request_id:
                raise InvalidRequest.of("request_id", "must be given")  # noqa: TRY301 - told with the others
            if not is_own:
                raise DuplicateRequest(request.request_id)  # noqa: TRY301 - told with the others
            events = self._generator.events(
                request,
                record,
                connection=self._connection,
                remaining=self._remaining(),
                on_submit=live.submitted,
            )
            async with aclosing(events) as closing:
                async for event in closing:
                    await self._queue.put(_response(request.request_id, event))
        except HocketError as error:
            await self._fail(request.request_id, record, error)
        except Exception as error:  # noqa: BLE001 - one generation must not end the others
            _log.error("bug", method="GenerateMany", request_id=request.request_id, exc_info=error)
            await self._fail(request.request_id, record, InternalError())

    async def _fail(self, request_id: str, record: AccessRecord, error: HocketError) -> None:
        record.note_failure(error.code.value, error.reason.value)
        status = to_status(error, request_id=request_id)
        await self._queue.put(Response(request_id=request_id, failed=status))


def _response(request_id: str, event: Event) -> Response:
    match event:
        case generation_pb2.Started():
            return Response(request_id=request_id, started=event)
        case generation_pb2.Delta():
            return Response(request_id=request_id, delta=event)
        case generation_pb2.Sentence():
            return Response(request_id=request_id, sentence=event)
        case _:
            return Response(request_id=request_id, finished=event)
