"""What is written for a document, and what its writers say of it. Plain values."""

from dataclasses import dataclass

from hocket.server.engine.commands import FinishReason, Timings
from hocket.server.errors import HocketError
from hocket.server.text.pieces import PieceKind
from hocket.server.text.segments import Segment


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a job stands in its document.

    Attributes:
        segment: Position of the segment, from 0.
        variant: Which variant of it, from 0.
    """

    segment: int
    variant: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One segment and variant that is to be written.

    Attributes:
        place: Where it stands.
        segment: The source.
        context: Texts of the segments before it, nearest last; as many as were asked for.
    """

    place: Place
    segment: Segment
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsage:
    """Tokens that a job took."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "JobUsage") -> "JobUsage":
        return JobUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class WrittenPiece:
    """Text of a job, final.

    Attributes:
        text: Whole characters, at least one.
        kind: What kind of piece it is.
    """

    text: str
    kind: PieceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A job ended well. Its pieces have come before.

    Attributes:
        finish_reason: Why its text ended.
        usage: What it took.
        timings: Where the time went; None if nothing was computed.
        is_cached: Whether it was written before, for somebody else.
        protection: How its protected spans came through: "", "kept" or "split".
    """

    finish_reason: FinishReason
    usage: JobUsage = JobUsage()
    timings: Timings | None = None
    is_cached: bool = False
    protection: str = ""


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The events of a job begin."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobPiece:
    """Text of a job.

    Attributes:
        place: Which job.
        index: Position among its pieces, from 0, without gaps.
        start_byte: Where it begins in the job's own text.
        piece: The text.
    """

    place: Place
    index: int
    start_byte: int
    piece: WrittenPiece


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """A job is over; its last event.

    Attributes:
        job: Which.
        target_bytes: Length of its text.
        written: How it ended; None if it failed.
        failure: Why it failed; None if it did not.
    """

    job: Job
    target_bytes: int
    written: Written | None = None
    failure: HocketError | None = None


JobEvent = JobStarted | JobPiece | JobEnded


def place_of(event: JobEvent) -> Place:
    """Return which job an event is of."""
    return event.place if isinstance(event, JobPiece) else event.job.place
