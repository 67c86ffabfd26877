"""From protobuf to our own values, for documents: what has arrived. Any thread; pure functions."""

from hocket.client._document_types import (
    ByteRange,
    DocumentEvent,
    DocumentFinished,
    DocumentStarted,
    Outline,
    Protection,
    Section,
    SegmentFinished,
    SegmentPiece,
    SegmentStarted,
)
from hocket.client._errors import error_of_status
from hocket.client._parse import (
    FINISH_REASONS,
    PIECE_KINDS,
    parse_seconds,
    parse_timings,
    parse_usage,
)
from hocket.client._types import FinishReason, PieceKind
from hocket.v1 import document_pb2, options_pb2

_PROTECTIONS = {
    document_pb2.PROTECTION_UNSPECIFIED: Protection.NONE,
    document_pb2.PROTECTION_KEPT: Protection.KEPT,
    document_pb2.PROTECTION_SPLIT: Protection.SPLIT,
}

DocumentResponse = document_pb2.TransformResponse | document_pb2.ComposeResponse


def parse_document_event(message: DocumentResponse) -> DocumentEvent | None:
    """Return what happened; None for an event that this client does not know."""
    kind = message.WhichOneof("event")
    match kind:
        case "started":
            return _parse_started(message.started)
        case "segment_started" | "section_started":
            started: document_pb2.SegmentStarted = getattr(message, kind)
            return SegmentStarted(
                segment=started.segment,
                variant=started.variant,
                gap=started.gap,
                source=_parse_range(started.source) if started.HasField("source") else None,
                title=started.title,
            )
        case "piece":
            piece = message.piece  # each look at a field of a message costs
            return SegmentPiece(
                segment=piece.segment,
                variant=piece.variant,
                piece=piece.piece,
                text=piece.text,
                start_byte=piece.start_byte,
                kind=PIECE_KINDS.get(piece.kind, PieceKind.UNKNOWN),
            )
        case "segment_finished" | "section_finished":
            return _parse_segment_finished(getattr(message, kind))
        case "finished":
            return _parse_finished(message.finished)
        case "outline" if isinstance(message, document_pb2.ComposeResponse):
            return _parse_outline(message.outline)
    return None


def _parse_started(started: document_pb2.DocumentStarted) -> DocumentStarted:
    return DocumentStarted(
        request_id=started.request_id,
        model=started.model,
        seed=started.seed,
        language=started.language,
        variants=tuple(started.variants) or ("",),
        window=started.window,
        is_parallel=started.is_parallel,
    )


def _parse_outline(outline: document_pb2.Outline) -> Outline:
    return Outline(
        sections=tuple(
            Section(title=section.title, instruction=section.instruction)
            for section in outline.sections
        ),
        is_drafted=outline.is_drafted,
        is_parallel=outline.is_parallel,
        usage=parse_usage(outline.usage),
    )


def _parse_segment_finished(finished: document_pb2.SegmentFinished) -> SegmentFinished:
    has_failed = finished.HasField("status")
    reason = finished.finish_reason
    is_unsaid = has_failed or reason == options_pb2.FINISH_REASON_UNSPECIFIED
    return SegmentFinished(
        segment=finished.segment,
        variant=finished.variant,
        error=error_of_status(finished.status) if has_failed else None,
        finish_reason=None if is_unsaid else FINISH_REASONS.get(reason, FinishReason.UNKNOWN),
        source=_parse_range(finished.source) if finished.HasField("source") else None,
        target=_parse_range(finished.target) if finished.HasField("target") else None,
        target_bytes=finished.target_bytes,
        is_cached=finished.is_cached,
        protection=_PROTECTIONS.get(finished.protection, Protection.UNKNOWN),
        usage=parse_usage(finished.usage),
        timings=parse_timings(finished.timings) if finished.HasField("timings") else None,
    )


def _parse_finished(finished: document_pb2.DocumentFinished) -> DocumentFinished:
    return DocumentFinished(
        segments=finished.segments,
        failed=finished.failed,
        incomplete=finished.incomplete,
        cached=finished.cached,
        source_bytes=finished.source_bytes,
        gap=finished.gap,
        target_bytes=tuple(finished.target_bytes),
        usage=parse_usage(finished.usage),
        is_partial=finished.is_partial,
        total=parse_seconds(finished.total),
    )


def _parse_range(given: document_pb2.ByteRange) -> ByteRange:
    return ByteRange(start_byte=given.start_byte, end_byte=given.end_byte)
