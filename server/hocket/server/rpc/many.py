"""Many generations over one stream: each in a task of its own, all events through one queue.

Loop thread. The queue is short: where the caller reads slowly its tasks wait, and their mailboxes
merge what gathers. For the engine they are one group: however many, they share the batch with other
calls as one. Generations above the bound of the stream are held back, a few of them, while
further actions are read: a cancel must not wait for room. Leaving cancels the tasks and waits for
none.

A generation's record is closed when the caller took its last event, or when the stream ended
before that: each has one line, with the code that the caller saw.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import structlog

from hocket.server.engine.commands import FinishReason
from hocket.server.engine.protocol import Generation
from hocket.server.errors import DuplicateRequest, HocketError, InternalError, InvalidRequest
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.access import AccessLog
from hocket.server.rpc.generator import Generator, field_of
from hocket.server.rpc.limits import REQUEST_ID
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.status import to_status
from hocket.v1 import generation_pb2

_log = structlog.get_logger(__name__)

_QUEUE_EVENTS = 64
_MOST_HELD = 64  # requests that wait for room in the stream while more actions are read ...
_MOST_HELD_BYTES = 1 << 20  # ... and their size
_MOST_ID = 128  # characters of an id that are sent back and logged, good or bad

Response = generation_pb2.GenerateManyResponse


@dataclass(eq=False, slots=True)
class _Live:
    """A generation of the stream that has not ended."""

    request: generation_pb2.GenerateRequest
    record: AccessRecord
    generation: Generation | None = None
    is_cancelled: bool = False

    def reserved(self, generation: Generation) -> None:
        self.generation = generation
        if self.is_cancelled:
            generation.abort_nowait(FinishReason.CANCELLED)

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.generation is not None:
            self.generation.abort_nowait(FinishReason.CANCELLED)


@dataclass(frozen=True, slots=True)
class _Item:
    """An event for the caller, and the record that is closed once it took it."""

    response: Response
    ended: AccessRecord | None = None


class ManyGenerations:
    """The generations of one `GenerateMany` call."""

    def __init__(
        self,
        generator: Generator,
        log: AccessLog,
        lifecycle: Lifecycle,
        *,
        call: AccessRecord,
        max_in_progress: int,
    ) -> None:
        """Make it.

        Args:
            generator: Turns requests into events.
            log: Told of each generation.
            lifecycle: Says when no more may begin.
            call: The record of the call itself.
            max_in_progress: Most generations that are worked on at once.
        """
        self._generator = generator
        self._log = log
        self._lifecycle = lifecycle
        self._call = call
        self._max_in_progress = max_in_progress
        self._live: dict[str, _Live] = {}
        self._open: dict[AccessRecord, None] = {}  # records that are not closed, in order
        self._held: deque[_Live] = deque()
        self._held_bytes = 0
        self._has_room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._error: Exception | None = None
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue(_QUEUE_EVENTS)

    async def responses(
        self, requests: AsyncIterator[generation_pb2.GenerateManyRequest]
    ) -> AsyncGenerator[Response]:
        """Yield the events of all generations, until no more may come and none is left.

        Raises:
            InvalidRequest: What came is not one of the actions, so nobody can be told by an event.
            Draining: The server is leaving, and the caller had not closed its side.
            EngineFailed: The engine died.
        """
        self._call.is_shared = True
        reading = asyncio.create_task(self._read(requests))
        leaving = asyncio.create_task(self._watch_leaving())
        reading.add_done_callback(self._wake)
        try:
            while self._tasks or not self._queue.empty() or not self._has_all(reading):
                item = await self._queue.get()
                if item is None:
                    continue
                yield item.response
                if item.ended is not None:
                    self._close(item.ended)
            if self._error is not None:
                raise self._error
            if not reading.done():
                self._lifecycle.check_accepting()
        finally:
            self._held.clear()
            for task in (reading, leaving, *self._tasks):
                task.cancel()
            for record in tuple(self._open):
                record.note_cut(self._call)
                self._close(record)

    async def _read(self, requests: AsyncIterator[generation_pb2.GenerateManyRequest]) -> None:
        """Start or cancel what is asked for, until the caller closes its side or errs."""
        try:
            async for request in requests:
                match request.WhichOneof("action"):
                    case "generate":
                        await self._accept(request.generate)
                    case "cancel":
                        if live := self._live.get(request.cancel.request_id):
                            live.cancel()
                    case _:
                        raise InvalidRequest.of("action", "one of generate and cancel must be set")  # noqa: TRY301 - told with the others
        except Exception as error:  # noqa: BLE001 - raised again once all that was accepted ended
            self._error = error

    async def _watch_leaving(self) -> None:
        """Once the server takes no more work, wait for no more, and hold nothing back.

        Actions are read on: cancels count, and what would begin is refused at once.
        """
        async for _ in self._lifecycle.states():
            if self._lifecycle.is_leaving:
                break
        self._is_leaving = True
        self._begin_held()
        self._wake()

    async def _accept(self, request: generation_pb2.GenerateRequest) -> None:
        """Begin a generation or hold it back; wait while too much is held back."""
        request_id = request.request_id[:_MOST_ID]
        record = self._call.child(request_id)
        self._open[record] = None
        error: HocketError | None = None
        if not REQUEST_ID.fullmatch(request.request_id):
            wanted = f"must be given: 1 to {_MOST_ID} characters of A-Z a-z 0-9 - _ . :"
            error = InvalidRequest.of("request_id", wanted)
        elif request_id in self._live:
            error = DuplicateRequest(request_id)
        if error is not None:
            record.note_failure(error)
            status = to_status(error, request_id=request_id)
            response = Response(request_id=request_id, refused=status)
            await self._queue.put(_Item(response, record))
            return
        live = _Live(request, record)
        self._live[request_id] = live
        self._held.append(live)
        self._held_bytes += request.ByteSize()
        self._begin_held()
        while len(self._held) >= _MOST_HELD or self._held_bytes > _MOST_HELD_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def _begin_held(self) -> None:
        """Begin what is held back, as far as there is room."""
        while self._held and (len(self._tasks) < self._max_in_progress or self._is_leaving):
            live = self._held.popleft()
            self._held_bytes -= live.request.ByteSize()
            task = asyncio.create_task(self._run(live))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, live))
        self._has_room.set()

    def _ended(self, live: _Live, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._live[live.request.request_id]
        self._begin_held()
        self._wake()

    async def _run(self, live: _Live) -> None:
        """Run one generation to its last event."""
        request, record = live.request, live.record
        try:
            events = self._generator.events(
                request, record, group=self._call.request_id, on_reserve=live.reserved
            )
            async with aclosing(events) as closing:
                async for event in closing:
                    response = Response(request_id=request.request_id, **field_of(event))
                    is_last = isinstance(event, generation_pb2.Finished)
                    await self._queue.put(_Item(response, record if is_last else None))
        except HocketError as error:
            await self._fail(request.request_id, record, error)
        except Exception as error:  # noqa: BLE001 - one generation must not end the others
            _log.error("bug", method=record.method, request_id=record.request_id, exc_info=error)
            await self._fail(request.request_id, record, InternalError())

    async def _fail(self, request_id: str, record: AccessRecord, error: HocketError) -> None:
        record.note_failure(error)
        status = to_status(error, request_id=request_id)
        await self._queue.put(_Item(Response(request_id=request_id, failed=status), record))

    def _close(self, record: AccessRecord) -> None:
        self._open.pop(record)
        record.note_whole()
        self._log.write(record)

    def _has_all(self, reading: asyncio.Task[None]) -> bool:
        return self._is_leaving or reading.done()

    def _wake(self, _task: asyncio.Task[None] | None = None) -> None:
        """Let the writer see that something is over."""
        with contextlib.suppress(asyncio.QueueFull):  # then it is not asleep
            self._queue.put_nowait(None)
