"""Corpus jobs: many texts up one stream, what came of each down. Loop thread.

Each item that was read runs in a task of its own. Nothing more is read while a window of them has
no result that was sent, so that a job holds no more than that, however long the corpus is. Leaving
cancels the tasks and waits for none.

A call has one record and one line, with the tokens of all its items together.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from types import AsyncGeneratorType
from typing import TypeVar

import structlog

from hocket.server.admission import Permit
from hocket.server.errors import HocketError, InternalError, InvalidRequest
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.operation import Operation, OperationRooms
from hocket.server.rpc.operations import OPERATIONS
from hocket.server.rpc.parse_process import ProcessConfig, ProcessOptions, parse_options, shown_id
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.status import to_status
from hocket.v1 import options_pb2, text_pb2

_log = structlog.get_logger(__name__)

Requests = AsyncIterator[text_pb2.ProcessRequest]
Response = text_pb2.ProcessResponse

_T = TypeVar("_T")


class Corpora:
    """Takes corpus jobs in."""

    def __init__(
        self, config: ProcessConfig, *, rooms: OperationRooms, lifecycle: Lifecycle
    ) -> None:
        """Make it.

        Args:
            config: How jobs run.
            rooms: What operations work with.
            lifecycle: Says when no more may begin.
        """
        self._config = config
        self._rooms = rooms
        self._lifecycle = lifecycle

    async def responses(self, requests: Requests, call: AccessRecord) -> AsyncGenerator[Response]:
        """Yield what comes of the items of one call.

        Args:
            requests: As they come.
            call: The record of the call.

        Raises:
            HocketError: The job is not let in; or it was, and then something came that is no item;
                or an item failed and shall end all; or the server is leaving.
        """
        try:
            job = await self._let_in(requests, call)
            async with aclosing(job.responses(requests)) as responses:
                async for response in responses:
                    yield response
        finally:
            await _close(requests)

    async def _let_in(self, requests: Requests, call: AccessRecord) -> "_Job":
        self._lifecycle.check_accepting()
        start = await self._start_of(requests)
        violations = Violations()
        options = parse_options(start, self._config, violations)
        kind = start.WhichOneof("operation")
        if kind is None:
            violations.add("start.operation", f"one of {', '.join(OPERATIONS)} must be set")
            violations.raise_any()
        operation = OPERATIONS[str(kind)](self._rooms, start, violations, call)
        violations.raise_any()
        call.model = operation.model
        return _Job(
            operation,
            options,
            lifecycle=self._lifecycle,
            call=call,
            max_message_bytes=self._rooms.max_message_bytes,
        )

    async def _start_of(self, requests: Requests) -> text_pb2.ProcessStart:
        """Return the first message, for which a server that leaves does not wait."""
        reading = asyncio.create_task(_next_of(requests))
        leaving = asyncio.create_task(_wait_leaving(self._lifecycle))
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._lifecycle.check_accepting()
            first = await reading
        finally:
            reading.cancel()
            leaving.cancel()
        if first is None or not first.HasField("start"):
            raise InvalidRequest.of("start", "must be set in the first message")
        return first.start


@dataclass(frozen=True, slots=True)
class _Done:
    """An item that is over, until its result was sent."""

    index: int
    response: Response
    error: HocketError | None = None
    permit: Permit | None = None

    def release(self) -> None:
        if self.permit is not None:
            self.permit.release()


class _Job:
    """One call that was let in."""

    def __init__(
        self,
        operation: Operation,
        options: ProcessOptions,
        *,
        lifecycle: Lifecycle,
        call: AccessRecord,
        max_message_bytes: int,
    ) -> None:
        self._operation = operation
        self._options = options
        self._lifecycle = lifecycle
        self._call = call
        self._max_message_bytes = max_message_bytes
        self._read = 0  # items
        self._sent = 0  # results
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: dict[int, _Done] = {}  # in the order of their end
        self._news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_cut = False
        self._error: Exception | None = None

    async def responses(self, requests: Requests) -> AsyncGenerator[Response]:
        """Yield what comes of each item, until no more may come and none is left."""
        reading = asyncio.create_task(self._read_all(requests))
        leaving = asyncio.create_task(self._watch_leaving(reading))
        reading.add_done_callback(lambda _: self._news.set())
        due: _Done | None = None
        try:
            yield self._started()
            while (due := await self._next_due(reading)) is not None:
                yield due.response
                due.release()
                self._sent += 1
                self._has_room.set()
                if due.error is not None and self._options.stop_on_error:
                    raise due.error
            if self._error is not None:
                raise self._error
            if self._is_cut:
                self._lifecycle.check_accepting()
            yield self._finished()
        finally:
            for task in (reading, leaving, *self._tasks):
                task.cancel()
            for done in (*self._done.values(), *([due] if due else [])):
                done.release()

    async def _read_all(self, requests: Requests) -> None:
        """Begin what is sent, until the caller closes its side or errs; keep to the window."""
        try:
            async for request in requests:
                if not request.HasField("item"):
                    raise InvalidRequest.of("item", "must be set in all messages but the first")  # noqa: TRY301 - told with the others
                task = asyncio.create_task(self._run(self._read, request.item))
                self._read += 1
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                while self._read - self._sent >= self._options.window:
                    self._has_room.clear()
                    await self._has_room.wait()
        except Exception as error:  # noqa: BLE001 - raised again once all that was read ended
            self._error = error

    async def _watch_leaving(self, reading: asyncio.Task[None]) -> None:
        """Once the server takes no more work, read no more; what was not begun is refused."""
        await _wait_leaving(self._lifecycle)
        self._is_cut = reading.cancel()

    async def _run(self, index: int, item: text_pb2.ProcessItem) -> None:
        """Work on one item to its end, whatever that is."""
        record = self._call.child(f"{self._call.request_id}.{index}")
        error: HocketError
        try:
            outcome = await self._operation.run(item, record)
        except HocketError as failure:
            error = failure
        except Exception as bug:  # noqa: BLE001 - one item must not end the others
            _log.error("bug", method=record.method, request_id=record.request_id, exc_info=bug)
            error = InternalError()
        else:
            outcome.result.id, outcome.result.index = shown_id(item), index
            response = Response(result=outcome.result)
            size, most = response.ByteSize(), self._max_message_bytes
            if size <= most:
                self._end(_Done(index, response, permit=outcome.permit), record)
                return
            if outcome.permit is not None:
                outcome.permit.release()
            error = InvalidRequest.of(
                "item.text", f"its result has {size} bytes, a message at most {most}"
            )
        status = to_status(error, request_id=record.request_id)
        result = text_pb2.ProcessResult(id=shown_id(item), index=index, error=status)
        self._end(_Done(index, Response(result=result), error), record)

    def _end(self, done: _Done, record: AccessRecord) -> None:
        self._call.add_item(record, is_failed=done.error is not None)
        self._done[done.index] = done
        self._news.set()

    async def _next_due(self, reading: asyncio.Task[None]) -> _Done | None:
        """Return the next item whose result is sent; None once all were, and no more may come."""
        while True:
            due = self._sent if self._options.in_order else next(iter(self._done), None)
            if due is not None and (done := self._done.pop(due, None)):
                return done
            if self._read == self._sent and reading.done():
                return None
            self._news.clear()
            await self._news.wait()

    def _started(self) -> Response:
        return Response(
            started=text_pb2.ProcessStarted(
                request_id=self._call.request_id,
                model=self._operation.model,
                window=self._options.window,
            )
        )

    def _finished(self) -> Response:
        usage = options_pb2.Usage(
            prompt_tokens=self._call.prompt_tokens,
            cached_tokens=self._call.cached_tokens,
            completion_tokens=self._call.completion_tokens,
        )
        return Response(
            finished=text_pb2.ProcessFinished(
                items=self._read, failed=self._call.failed_items, usage=usage
            )
        )


async def _close(requests: Requests) -> None:
    """Let go of what was not read; a task that is reading does so itself, now that it ends."""
    if isinstance(requests, AsyncGeneratorType) and not requests.ag_running:
        await requests.aclose()


async def _next_of(messages: AsyncIterator[_T]) -> _T | None:
    return await anext(messages, None)


async def _wait_leaving(lifecycle: Lifecycle) -> None:
    async for _ in lifecycle.states():
        if lifecycle.is_leaving:
            return
