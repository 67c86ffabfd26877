"""From a document's events to protobuf. Loop thread."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from hocket.server.document.job import JobEnded, JobPiece, JobStarted, JobUsage
from hocket.server.document.merge import Released
from hocket.server.document.tally import DocumentEnded
from hocket.server.engine.commands import Timings
from hocket.server.rpc.render import FINISH_REASONS, PIECE_KINDS, duration
from hocket.server.rpc.status import to_status
from hocket.server.text.pieces import PieceKind
from hocket.server.text.segments import Segment
from hocket.v1 import document_pb2, options_pb2

_PROTECTIONS = {
    "": document_pb2.PROTECTION_UNSPECIFIED,
    "kept": document_pb2.PROTECTION_KEPT,
    "split": document_pb2.PROTECTION_SPLIT,
}
_KINDS = {PieceKind.DELTA: options_pb2.PIECE_KIND_UNSPECIFIED, **PIECE_KINDS}


class DocumentRenderer:
    """Renders the events of one document; numbers them as it goes."""

    def __init__(self, *, request_id: str) -> None:
        self._request_id = request_id
        self._sequence = 0

    def started(
        self, *, model: str, seed: int, language: str, variants: Sequence[str], window: int
    ) -> document_pb2.TransformResponse:
        """Return the first event."""
        return self._numbered(
            started=document_pb2.DocumentStarted(
                request_id=self._request_id,
                model=model,
                seed=seed,
                language=language,
                variants=variants,
                window=window,
            )
        )

    def released(self, released: Released) -> document_pb2.TransformResponse:
        """Return an event of a segment."""
        match released.event:
            case JobStarted(job):
                return self._numbered(
                    segment_started=document_pb2.SegmentStarted(
                        segment=job.place.segment,
                        variant=job.place.variant,
                        source=_source(job.segment),
                        gap=job.segment.gap,
                    )
                )
            case JobPiece() as piece:
                return self._numbered(piece=render_piece(piece))
            case JobEnded() as ended:
                message = render_ended(ended, released.target_start, request_id=self._request_id)
                message.source.CopyFrom(_source(ended.job.segment))
                return self._numbered(segment_finished=message)

    def finished(self, ended: DocumentEnded, *, total: float) -> document_pb2.TransformResponse:
        """Return the last event; `total` is seconds from arrival."""
        return self._numbered(finished=render_finished(ended, total=total))

    def _numbered(self, **event: Any) -> document_pb2.TransformResponse:  # noqa: ANN401 - of the oneof
        sequence, self._sequence = self._sequence, self._sequence + 1
        return document_pb2.TransformResponse(sequence=sequence, **event)


def render_piece(piece: JobPiece) -> document_pb2.SegmentPiece:
    """Return text of a segment."""
    return document_pb2.SegmentPiece(
        segment=piece.place.segment,
        variant=piece.place.variant,
        piece=piece.index,
        text=piece.piece.text,
        start_byte=piece.start_byte,
        kind=_KINDS[piece.piece.kind],
    )


def render_ended(
    ended: JobEnded, target_start: int | None, *, request_id: str
) -> document_pb2.SegmentFinished:
    """Return the end of a segment, without its source.

    Args:
        ended: How it ended.
        target_start: Where its text begins in the target, in bytes; None if that is not known yet.
        request_id: Of the document.
    """
    place, written = ended.job.place, ended.written
    message = document_pb2.SegmentFinished(
        segment=place.segment, variant=place.variant, target_bytes=ended.target_bytes
    )
    if target_start is not None:
        message.target.start_byte = target_start
        message.target.end_byte = target_start + ended.target_bytes
    if ended.failure is not None:
        message.status.CopyFrom(to_status(ended.failure, request_id=request_id))
    if written is not None:
        message.finish_reason = FINISH_REASONS[written.finish_reason]
        message.is_cached = written.is_cached
        message.protection = _PROTECTIONS[written.protection]
        message.usage.CopyFrom(render_usage(written.usage))
        if written.timings is not None:
            message.timings.CopyFrom(_timings(written.timings))
    return message


def render_finished(ended: DocumentEnded, *, total: float) -> document_pb2.DocumentFinished:
    """Return the end of a document; `total` is seconds from arrival."""
    return document_pb2.DocumentFinished(
        segments=ended.segments,
        failed=ended.failed,
        incomplete=ended.incomplete,
        cached=ended.cached,
        source_bytes=ended.source_bytes,
        gap=ended.gap,
        target_bytes=ended.target_bytes,
        usage=render_usage(ended.usage),
        is_partial=ended.is_partial,
        total=duration(total),
    )


def render_usage(usage: JobUsage) -> options_pb2.Usage:
    """Return the tokens that were taken."""
    return options_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _source(segment: Segment) -> document_pb2.ByteRange:
    return document_pb2.ByteRange(start_byte=segment.start_byte, end_byte=segment.end_byte)


def _timings(timings: Timings) -> options_pb2.Timings:
    return options_pb2.Timings(
        queue=duration(timings.queue),
        prefill=duration(timings.prefill),
        first_token=_maybe(timings.first_token),
        first_sentence=_maybe(timings.first_text),
        total=duration(timings.total),
    )


def _maybe(seconds: float | None) -> Duration | None:
    return None if seconds is None else duration(seconds)
