"""`DocumentService`: whole documents, their segments written in parallel. Loop thread.

    first message ▸ check fields ▸ reserve the id ▸ take a place ▸ read parts | write events ▸ leave

One task reads what the caller sends while the handler writes what is due: a cancel is obeyed while
text still comes, unless more of it than a megabyte waits to be cut. Whatever ends the call, its
tasks are cancelled and its places come back, without waiting for anything.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import NoReturn

import structlog

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue, ServedModel
from hocket.server.document.config import DocumentConfig
from hocket.server.document.job import Job, JobEnded, JobPiece
from hocket.server.document.merge import Released
from hocket.server.document.transform import DocumentTransform, TransformPlan
from hocket.server.document.writer import Writer
from hocket.server.errors import Draining, EngineFailed, HocketError, InvalidRequest, Unsupported
from hocket.server.executors import Executors
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.limits import REQUEST_ID
from hocket.server.rpc.parse_documents import CheckedTransform, check_transform
from hocket.server.rpc.record import AccessRecord, current_record
from hocket.server.rpc.render_documents import DocumentRenderer
from hocket.server.rpc.status import Context
from hocket.server.text.pieces import Granularity, PieceKind
from hocket.server.text.segments import Segmentation
from hocket.v1 import document_pb2, document_pb2_grpc

_log = structlog.get_logger(__name__)

_MOST_PARTS = 1_048_576  # messages with text: each costs something, however short it is

WriterFor = Callable[[ServedModel, CheckedTransform], Writer]
Requests = AsyncIterator[document_pb2.TransformRequest]
Response = document_pb2.TransformResponse


class DocumentService(document_pb2_grpc.DocumentServiceServicer):
    """Works on whole documents."""

    def __init__(
        self,
        config: DocumentConfig,
        *,
        lifecycle: Lifecycle,
        catalogue: Catalogue,
        admission: Admission,
        executors: Executors,
        writer_for: WriterFor,
        max_message_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the service.

        Args:
            config: Its bounds.
            lifecycle: Says whether documents may come in.
            catalogue: The models.
            admission: The door.
            executors: Where text is cut.
            writer_for: Makes the writer of a document.
            max_message_bytes: The longest message that can be sent.
            clock: The clock that the engines read deadlines by.
        """
        self._config = config
        self._lifecycle = lifecycle
        self._catalogue = catalogue
        self._admission = admission
        self._executors = executors
        self._writer_for = writer_for
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._live: dict[str, DocumentTransform] = {}

    def abort_nowait(self, request_id: str) -> bool:
        """Ask that a document end; False if none with this id is in progress."""
        document = self._live.get(request_id)
        if document is not None:
            document.abort_nowait()
        return document is not None

    async def Transform(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[Response]:
        """Do the same with each segment of a document."""
        record = current_record()
        async with aclosing(self._transform(request_iterator, record)) as responses:
            async for response in responses:
                yield response
        context.set_trailing_metadata((("x-request-id", record.request_id),))

    async def Compose(
        self, request_iterator: AsyncIterator[document_pb2.ComposeRequest], _context: Context
    ) -> AsyncIterator[document_pb2.ComposeResponse]:
        """Write the sections of a text."""
        await anext(request_iterator, None)
        raise Unsupported("Compose is not offered by this server")
        yield  # type: ignore[unreachable] # makes it a generator

    async def _transform(
        self, requests: Requests, record: AccessRecord
    ) -> AsyncGenerator[Response]:
        arrived = self._clock()
        start = await self._start(requests)
        if REQUEST_ID.fullmatch(start.request_id):
            record.request_id = start.request_id  # the name that a refusal is told under, too
        self._lifecycle.check_accepting()
        model = self._catalogue.find(start.model)
        record.model = model.description.name
        checked = check_transform(
            start,
            model,
            owner=record.caller,
            arrived=arrived,
            remaining=record.remaining_seconds(),
            max_window=self._config.max_window,
        )
        record.request_id = checked.request_id
        record.is_by_token = checked.granularity is Granularity.TOKEN
        name = model.engine.reserve_nowait(checked.request_id)
        try:
            with self._admission.enter_nowait(record.peer):
                document = await self._document(checked, record)
                self._live[checked.request_id] = document
                async with aclosing(self._work(document, requests, checked, record)) as responses:
                    async for response in responses:
                        yield response
        finally:
            self._live.pop(checked.request_id, None)
            name.close_nowait()

    async def _start(self, requests: Requests) -> document_pb2.TransformStart:
        """Return the first message, unless the server leaves before it comes."""
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
        return request.start

    async def _document(self, checked: CheckedTransform, record: AccessRecord) -> DocumentTransform:
        config = self._config
        plan = TransformPlan(
            order=checked.order,
            window=checked.window,
            variants=len(checked.variants),
            context_segments=checked.context_segments,
            max_segments=config.max_segments,
            max_bytes=config.max_mib << 20,
            max_gap_bytes=self._max_message_bytes // 2,
        )
        return DocumentTransform(
            plan,
            writer=self._writer_for(checked.model, checked),
            segmenter=await self._executors.run_aside(checked.segmenter),
            places=_Places(self._admission, record.peer),
            run=self._executors.run_aside,
            on_bug=_tell_bug(record),
        )

    async def _work(
        self,
        document: DocumentTransform,
        requests: Requests,
        checked: CheckedTransform,
        record: AccessRecord,
    ) -> AsyncGenerator[Response]:
        """Read what the caller sends and yield what is due, until all is over."""
        is_given = checked.segmentation is Segmentation.GIVEN
        tasks = (
            asyncio.create_task(_read(requests, document, is_given=is_given)),
            asyncio.create_task(self._end_when_leaving(document)),
        )
        timer = None
        if checked.budget is not None:
            delay = max(0.0, checked.budget - self._clock())
            timer = asyncio.get_running_loop().call_later(delay, document.expire_nowait)
        try:
            renderer = DocumentRenderer(request_id=checked.request_id)
            yield renderer.started(
                model=checked.model.description.name,
                seed=checked.sampling.seed,
                language=checked.sentences.language,
                variants=checked.variants,
                window=checked.window,
            )
            async with aclosing(document.events()) as events:
                async for event in events:
                    if isinstance(event, Released):
                        _note(record, event, document)
                        yield renderer.released(event)
                        _check_alive(event)
                    else:
                        record.finish_reason = "time_budget" if event.is_partial else ""
                        total = self._clock() - checked.arrived
                        yield renderer.finished(event, total=total)
        finally:
            if timer is not None:
                timer.cancel()
            for task in tasks:
                task.cancel()

    async def _end_when_leaving(self, document: DocumentTransform) -> None:
        """Wait for no more of a document once the server takes no more work."""
        await self._wait_leaving()
        try:
            self._lifecycle.check_accepting()
        except HocketError as error:
            document.close_nowait(error)

    async def _wait_leaving(self) -> None:
        async for _ in self._lifecycle.states():
            if self._lifecycle.is_leaving:
                return


class _Places:
    """The door, for one document inside."""

    def __init__(self, admission: Admission, connection: str) -> None:
        self._admission = admission
        self._connection = connection

    def try_enter(self) -> Permit | None:
        """Take one more place if it is free."""
        return self._admission.try_enter(self._connection)


async def _read(requests: Requests, document: DocumentTransform, *, is_given: bool) -> None:
    """Hand on what the caller sends, until it closes its side or errs."""
    parts = 0
    has_end = False
    try:
        async for request in requests:
            action = request.WhichOneof("action")
            if action == "cancel":
                cancel = request.cancel
                variant = cancel.variant if cancel.HasField("variant") else None
                document.cancel_nowait(cancel.segment, variant)
                continue
            if has_end:
                return  # the document is whole: what else comes is no part of it
            if action == "end":
                has_end = True
                document.close_nowait()
                continue
            parts += 1
            if parts > _MOST_PARTS:
                raise InvalidRequest.of("action", f"comes in more than {_MOST_PARTS} messages")  # noqa: TRY301 - told with the others
            if action == "text" and not is_given:
                await document.push(request.text)
            elif action == "segment" and is_given:
                await document.push_given(request.segment.text, request.segment.gap)
            else:
                _refuse(action, is_given=is_given)
    except Exception as error:  # noqa: BLE001 - raised again once all that was accepted ended
        document.close_nowait(error)
    else:
        document.close_nowait()


def _refuse(action: str | None, *, is_given: bool) -> NoReturn:
    if action is None:
        raise InvalidRequest.of("action", "one of text, segment, cancel and end must be set")
    if action == "start":
        raise InvalidRequest.of("start", "must come once, first")
    wanted = "given" if is_given else "found in the text"
    raise InvalidRequest.of(action, f"must not be sent where segments are {wanted}")


def _note(record: AccessRecord, released: Released, document: DocumentTransform) -> None:
    """Take note of an event, at the moment when it is handed over."""
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
        usage = document.tally.usage
        record.prompt_tokens = usage.prompt_tokens
        record.cached_tokens = usage.cached_tokens
        record.completion_tokens = usage.completion_tokens


def _check_alive(released: Released) -> None:
    """Go on with a document, unless a segment failed as all that follow would.

    Raises:
        Draining: The grace is over.
        EngineFailed: The engine died.
    """
    event = released.event
    if isinstance(event, JobEnded) and isinstance(event.failure, Draining | EngineFailed):
        raise event.failure


def _tell_bug(record: AccessRecord) -> Callable[[Job, BaseException], None]:
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
