"""A document on a terminal: what is done scrolls by, what is being written fills up below it.

Done segments are lines that stay, in the order of the document. Under them stand the segments in
progress, one line each, and a line of numbers; these are drawn again as events come.
"""

import shutil
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from hocket.client import (
    DocumentEvent,
    DocumentResult,
    DocumentStarted,
    Outline,
    SegmentFinished,
    SegmentPiece,
    SegmentStarted,
)
from hocket.client._commands.output import printable
from hocket.client._commands.tally import DocumentTally

_SECONDS_BETWEEN_DRAWINGS = 0.05
_MOST_LINES = 12
_BOLD, _RED, _DIM, _PLAIN = "\033[1m", "\033[31m", "\033[2m", "\033[0m"


@dataclass(slots=True, eq=False)
class _Row:
    """A segment and variant that has not scrolled by."""

    label: str
    title: str
    text: str = ""
    end: SegmentFinished | None = None


class LiveDocumentReport:
    """Draws a document as it is written."""

    def __init__(self, tally: DocumentTally) -> None:
        """Make it.

        Args:
            tally: The numbers to show; kept up to date by somebody else.
        """
        self._tally = tally
        self._variants: tuple[str, ...] = ("",)
        self._rows: dict[tuple[int, int], _Row] = {}
        self._next = (0, 0)  # what scrolls by next
        self._num_drawn = 0
        self._drawn_at: float | None = None

    def event(self, event: DocumentEvent, now: float) -> None:
        """Take an event in, and draw if it is time."""
        staying: list[str] = []
        match event:
            case DocumentStarted():
                self._variants = event.variants
            case Outline():
                staying = list(_outline_lines(event))
            case SegmentStarted():
                row = _Row(self._label(event.segment, event.variant), event.title)
                self._rows[event.segment, event.variant] = row
            case SegmentPiece():
                self._rows[event.segment, event.variant].text += event.text
            case SegmentFinished():
                self._rows[event.segment, event.variant].end = event
                staying = list(self._scroll())
            case _:
                pass
        is_time = self._drawn_at is None or now - self._drawn_at >= _SECONDS_BETWEEN_DRAWINGS
        if staying or is_time:
            self._draw(staying, now)

    def end(self, document: DocumentResult) -> None:  # noqa: ARG002 - DocumentReport's
        """Let what is left stay, as far as it has come."""
        staying = [line for _, row in sorted(self._rows.items()) for line in _row_lines(row)]
        self._rows.clear()
        self._erase()
        self._print(staying)

    def _scroll(self) -> Iterator[str]:
        """Yield the lines of what is done and has nothing before it that is not."""
        while (row := self._rows.get(self._next)) is not None and row.end is not None:
            del self._rows[self._next]
            segment, variant = self._next
            is_last = variant + 1 == len(self._variants)
            self._next = (segment + 1, 0) if is_last else (segment, variant + 1)
            yield from _row_lines(row)

    def _label(self, segment: int, variant: int) -> str:
        name = printable(self._variants[variant]) if len(self._variants) > 1 else ""
        return f"[{segment + 1}{' ' if name else ''}{name}]"

    def _draw(self, staying: list[str], now: float) -> None:
        columns, lines = shutil.get_terminal_size()
        rows = [row for _, row in sorted(self._rows.items())]
        room = max(1, min(_MOST_LINES, lines - 3))
        shown = rows if len(rows) <= room else rows[: room - 1]
        drawing = [_DIM + _row_line(row, columns - 1) + _PLAIN for row in shown]
        if len(shown) < len(rows):
            drawing.append(f"{_DIM}       and {len(rows) - len(shown)} more{_PLAIN}")
        drawing.append(_head(self._tally.status(now), columns - 1))
        self._erase()
        self._print([*staying, *drawing])
        self._num_drawn = len(drawing)
        self._drawn_at = now

    def _erase(self) -> None:
        if self._num_drawn:
            sys.stdout.write(f"\033[{self._num_drawn}A\033[J")
            self._num_drawn = 0

    def _print(self, lines: list[str]) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def _outline_lines(outline: Outline) -> Iterator[str]:
    how = "in parallel" if outline.is_parallel else "one after the other"
    yield f"{'Drafted' if outline.is_drafted else 'Given'} sections, written {how}:"
    for number, section in enumerate(outline.sections, start=1):
        yield f"  {number}. {_flat(section.title)}"


def _row_lines(row: _Row) -> Iterator[str]:
    """Yield the lines that stay of a segment."""
    if row.title:
        yield f"\n{_BOLD}{_flat(row.title)}{_PLAIN}"
    first, *rest = printable(row.text).strip().splitlines() or [""]
    yield f"{row.label:<6} {first}"
    for line in rest:
        yield f"{'':<7}{line}".rstrip()
    if row.end is None:
        yield f"{'':<7}{_RED}not finished{_PLAIN}"
    elif row.end.error is not None:
        yield f"{'':<7}{_RED}failed: {_flat(str(row.end.error))}{_PLAIN}"


def _row_line(row: _Row, columns: int) -> str:
    """Return a segment in progress as one line that shows its newest text."""
    mark = "." if row.end is None else "="
    head = f"{row.label:<6}{mark}"
    return head + _tail(_flat(row.text or row.title), columns - len(head))


def _flat(text: str) -> str:
    return " ".join(printable(text).split())


def _head(text: str, columns: int) -> str:
    """Return as much of the beginning of a text as there is room for."""
    return text[: max(0, columns)]


def _tail(text: str, columns: int) -> str:
    """Return as much of the end of a text as there is room for."""
    start = len(text)
    while start and (columns := columns - _width(text[start - 1])) >= 0:
        start -= 1
    return text[start:]


def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
