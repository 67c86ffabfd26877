"""What calls of `DocumentService` have in common, from the first message to the last. Loop thread.

    first message ▸ model ▸ reserve the id ▸ take a place ▸ in progress ▸ leave

Whatever ends a call, what runs beside it is cancelled and its places come back, without waiting
for anything.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeVar

import structlog

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue, Served, ServedModel
from hocket.server.document.job import Job, JobEnded, JobPiece, JobUsage
from hocket.server.document.merge import Released
from hocket.server.errors import Draining, EngineFailed, HocketError, InvalidRequest
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.limits import REQUEST_ID
from hocket.server.rpc.parse_writing import CheckedWriting, Start
from hocket.server.rpc.record import AccessRecord
from hocket.server.text.pieces import Granularity, PieceKind
from hocket.v1 import document_pb2

_log = structlog.get_logger(__name__)

_Request = TypeVar("_Request", document_pb2.TransformRequest, document_pb2.ComposeRequest)


class Document(Protocol):
    """What is being written, as far as others end it."""

    def expire_nowait(self) -> None:
        """End all because the time is up."""
        ...

    def abort_nowait(self) -> None:
        """End all because an operator says so."""
        ...


class DocumentPlaces:
    """The door, for one document inside."""

    def __init__(self, admission: Admission, connection: str) -> None:
        self._admission = admission
        self._connection = connection

    def try_enter(self) -> Permit | None:
        """Take one more place if it is free."""
        return self._admission.try_enter(self._connection)


class DocumentCalls:
    """How a call on a document comes in, is known by its id, and leaves."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        catalogue: Catalogue,
        admission: Admission,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            lifecycle: Says whether documents may come in.
            catalogue: The models.
            admission: The door.
            clock: The clock that the engines read deadlines by.
        """
        self._lifecycle = lifecycle
        self._catalogue = catalogue
        self._admission = admission
        self._live: dict[str, Document] = {}
        self.clock = clock

    def abort_nowait(self, request_id: str) -> bool:
        """Ask that a document end; False if none with this id is in progress."""
        document = self._live.get(request_id)
        if document is not None:
            document.abort_nowait()
        return document is not None

    async def first(self, requests: AsyncIterator[_Request]) -> _Request:
        """Return the first message, which starts, unless the server leaves before it comes.

        Raises:
            Draining: The server leaves.
            InvalidRequest: It does not start, or there is none.
        """
        reading = asyncio.ensure_future(anext(requests, None))
        leaving = asyncio.create_task(self._wait_leaving())
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._lifecycle.check_accepting()
            request = await reading
        finally:
            reading.cancel()
            leaving.cancel()
        if request is None or request.WhichOneof("action") != "start":
            raise InvalidRequest.of("start", "must be set in the first message")
        return request

    def model_of(self, start: Start, record: AccessRecord) -> ServedModel:
        """Return the language model that is asked for, as `any_model_of` does.

        Raises:
            HocketError: The server takes no work, or has no such model, or it is a translator.
        """
        self.any_model_of(start, record)
        return self._catalogue.find(start.model, field="start.model")

    def any_model_of(self, start: Start, record: AccessRecord) -> Served:
        """Return what is asked for; the record learns of it, and of the given id.

        Raises:
            HocketError: The server takes no work, or has nothing of that name.
        """
        if REQUEST_ID.fullmatch(start.request_id):
            record.request_id = start.request_id  # the name that a refusal is told under, too
        self._lifecycle.check_accepting()
        model = self._catalogue.find_any(start.model)
        record.model = model.description.name
        return model

    @contextmanager
    def admitted(self, writing: CheckedWriting, record: AccessRecord) -> Iterator[DocumentPlaces]:
        """Hold the id and a place; give the door for what runs beside the first job.

        Raises:
            HocketError: The id is in use, or there is no place.
        """
        record.request_id = writing.request_id
        record.is_by_token = writing.granularity is Granularity.TOKEN
        with ExitStack() as stack:
            # Whoever writes it, an id is of one request: no engine gives it to another.
            for engine in self._catalogue.engines():
                name = engine.reserve_nowait(writing.request_id)
                stack.callback(name.close_nowait)
            stack.enter_context(self._admission.enter_nowait(record.peer))
            yield DocumentPlaces(self._admission, record.peer)

    @contextmanager
    def in_progress(
        self, document: Document, writing: CheckedWriting, *beside: Coroutine[None, None, None]
    ) -> Iterator[None]:
        """Know a document by its id, run what goes on beside it, and end it when its time is up."""
        tasks = tuple(map(asyncio.create_task, beside))
        timer = None
        if writing.budget is not None:
            delay = max(0.0, writing.budget - self.clock())
            timer = asyncio.get_running_loop().call_later(delay, document.expire_nowait)
        self._live[writing.request_id] = document
        try:
            yield
        finally:
            del self._live[writing.request_id]
            if timer is not None:
                timer.cancel()
            for task in tasks:
                task.cancel()

    async def leaving(self) -> HocketError | None:
        """Wait until the server takes no more work; return what a caller is told then."""
        await self._wait_leaving()
        try:
            self._lifecycle.check_accepting()
        except HocketError as error:
            return error
        return None

    async def _wait_leaving(self) -> None:
        async for _ in self._lifecycle.states():
            if self._lifecycle.is_leaving:
                return


def note(record: AccessRecord, released: Released, usage: JobUsage) -> None:
    """Take note of an event, at the moment when it is handed over.

    Args:
        record: Of the call.
        released: The event.
        usage: What the document took so far.
    """
    event = released.event
    if isinstance(event, JobPiece):
        seconds = record.clock() - record.arrived
        if event.piece.kind is not PieceKind.DELTA:
            record.sentences += 1
            if record.ttfs_seconds is None:
                record.ttfs_seconds = seconds
        elif record.ttft_seconds is None:
            record.ttft_seconds = seconds
    elif isinstance(event, JobEnded):
        note_usage(record, usage)


def note_usage(record: AccessRecord, usage: JobUsage) -> None:
    """Take note of what a document took so far."""
    record.prompt_tokens = usage.prompt_tokens
    record.cached_tokens = usage.cached_tokens
    record.completion_tokens = usage.completion_tokens


def check_alive(released: Released) -> None:
    """Go on with a document, unless a job failed as all that follow would.

    Raises:
        Draining: The grace is over.
        EngineFailed: The engine died.
    """
    event = released.event
    if isinstance(event, JobEnded) and isinstance(event.failure, Draining | EngineFailed):
        raise event.failure


def bug_teller(record: AccessRecord) -> Callable[[Job, BaseException], None]:
    """Return what logs a bug of a writer."""

    def tell(job: Job, error: BaseException) -> None:
        _log.error(
            "bug",
            method=record.method,
            request_id=record.request_id,
            segment=job.place.segment,
            variant=job.place.variant,
            exc_info=error,
        )

    return tell
