"""What goes into a document, what happens to it, and what comes of it. Any thread.

Everything here is frozen, and none of it is a protobuf type.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from hocket.client._errors import ClientError
from hocket.client._types import FinishReason, PieceKind, Timings, Usage

_NO_TOKENS = Usage(prompt_tokens=0, cached_tokens=0, completion_tokens=0)


class SegmentOrder(StrEnum):
    """In which order segments come back."""

    IN_ORDER = "in_order"
    AS_COMPLETED = "as_completed"
    INTERLEAVED = "interleaved"


class Segmentation(StrEnum):
    """What a segment is; the whole text only where there are many, in `map`."""

    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    WHOLE = "whole"


class Parallel(StrEnum):
    """Whether sections are written in parallel."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Protection(StrEnum):
    """How protected spans came through; `UNKNOWN` if this client is too old to say."""

    UNKNOWN = "unknown"
    NONE = "none"
    KEPT = "kept"
    SPLIT = "split"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """A piece of a text.

    Attributes:
        start_byte: Where it begins, in UTF-8 bytes.
        end_byte: Where it ends.
    """

    start_byte: int
    end_byte: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSegment:
    """A segment as the caller cut it.

    Attributes:
        text: What is worked on.
        gap: What stands between the segment before this one and this one.
    """

    text: str
    gap: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a text that is to be written.

    Attributes:
        title: Its heading.
        instruction: What else the model should know of it.
    """

    title: str
    instruction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentStarted:
    """The document was let in; first and once.

    Attributes:
        request_id: The id that the server knows the request by.
        model: The model that writes.
        seed: The seed that repeats this document.
        language: The language whose rules cut sentences.
        variants: What each variant is: the target languages, or one empty name.
        window: Most segments that are worked on at once.
        is_parallel: Whether sections are written in parallel; for `compose`.
    """

    request_id: str
    model: str
    seed: int
    language: str = ""
    variants: tuple[str, ...] = ("",)
    window: int = 0
    is_parallel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The outline of a composed text; before its sections, once.

    Attributes:
        sections: The sections, in order, without that of `join`.
        is_drafted: Whether the model drafted it.
        is_parallel: Whether its sections are written in parallel.
        usage: Tokens that drafting took.
    """

    sections: tuple[Section, ...]
    is_drafted: bool
    is_parallel: bool
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentStarted:
    """A segment and variant begins to come back.

    Attributes:
        segment: Position of the segment in the document, from 0.
        variant: Which variant, by its place in `DocumentStarted.variants`.
        gap: What stands in the source between the segment before and this one.
        source: Where the segment lies in the source; None for a section.
        title: The title of a section.
    """

    segment: int
    variant: int = 0
    gap: str = ""
    source: ByteRange | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPiece:
    """Text of a segment, final.

    Attributes:
        segment: Which segment.
        text: Whole characters.
        piece: Position among the pieces of this segment and variant, from 0.
        variant: Which variant.
        start_byte: Where `text` begins in the segment's own text, in UTF-8 bytes.
        kind: What kind of piece it is; `UNKNOWN` by the token.
    """

    segment: int
    text: str
    piece: int
    variant: int = 0
    start_byte: int = 0
    kind: PieceKind = PieceKind.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFinished:
    """A segment and variant is over. All its text has come before.

    Attributes:
        segment: Which segment.
        variant: Which variant.
        error: Why it failed; None if it did not.
        finish_reason: Why its text ended; None if it failed.
        source: Where it lies in the source; None for a section.
        target: Where its text lies in the variant's whole target, if that was known already.
        target_bytes: Length of its text in UTF-8 bytes.
        is_cached: Whether it was taken from the server's cache.
        protection: How protected spans came through.
        usage: Tokens that were taken.
        timings: Where the time went; None if it was cached or failed.
    """

    segment: int
    variant: int = 0
    error: ClientError | None = None
    finish_reason: FinishReason | None = None
    source: ByteRange | None = None
    target: ByteRange | None = None
    target_bytes: int = 0
    is_cached: bool = False
    protection: Protection = Protection.NONE
    usage: Usage = _NO_TOKENS
    timings: Timings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFinished:
    """The document is over; last and once.

    Attributes:
        segments: How many there are in the source.
        failed: Of these times variants, how many failed.
        incomplete: How many were cancelled, or cut off by the time budget.
        cached: How many were taken from the server's cache.
        source_bytes: Length of the source in UTF-8 bytes.
        gap: What stands in the source after the last segment.
        target_bytes: Length of each variant's whole target.
        usage: Tokens of all segments together.
        is_partial: Whether the time budget ended it before all was done.
        total: Seconds from arrival until the end.
    """

    segments: int
    failed: int
    incomplete: int
    cached: int
    source_bytes: int
    gap: str
    target_bytes: tuple[int, ...]
    usage: Usage
    is_partial: bool
    total: float


DocumentEvent: TypeAlias = (
    DocumentStarted | Outline | SegmentStarted | SegmentPiece | SegmentFinished | DocumentFinished
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """One segment and variant, put together.

    Attributes:
        segment: Position of the segment in the document, from 0.
        variant: Which variant.
        gap: What stands before it, in the source as in the target.
        text: Its text; what came of it if it failed or is not over.
        target: Where `text` lies in the variant's target.
        source: Where the segment lies in the source; None for a section.
        title: The title of a section.
        finished: How it ended; None if it is not over.
    """

    segment: int
    variant: int
    gap: str
    text: str
    target: ByteRange
    source: ByteRange | None = None
    title: str = ""
    finished: SegmentFinished | None = None

    @property
    def error(self) -> ClientError | None:
        """Why it failed; None if it did not, or not yet."""
        return None if self.finished is None else self.finished.error


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentResult:
    """A document, whole or as far as it has come.

    Attributes:
        started: How it began; None if it has not.
        segments: Its segments by segment and variant; those that have not begun to come are absent.
        outline: The outline of a composed text.
        finished: How it ended; None if it is not over.
    """

    started: DocumentStarted | None
    segments: tuple[SegmentResult, ...]
    outline: Outline | None = None
    finished: DocumentFinished | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the last event has arrived."""
        return self.finished is not None

    @property
    def variants(self) -> tuple[str, ...]:
        """What each variant is: the target languages, or one empty name."""
        return ("",) if self.started is None else self.started.variants

    @property
    def texts(self) -> tuple[str, ...]:
        """The target of each variant: gaps and texts in order, gaps byte for byte as they were."""
        tail = "" if self.finished is None else self.finished.gap
        parts: list[list[str]] = [[] for _ in self.variants]
        for segment in self.segments:
            parts[segment.variant] += (segment.gap, segment.text)
        return tuple("".join((*each, tail)) for each in parts)

    @property
    def text(self) -> str:
        """The target of the first variant."""
        return self.texts[0]

    @property
    def failed(self) -> tuple[SegmentResult, ...]:
        """The segments and variants that failed."""
        return tuple(segment for segment in self.segments if segment.error is not None)
