"""An operation of corpus jobs: each item is a document of its own. Loop thread.

An item goes through the rooms that any document goes through, with the same tasks, protected spans
and cache; what comes back is its target, joined. Of the places at the door it takes one as an item,
and further ones for its segments, as its job does for its items.
"""

from contextlib import aclosing

from hocket.server.catalogue import Served
from hocket.server.document.job import JobEnded, JobPiece, JobStarted, Written
from hocket.server.document.tally import DocumentEnded
from hocket.server.document.transform import DocumentTransform
from hocket.server.errors import HocketError, InvalidRequest
from hocket.server.rpc.corpus_door import CorpusDoor
from hocket.server.rpc.document_calls import bug_teller, check_alive, note_usage
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.operation import OperationRooms, Outcome
from hocket.server.rpc.parse_documents import CheckedTransform, check_transform
from hocket.server.rpc.parse_process import (
    check_item,
    check_transform_start,
    of_item,
    transform_start,
)
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.render import FINISH_REASONS
from hocket.server.rpc.render_documents import render_usage
from hocket.server.text.segments import Segmentation
from hocket.v1 import document_pb2, options_pb2, text_pb2

_WHOLE = options_pb2.FINISH_REASON_END_OF_TEXT


class Transforming:
    """Does the same with each segment of each item."""

    def __init__(
        self,
        rooms: OperationRooms,
        start: text_pb2.ProcessStart,
        violations: Violations,
        call: AccessRecord,
    ) -> None:
        """Check all that is said of the documents.

        Raises:
            ModelNotFound: No such model is served.
            NotReady: No model is loaded yet.
        """
        self._rooms = rooms
        self._door = CorpusDoor(rooms.admission, call.peer)
        self._group = call.request_id
        self._template = start.transform
        model = rooms.catalogue.find_any(start.transform.model)
        self.model = model.description.name
        check_transform_start(start.transform, violations)
        nameless = document_pb2.TransformStart()
        nameless.CopyFrom(start.transform)
        nameless.request_id = ""
        try:
            self._check(nameless, model, call)
        except InvalidRequest as error:
            for found in error.violations:
                path = found.field.removeprefix("start.")
                violations.add(f"start.transform.{path}", found.description)

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord) -> Outcome:
        """Write the target of one item, once there is a place for it."""
        check_item(item)
        if not item.text.strip():
            return Outcome(_result(text_pb2.ProcessedText(text=item.text, finish_reason=_WHOLE)))
        with await self._door.enter():
            start = transform_start(self._template, record.request_id)
            model = self._rooms.documents.any_model_of(start, record)
            checked = self._check(start, model, record)
            document = await self._document(checked, record)
            try:
                with self._rooms.documents.in_progress(document, checked.writing):
                    return Outcome(await self._work(document, checked, item.text))
            except InvalidRequest as error:
                raise of_item(error) from error
            finally:
                note_usage(record, document.tally.usage)

    def _check(
        self, start: document_pb2.TransformStart, model: Served, record: AccessRecord
    ) -> CheckedTransform:
        return check_transform(
            start,
            model,
            owner=record.caller,
            arrived=self._rooms.clock(),
            remaining=record.remaining_seconds(),
            max_window=self._rooms.document.max_window,
        )

    async def _document(self, checked: CheckedTransform, record: AccessRecord) -> DocumentTransform:
        rooms = self._rooms
        return DocumentTransform(
            checked.plan(rooms.document, max_message_bytes=rooms.max_message_bytes),
            writer=rooms.writer_for(checked, group=self._group),
            segmenter=await rooms.executors.run_aside(checked.segmenter),
            places=self._door,
            run=rooms.executors.run_aside,
            on_bug=bug_teller(record),
        )

    async def _work(
        self, document: DocumentTransform, checked: CheckedTransform, text: str
    ) -> text_pb2.ProcessResult:
        """Put a whole text through a document."""
        if checked.segmentation is Segmentation.GIVEN:
            await document.push_given(text, "")
        else:
            await document.push(text)
        document.close_nowait()
        return _result(await _target_of(document))


def _result(target: text_pb2.ProcessedText) -> text_pb2.ProcessResult:
    return text_pb2.ProcessResult(transformed=target)


async def _target_of(document: DocumentTransform) -> text_pb2.ProcessedText:
    """Return what comes of a document whose segments come in order.

    Raises:
        HocketError: All segments failed, or one did as all that follow would.
    """
    parts: list[str] = []
    target = text_pb2.ProcessedText(finish_reason=_WHOLE)
    failure: HocketError | None = None
    async with aclosing(document.events()) as events:
        async for released in events:
            if isinstance(released, DocumentEnded):
                parts.append(released.gap)
                _note(released, target)
                continue
            check_alive(released)
            match released.event:
                case JobStarted(job):
                    parts.append(job.segment.gap)
                case JobPiece() as piece:
                    parts.append(piece.piece.text)
                case JobEnded(written=Written(finish_reason=reason)):
                    target.finish_reason = FINISH_REASONS[reason]
                case JobEnded() as ended:
                    failure = failure or ended.failure
                    target.finish_reason = options_pb2.FINISH_REASON_UNSPECIFIED
    if failure is not None and target.failed_segments == target.segments:
        raise failure
    target.text = "".join(parts)
    return target


def _note(ended: DocumentEnded, target: text_pb2.ProcessedText) -> None:
    target.segments, target.failed_segments = ended.segments, ended.failed
    if ended.is_partial:
        target.finish_reason = options_pb2.FINISH_REASON_TIME_BUDGET
    target.usage.CopyFrom(render_usage(ended.usage))
