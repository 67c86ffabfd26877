"""How documents are shown to programs and in pipes: JSON lines, or the target itself."""

import sys
from dataclasses import asdict, replace
from typing import Protocol

from hocket.client import (
    DocumentEvent,
    DocumentFinished,
    DocumentResult,
    DocumentStarted,
    Outline,
    SegmentFinished,
    SegmentPiece,
    SegmentStarted,
)
from hocket.client._commands.output import error_fields, print_json, printable

_NAMES: dict[type[DocumentEvent], str] = {
    DocumentStarted: "started",
    Outline: "outline",
    SegmentStarted: "segment_started",
    SegmentPiece: "piece",
    SegmentFinished: "segment_finished",
    DocumentFinished: "finished",
}


class DocumentReport(Protocol):
    """Shows one document."""

    def event(self, event: DocumentEvent, now: float) -> None:
        """Show an event."""
        ...

    def end(self, document: DocumentResult) -> None:
        """Show what is left to show; the document need not be whole."""
        ...


def target_text(document: DocumentResult, variant: int = 0) -> str:
    """Return the target of a variant; sections with their titles above them."""
    if not any(segment.title for segment in document.segments):
        return document.texts[variant]
    return "\n".join(
        f"{_heading(segment.title)}{segment.text.strip()}\n"
        for segment in document.segments
        if segment.variant == variant
    )


class JsonDocumentReport:
    """One JSON object for each event, on a line of its own."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._request_id = ""

    def event(self, event: DocumentEvent, now: float) -> None:
        """Write an event."""
        if isinstance(event, DocumentStarted):
            self._request_id = event.request_id
        if isinstance(event, SegmentFinished):
            error = None if event.error is None else error_fields(event.error)
            fields = asdict(replace(event, error=None)) | {"error": error}
        else:
            fields = asdict(event)
        head = {
            "request_id": self._request_id,
            "seconds": round(now - self._began, 4),
            "event": _NAMES[type(event)],
        }
        print_json(head | fields)

    def end(self, document: DocumentResult) -> None:
        """Write nothing: all has been said."""


class TargetReport:
    """The target itself: as it comes if it comes in order, else at the end."""

    def __init__(self, *, is_in_order: bool) -> None:
        """Make it.

        Args:
            is_in_order: Whether segments come back in order.
        """
        self._is_live = is_in_order
        self._is_terminal = sys.stdout.isatty()
        self._ends_line = True
        self._has_sections = False

    def event(self, event: DocumentEvent, now: float) -> None:  # noqa: ARG002 - DocumentReport's
        """Write what an event adds."""
        match event:
            case DocumentStarted():
                self._is_live = self._is_live and len(event.variants) == 1
            case SegmentStarted() if event.title:
                self._write(("\n" if self._has_sections else "") + _heading(event.title))
                self._has_sections = True
            case SegmentStarted() if not self._has_sections:
                self._write(event.gap)
            case SegmentPiece():
                self._write(event.text)
            case SegmentFinished():
                if event.error is not None:
                    line = f"hocket: [{event.segment + 1}] {event.error}"
                    print(line, file=sys.stderr, flush=True)
                if self._has_sections and not self._ends_line:
                    self._write("\n")
            case DocumentFinished() if not self._has_sections:
                self._write(event.gap)
            case _:
                pass

    def end(self, document: DocumentResult) -> None:
        """Write what could not be written before."""
        if not self._is_live:
            self._is_live = True
            is_labelled = len(document.variants) > 1
            for variant, name in enumerate(document.variants):
                label = f"[{name}]\n" if is_labelled else ""
                self._write(label + target_text(document, variant))
                if is_labelled and not self._ends_line:
                    self._write("\n")
        if self._is_terminal and not self._ends_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if self._is_live and text:
            # Programs get each byte as it was; a terminal shall not be commanded.
            print(printable(text) if self._is_terminal else text, end="", flush=True)
            self._ends_line = text.endswith("\n")


def _heading(title: str) -> str:
    return f"## {title}\n\n" if title else ""
