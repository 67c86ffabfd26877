"""One document as it comes: the laws of its stream, and what has come of it, without any I/O.

What it holds grows with the targets, which is what its caller wants to have in the end. It belongs
to whoever reads the stream.
"""

from dataclasses import dataclass, field

from hocket.client._document_parse import DocumentResponse, parse_document_event
from hocket.client._document_types import (
    ByteRange,
    DocumentEvent,
    DocumentFinished,
    DocumentResult,
    DocumentStarted,
    Outline,
    SegmentFinished,
    SegmentPiece,
    SegmentResult,
    SegmentStarted,
)
from hocket.client._errors import StreamError


@dataclass(slots=True, eq=False)
class _Segment:
    """One segment and variant.

    Attributes:
        started: How it began.
        texts: Its pieces so far.
        size: Their length in UTF-8 bytes.
        finished: How it ended; None if it has not.
    """

    started: SegmentStarted
    texts: list[str] = field(default_factory=list)
    size: int = 0
    finished: SegmentFinished | None = None


class DocumentState:
    """What has arrived of one document.

    A stream that breaks a law below has lost or doubled something; `take` raises `StreamError`
    then, and nothing after it is believed:

    - events are numbered without gaps; the first is `DocumentStarted`, the last `DocumentFinished`,
      each of them comes once;
    - each segment and variant begins, has pieces that follow one another, and ends, once each;
    - the lengths and places that the server states are those of what has come.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._started: DocumentStarted | None = None
        self._outline: Outline | None = None
        self._finished: DocumentFinished | None = None
        self._segments: dict[tuple[int, int], _Segment] = {}
        self._open = 0  # segments that began and are not over

    @property
    def is_finished(self) -> bool:
        """Whether the last event has arrived."""
        return self._finished is not None

    @property
    def _num_variants(self) -> int:
        return 1 if self._started is None else len(self._started.variants)

    def is_over(self, segment: int, variant: int | None) -> bool:
        """Whether a segment is over in this variant; for None, in all of them."""
        variants = range(self._num_variants) if variant is None else (variant,)
        found = [self._segments.get((segment, each)) for each in variants]
        return all(each is not None and each.finished is not None for each in found)

    def take(self, message: DocumentResponse) -> DocumentEvent | None:
        """Return what happened; None for an event that this client does not know.

        Raises:
            StreamError: The stream breaks a law.
        """
        if message.sequence != self._sequence:
            raise StreamError(
                f"the stream lost or doubled something: event {message.sequence} came in place of"
                f" {self._sequence}"
            )
        self._sequence += 1
        event = parse_document_event(message)
        if event is None:
            return None
        if self._finished is not None:
            raise StreamError("the stream went on after its last event")
        if (self._started is None) != isinstance(event, DocumentStarted):
            raise StreamError("the stream did not begin as it should")
        match event:
            case DocumentStarted():
                self._started = event
            case Outline():
                self._take_outline(event)
            case SegmentStarted():
                self._take_started(event)
            case SegmentPiece():
                self._take_piece(event)
            case SegmentFinished():
                self._take_finished(event)
            case DocumentFinished():
                self._take_end(event)
        return event

    def check_finished(self) -> None:
        """Return if the document is over.

        Raises:
            StreamError: The last event has not arrived.
        """
        if self._finished is None:
            raise StreamError("the stream ended before the document did")

    def document(self) -> DocumentResult:
        """Return the document as far as it has come."""
        segments = []
        ends = [0] * self._num_variants
        for (index, variant), segment in sorted(self._segments.items()):
            start = ends[variant] + len(segment.started.gap.encode())
            ends[variant] = start + segment.size
            segments.append(
                SegmentResult(
                    segment=index,
                    variant=variant,
                    gap=segment.started.gap,
                    text="".join(segment.texts),
                    target=ByteRange(start_byte=start, end_byte=ends[variant]),
                    source=segment.started.source,
                    title=segment.started.title,
                    finished=segment.finished,
                )
            )
        return DocumentResult(
            started=self._started,
            segments=tuple(segments),
            outline=self._outline,
            finished=self._finished,
        )

    def _take_outline(self, event: Outline) -> None:
        if self._outline is not None or self._segments:
            raise StreamError("the outline came twice, or after a section")
        self._outline = event

    def _take_started(self, event: SegmentStarted) -> None:
        key = (event.segment, event.variant)
        if event.variant >= self._num_variants:
            raise StreamError(f"{_name(event)} is of a variant that does not exist")
        if key in self._segments:
            raise StreamError(f"{_name(event)} began twice")
        self._segments[key] = _Segment(event)
        self._open += 1

    def _take_piece(self, event: SegmentPiece) -> None:
        segment = self._in_progress(event)
        if event.piece != len(segment.texts):
            raise StreamError(
                f"{_name(event)} lost or doubled something: piece {event.piece} came in place of"
                f" {len(segment.texts)}"
            )
        if event.start_byte != segment.size:
            raise StreamError(
                f"{_name(event)} lost or doubled something: a piece begins at byte"
                f" {event.start_byte} in place of {segment.size}"
            )
        segment.texts.append(event.text)
        segment.size += len(event.text.encode())

    def _take_finished(self, event: SegmentFinished) -> None:
        segment = self._in_progress(event)
        if event.target_bytes != segment.size:
            raise StreamError(
                f"{_name(event)} has {segment.size} bytes in place of {event.target_bytes}"
            )
        segment.finished = event
        self._open -= 1

    def _take_end(self, event: DocumentFinished) -> None:
        if self._open:
            raise StreamError(f"the document ended before {self._open} of its segments")
        tail = len(event.gap.encode())
        source, targets = 0, [tail] * self._num_variants
        for (_, variant), segment in sorted(self._segments.items()):
            gap = len(segment.started.gap.encode())
            start = targets[variant] - tail + gap
            targets[variant] += gap + segment.size
            ended = None if segment.finished is None else segment.finished.target
            if ended is not None and ended.start_byte != start:
                raise StreamError(f"{_name(segment.started)} lies at {start}, not {ended}")
            if (place := segment.started.source) is not None and variant == 0:
                if place.start_byte != source + gap:
                    raise StreamError(f"{_name(segment.started)} does not follow the one before it")
                source = place.end_byte
        if tuple(targets) != event.target_bytes:
            raise StreamError(f"the targets have {targets} bytes, not {event.target_bytes}")
        if source + tail != event.source_bytes and not event.is_partial:
            raise StreamError(f"the source has {source + tail} bytes, not {event.source_bytes}")
        self._finished = event

    def _in_progress(self, event: SegmentPiece | SegmentFinished) -> _Segment:
        segment = self._segments.get((event.segment, event.variant))
        if segment is None or segment.finished is not None:
            raise StreamError(f"{_name(event)} goes on before it began, or after it ended")
        return segment


def _name(event: SegmentStarted | SegmentPiece | SegmentFinished) -> str:
    variant = f" of variant {event.variant}" if event.variant else ""
    return f"segment {event.segment}{variant}"
