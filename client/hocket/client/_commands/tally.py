"""How far a document is, in numbers: for the live view and for the line at the end."""

from hocket.client import (
    DocumentEvent,
    DocumentFinished,
    DocumentStarted,
    FinishReason,
    SegmentFinished,
    SegmentPiece,
    SegmentStarted,
)

_CUT_OFF = {FinishReason.CANCELLED, FinishReason.ABORTED, FinishReason.TIME_BUDGET}


class DocumentTally:
    """What has come of a document. Segments are counted in each variant."""

    def __init__(self, began: float) -> None:
        """Make it.

        Args:
            began: When the command began, in seconds of a monotonic clock.
        """
        self._began = began
        self._first_text: float | None = None
        self._begun = 0
        self._is_partial = False
        self.done = 0
        self.failed = 0
        self.incomplete = 0
        self.cached = 0
        self.tokens = 0
        self.num_variants = 1

    def add(self, event: DocumentEvent, now: float) -> None:
        """Take an event."""
        match event:
            case DocumentStarted():
                self.num_variants = len(event.variants)
            case SegmentStarted():
                self._begun += 1
            case SegmentPiece() if self._first_text is None:
                self._first_text = now - self._began
            case SegmentFinished():
                self._add_end(event)
            case DocumentFinished():
                self._is_partial = event.is_partial
            case _:
                pass

    def status(self, now: float) -> str:
        """Return how far it is, as one line."""
        seconds = max(now - self._began, 1e-9)
        in_progress = self._begun - self.done - self.failed - self.incomplete
        parts = [
            f"{self.done} done",
            *self._exceptions(),
            f"{in_progress} in progress",
            f"{self.tokens} tokens in {seconds:.1f} s",
            f"{self.tokens / seconds:.1f} tokens/s",
        ]
        return ", ".join(parts)

    def line(self, now: float) -> str:
        """Return what came of it, as one line."""
        seconds = max(now - self._began, 1e-9)
        parts = [
            f"{self.done} segments",
            *self._exceptions(),
            *([f"{self.cached} cached"] if self.cached else []),
            f"{self.tokens} tokens in {seconds:.2f} s",
            f"{self.tokens / seconds:.1f} tokens/s",
        ]
        if self._first_text is not None:
            parts.append(f"first text after {self._first_text:.2f} s")
        if self._is_partial:
            parts.append("cut off by the time budget")
        return ", ".join(parts)

    def _add_end(self, event: SegmentFinished) -> None:
        self.tokens += event.usage.completion_tokens
        self.cached += event.is_cached
        if event.error is not None:
            self.failed += 1
        elif event.finish_reason in _CUT_OFF:
            self.incomplete += 1
        else:
            self.done += 1

    def _exceptions(self) -> list[str]:
        return [
            *([f"{self.failed} failed"] if self.failed else []),
            *([f"{self.incomplete} incomplete"] if self.incomplete else []),
        ]
