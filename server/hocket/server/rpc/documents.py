"""`DocumentService`: whole documents, their segments written in parallel. Loop thread.

    first message ▸ check fields ▸ take a place ▸ read parts | write events ▸ leave

One task reads what the caller sends while the handler writes what is due: a cancel is obeyed while
text still comes, unless more of it than a megabyte waits to be cut. Whatever ends the call, its
tasks are cancelled and its places come back, without waiting for anything.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import NoReturn

from hocket.server.document.config import DocumentConfig
from hocket.server.document.merge import Released
from hocket.server.document.transform import DocumentTransform
from hocket.server.document.writer import Writer
from hocket.server.errors import InvalidRequest
from hocket.server.executors import Executors
from hocket.server.rpc.compositions import AuthorFor, ComposeRequests, Compositions
from hocket.server.rpc.document_calls import (
    DocumentCalls,
    DocumentPlaces,
    bug_teller,
    check_alive,
    note,
)
from hocket.server.rpc.parse_documents import CheckedTransform, check_transform
from hocket.server.rpc.record import AccessRecord, current_record
from hocket.server.rpc.render_documents import DocumentRenderer
from hocket.server.rpc.status import Context
from hocket.server.text.segments import Segmentation
from hocket.v1 import document_pb2, document_pb2_grpc

_MOST_PARTS = 1_048_576  # messages with text: each costs something, however short it is

WriterFor = Callable[[CheckedTransform], Writer]
Requests = AsyncIterator[document_pb2.TransformRequest]
Response = document_pb2.TransformResponse


class DocumentService(document_pb2_grpc.DocumentServiceServicer):
    """Works on whole documents."""

    def __init__(
        self,
        config: DocumentConfig,
        *,
        calls: DocumentCalls,
        executors: Executors,
        writer_for: WriterFor,
        author_for: AuthorFor,
        max_message_bytes: int,
    ) -> None:
        """Make the service.

        Args:
            config: Its bounds.
            calls: How its calls come in and leave.
            executors: Where text is cut.
            writer_for: Makes the writer of a document.
            author_for: Makes the writer of a text in sections.
            max_message_bytes: The longest message that can be sent.
        """
        self._config = config
        self._calls = calls
        self._executors = executors
        self._writer_for = writer_for
        self._max_message_bytes = max_message_bytes
        self._compositions = Compositions(
            calls, author_for=author_for, max_window=config.max_window
        )

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
        self, request_iterator: ComposeRequests, context: Context
    ) -> AsyncIterator[document_pb2.ComposeResponse]:
        """Write the sections of a text."""
        record = current_record()
        async with aclosing(self._compositions.compose(request_iterator, record)) as responses:
            async for response in responses:
                yield response
        context.set_trailing_metadata((("x-request-id", record.request_id),))

    async def _transform(
        self, requests: Requests, record: AccessRecord
    ) -> AsyncGenerator[Response]:
        arrived = self._calls.clock()
        start = (await self._calls.first(requests)).start
        checked = check_transform(
            start,
            self._calls.any_model_of(start, record),
            owner=record.caller,
            arrived=arrived,
            remaining=record.remaining_seconds(),
            max_window=self._config.max_window,
        )
        with self._calls.admitted(checked.writing, record) as places:
            document = await self._document(checked, places, record)
            async with aclosing(self._work(document, requests, checked, record)) as responses:
                async for response in responses:
                    yield response

    async def _document(
        self, checked: CheckedTransform, places: DocumentPlaces, record: AccessRecord
    ) -> DocumentTransform:
        return DocumentTransform(
            checked.plan(self._config, max_message_bytes=self._max_message_bytes),
            writer=self._writer_for(checked),
            segmenter=await self._executors.run_aside(checked.segmenter),
            places=places,
            run=self._executors.run_aside,
            on_bug=bug_teller(record),
        )

    async def _work(
        self,
        document: DocumentTransform,
        requests: Requests,
        checked: CheckedTransform,
        record: AccessRecord,
    ) -> AsyncGenerator[Response]:
        """Read what the caller sends and yield what is due, until all is over."""
        writing = checked.writing
        is_given = checked.segmentation is Segmentation.GIVEN
        reading = _read(requests, document, is_given=is_given)
        with self._calls.in_progress(document, writing, reading, self._end_when_leaving(document)):
            renderer = DocumentRenderer(request_id=writing.request_id)
            yield renderer.started(
                model=checked.model.description.name,
                seed=writing.sampling.seed,
                language=checked.sentences.language,
                variants=checked.variants,
                window=writing.window,
            )
            async with aclosing(document.events()) as events:
                async for event in events:
                    if isinstance(event, Released):
                        note(record, event, document.tally.usage)
                        yield renderer.released(event)
                        check_alive(event)
                    else:
                        record.finish_reason = "time_budget" if event.is_partial else ""
                        total = self._calls.clock() - writing.arrived
                        yield renderer.finished(event, total=total)

    async def _end_when_leaving(self, document: DocumentTransform) -> None:
        """Wait for no more of a document once the server takes no more work."""
        error = await self._calls.leaving()
        if error is not None:
            document.close_nowait(error)


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
                continue  # the document is whole: what else comes is no part of it
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
