"""What a whole document came to: counted as its jobs end. Loop thread."""

from dataclasses import dataclass

from hocket.server.document.job import JobEnded, JobUsage
from hocket.server.engine.commands import FinishReason

_CUT_SHORT = {FinishReason.CANCELLED, FinishReason.ABORTED, FinishReason.TIME_BUDGET}


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEnded:
    """A document is over; its last event.

    Attributes:
        segments: Of the source.
        failed: Jobs that failed.
        incomplete: Jobs that were cancelled or whose time was up.
        cached: Jobs that were written before.
        source_bytes: Length of the source.
        gap: What stands in the source after the last segment.
        target_bytes: Length of each variant's target, gaps included.
        usage: What all jobs took.
        is_partial: Whether the time was up before all was done.
    """

    segments: int
    failed: int
    incomplete: int
    cached: int
    source_bytes: int
    gap: str
    target_bytes: tuple[int, ...]
    usage: JobUsage
    is_partial: bool


class Tally:
    """Counts the jobs of one document."""

    def __init__(self) -> None:
        self._failed = 0
        self._incomplete = 0
        self._cached = 0
        self._is_late = False
        self._usage = JobUsage()

    @property
    def usage(self) -> JobUsage:
        """What the jobs that are over took."""
        return self._usage

    def note(self, ended: JobEnded) -> None:
        """Take in the end of a job."""
        written = ended.written
        if written is None:
            self._failed += 1
            return
        self._incomplete += written.finish_reason in _CUT_SHORT
        self._cached += written.is_cached
        self._is_late |= written.finish_reason is FinishReason.TIME_BUDGET
        self._usage += written.usage

    def end(
        self,
        *,
        segments: int,
        source_bytes: int,
        gap: str,
        target_bytes: tuple[int, ...],
        is_cut: bool = False,
    ) -> DocumentEnded:
        """Return what the document came to.

        Args:
            segments: Of the source.
            source_bytes: Length of the source.
            gap: What stands after the last segment.
            target_bytes: Length of each variant's target up to the last segment's end.
            is_cut: Whether more might have come when the time was up.
        """
        return DocumentEnded(
            segments=segments,
            failed=self._failed,
            incomplete=self._incomplete,
            cached=self._cached,
            source_bytes=source_bytes,
            gap=gap,
            target_bytes=tuple(size + len(gap.encode()) for size in target_bytes),
            usage=self._usage,
            is_partial=is_cut or self._is_late,
        )
