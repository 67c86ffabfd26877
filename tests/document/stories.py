"""Jobs and their events, made up."""

from collections.abc import Sequence

from hypothesis import strategies as st

from hocket.server.document.job import (
    Job,
    JobEnded,
    JobEvent,
    JobPiece,
    JobStarted,
    Place,
    Written,
    WrittenPiece,
    place_of,
)
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import GenerationFailed
from hocket.server.text.pieces import PieceKind
from hocket.server.text.segments import Segment

DONE = Written(finish_reason=FinishReason.END_OF_TEXT)


def piece(text: str) -> WrittenPiece:
    return WrittenPiece(text, PieceKind.SENTENCE)


def segments_of(texts: Sequence[str], gaps: Sequence[str] = ()) -> list[Segment]:
    """Return segments with these texts, and gaps of a space between them unless given."""
    gaps = gaps or ["", *[" "] * len(texts)][: len(texts)]
    found, at = [], 0
    for index, (text, gap) in enumerate(zip(texts, gaps, strict=True)):
        at += len(gap.encode())
        found.append(Segment(index=index, gap=gap, text=text, start_byte=at))
        at += len(text.encode())
    return found


def jobs_of(segments: Sequence[Segment], variants: int = 1) -> list[Job]:
    return [
        Job(place=Place(segment.index, variant), segment=segment)
        for segment in segments
        for variant in range(variants)
    ]


def events_of(job: Job, texts: Sequence[str], *, is_failed: bool = False) -> list[JobEvent]:
    """Return all events of a job that writes these pieces."""
    events: list[JobEvent] = [JobStarted(job)]
    size = 0
    for index, text in enumerate(texts):
        events.append(JobPiece(job.place, index, size, piece(text)))
        size += len(text.encode())
    ended = {"failure": GenerationFailed()} if is_failed else {"written": DONE}
    return [*events, JobEnded(job=job, target_bytes=size, **ended)]


def key(event: JobEvent) -> tuple[Place, int]:
    """Sort events by segment, variant and piece."""
    match event:
        case JobStarted():
            return place_of(event), -1
        case JobPiece():
            return event.place, event.index
        case JobEnded():
            return place_of(event), 1 << 30


@st.composite
def stories(draw) -> tuple[list[Job], list[JobEvent]]:
    """Draw jobs, and their events interleaved in any way, each job's own in order."""
    texts = st.text("aé語 .", min_size=1, max_size=4)
    sources = draw(st.lists(texts, min_size=1, max_size=6))
    gaps = draw(st.lists(st.text(" \n\u3000"), min_size=len(sources), max_size=len(sources)))
    jobs = jobs_of(segments_of(sources, gaps), draw(st.integers(1, 3)))
    left = {
        job.place: events_of(job, draw(st.lists(texts, max_size=3)), is_failed=draw(st.booleans()))
        for job in jobs
    }
    order = draw(st.permutations([place for place, events in left.items() for _ in events]))
    return jobs, [left[place].pop(0) for place in order]
