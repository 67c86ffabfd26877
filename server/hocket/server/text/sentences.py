"""The streaming splitter: text comes in parts of any size, final pieces go out at once.

Four laws hold, for every text and every way it is parted:

1. The pieces join to the text, byte for byte.
2. They depend on the text alone, not on how it was parted. A cut is decided at a *decision
   point*, a position in the text, and looks at nothing behind it.
3. A piece that was handed out is final, and the next begins where it ended.
4. No character waits for more than `max_chars` further ones.

Candidates are looked at in the order of the text, and one that is not decided stops the search.
So what is found in a prefix is found in every longer text as well, which is law 2.

White space belongs to the piece before it. One object per text; not shared between threads.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hocket.server.text import markup
from hocket.server.text.graphemes import is_boundary, last_boundary
from hocket.server.text.languages import rules_of
from hocket.server.text.pieces import Piece, PieceKind, QuotePolicy, SentenceMode, SentenceOptions
from hocket.server.text.quotations import is_in_quotation
from hocket.server.text.terminators import Run, Terminators, Verdict, View

PARAGRAPH_FACTOR: Final = 8
_HOLD_LIMIT: Final = 250
_BLANK_LINE: Final = 2
_OPENING_CHARS: Final = 16  # enough to see whether a piece begins a list or code
_LINE_BREAK: Final = re.compile(r"\r\n|[\n\r\u2028\u2029]")
_LETTER: Final = re.compile(r"[^\W_]")
_CLAUSE: Final = re.compile(r"[,;:،؛—–)\]]\s+|[，；：、）】」』]\s*")
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class _Cut:
    position: int
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class _Resume:
    """No cut here: look on from `position`, or wait there for more text."""

    position: int
    is_waiting: bool = False


@lru_cache(maxsize=64)
def _rules(language: str, mode: SentenceMode) -> tuple[Terminators, re.Pattern[str]]:
    terminators = Terminators(rules_of(language), mode)
    return terminators, re.compile(rf"[\n\r{terminators.pattern}]")


class SentenceSplitter:
    """Cuts one text into sentences, or into paragraphs, while it is still being written.

    Args:
        options: Language, mode, quotes and bounds.
        paragraphs: Cuts at blank lines and around blocks of code only; a piece may then hold
            `PARAGRAPH_FACTOR * max_chars` characters.
    """

    def __init__(self, options: SentenceOptions, *, paragraphs: bool = False) -> None:
        self._terminators, self._candidate = _rules(options.language, options.mode)
        if paragraphs:
            self._candidate = _LINE_BREAK
        self._paragraphs = paragraphs
        self._min_chars = options.min_chars
        self._capacity = options.max_chars * (PARAGRAPH_FACTOR if paragraphs else 1)
        self._hold = min(_HOLD_LIMIT, options.max_chars)
        self._holds_quotes = options.quotes is QuotePolicy.HOLD
        self._text = ""  # the open piece begins at `_start`
        self._start = 0
        self._scan = 0  # candidates before it are decided
        self._start_byte = 0
        self._begins_line = True  # spaces before it aside
        self._is_opened = False  # whether it is known what the open piece begins with
        self._marker: str | None = None  # of the next item, if it begins with an item of a list
        self._fence = ""  # of the block of code that the open piece goes on with

    @property
    def held_chars(self) -> int:
        """Characters that wait for a decision; fewer than `max_chars` after each push."""
        return len(self._text) - self._start

    def push(self, text: str) -> list[Piece]:
        """Return the pieces that are decided by more text."""
        self._text += text
        if self._is_opened and len(self._text) - self._start < self._capacity:
            found = self._candidate.search(self._text, self._scan)
            if (
                found is None and self._find_marker(len(self._text)) < 0
            ):  # the common case by far: a few more letters
                self._scan = len(self._text)
                return []
        return self._take(is_final=False)

    def finish(self) -> list[Piece]:
        """Return all that is left, now that the text is at its end."""
        pieces = self._take(is_final=True)
        if self._text:
            pieces.append(self._emit(_Cut(len(self._text), PieceKind.TAIL)))
            self._text, self._start, self._scan = "", 0, 0
        return pieces

    def _take(self, *, is_final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while self._start < len(self._text):
            end = min(len(self._text), self._start + self._capacity)
            view = View(self._text, self._start, end, is_final=is_final and end == len(self._text))
            cut = self._find(view)
            if cut is None and end - self._start == self._capacity:
                cut = self._cut_softly(view)
            if cut is None:
                break
            pieces.append(self._emit(cut))
        if self._start:
            self._text = self._text[self._start :]
            self._scan -= self._start
            self._start = 0
        return pieces

    def _emit(self, cut: _Cut) -> Piece:
        text = self._text[self._start : cut.position]
        start_byte, self._start_byte = self._start_byte, self._start_byte + len(text.encode())
        self._start = self._scan = cut.position
        self._is_opened, self._marker = False, None
        if self._fence and not text.endswith("\n"):
            self._scan += 1  # the rest of a line closes no block
        last = text.rstrip(" \t")[-1:]
        self._begins_line = last in {"\n", "\r"} if last else self._begins_line
        return Piece(text, start_byte, self._start_byte, cut.kind)

    def _find(self, view: View) -> _Cut | None:
        """Return the first cut of the open piece; None if there is none up to the end of sight."""
        leading = markup.SPACES.match(view.text, view.start, view.end)
        visible = leading.end() if leading else view.start
        if visible == view.end:
            return None
        if not self._fence and (self._begins_line or _has_line_break(view, visible)):
            fence = markup.opens_fence(view.text, visible, view.end)
            if fence is None and not view.is_final:
                return None
            if isinstance(fence, str):
                self._fence = fence
                self._scan = visible + len(fence)  # the line that opens a block does not close it
        if self._fence:
            return self._find_end_of_code(view)
        return self._find_end_of_prose(view)

    def _find_end_of_code(self, view: View) -> _Cut | None:
        closed = markup.end_of_fence(view.text, self._scan, view.end, self._fence)
        after = view.end if closed is None else _skip_spaces(view, closed)
        if after == view.end:
            if closed is None:
                self._scan = max(self._scan, view.text.rfind("\n", self._scan, view.end) + 1)
            return None
        self._fence = ""
        if not is_boundary(view.text, after, view.start):
            after -= 1  # a mark joined the last space, which goes with it
        return _Cut(after, PieceKind.CODE)

    def _find_end_of_prose(self, view: View) -> _Cut | None:
        if not (self._is_opened or self._paragraphs):
            self._marker = markup.next_marker(view.text, view.start, view.end)
        while self._scan < view.end:
            found = self._candidate.search(view.text, self._scan, view.end)
            position = found.start() if found else view.end
            listed = self._find_marker(view.end)
            if 0 <= listed < position:
                return _Cut(listed + 1, PieceKind.LIST_ITEM)
            if found is None:
                break
            result = self._decide(view, position)
            if isinstance(result, _Cut):
                return result
            if result.is_waiting:
                self._scan = position
                return None
            self._scan = result.position
        self._scan = view.end
        begun = view.text[view.start : view.start + _OPENING_CHARS].strip()
        self._is_opened = len(begun) > _OPENING_CHARS // 2
        return None

    def _find_marker(self, end: int) -> int:
        """Return where the list's next item begins within the line, or -1."""
        if not self._marker:
            return -1
        return self._text.find(self._marker, max(self._start, self._scan - len(self._marker)), end)

    def _decide(self, view: View, position: int) -> _Cut | _Resume:
        if _LINE_BREAK.match(view.text, position, view.end):
            after = _skip_spaces(view, position)
            if after == view.end:
                return _Resume(after, is_waiting=not view.is_final)
            return self._decide_line_break(view, position, after)
        run = self._terminators.read_run(view, position)
        if run is None:
            return _Resume(view.end, is_waiting=not view.is_final)
        after = _skip_spaces(view, run.end)
        if after == view.end:
            return _Resume(after, is_waiting=not view.is_final)
        if after == run.end and not run.is_wide:
            return _Resume(run.end)
        result: _Cut | _Resume = _Resume(run.end)
        if _has_line_break(view, after, run.end):
            result = self._decide_line_break(view, run.end, after)
        if isinstance(result, _Cut) or result.is_waiting:
            return result
        return self._decide_terminator(view, run, after)

    def _decide_line_break(self, view: View, position: int, after: int) -> _Cut | _Resume:
        if view.text[view.start : position].isspace() or position == view.start:
            return _Resume(after)
        if not is_boundary(view.text, after, view.start):
            return _Resume(after)
        if len(_LINE_BREAK.findall(view.text, position, after)) >= _BLANK_LINE:
            return _Cut(after, PieceKind.PARAGRAPH_END)
        if self._paragraphs:
            fence = markup.opens_fence(view.text, after, view.end)
            if fence is None and not view.is_final:
                return _Resume(position, is_waiting=True)
            return _Cut(after, PieceKind.PARAGRAPH_END) if fence else _Resume(after)
        if markup.is_in_structured_line(view.text, view.start, position):
            return _Cut(after, PieceKind.LIST_ITEM)
        begins = markup.begins_structured_line(view.text, after, view.end)
        if begins is None and not view.is_final:
            return _Resume(position, is_waiting=True)
        return _Cut(after, PieceKind.SENTENCE) if begins else _Resume(after)

    def _decide_terminator(self, view: View, run: Run, after: int) -> _Cut | _Resume:
        if self._is_vetoed(view, run, after):
            return _Resume(run.end)
        verdict = self._terminators.judge(view, run, after)
        if verdict is Verdict.UNDECIDED:
            return _Resume(run.start, is_waiting=True)
        if verdict is Verdict.NO_END:
            return _Resume(run.end)
        if run.marks == ". . . ." and not view.text[run.start - 1].isspace():
            # The period of a sentence, then an ellipsis that opens the next.
            return _Cut(run.start + 2, PieceKind.SENTENCE)
        return _Cut(after, PieceKind.SENTENCE)

    def _is_vetoed(self, view: View, run: Run, after: int) -> bool:
        text, start = view.text, view.start
        return (
            not is_boundary(text, after, start)
            or _LETTER.search(text, start, run.start) is None
            or len(text[start : run.end].strip()) < self._min_chars
            or markup.is_opening_marker(text, start, run.end)
            or markup.is_in_inline_code(text, start, run.end)
            or markup.is_in_attribute(text, start, run.end)
            or (
                self._holds_quotes
                and run.end - start < self._hold
                and is_in_quotation(text, start, run.end)
            )
        )

    def _cut_softly(self, view: View) -> _Cut:
        """Return the best cut of a piece that is as long as it may become."""
        if self._fence:
            line = view.text.rfind("\n", view.start, view.end - 1) + 1
            if line > view.start:
                return _Cut(line, PieceKind.CODE)
            position = last_boundary(view.text, view.start, view.end)
            return _Cut(position, PieceKind.CODE)
        middle = (view.start + view.end) // 2
        for pattern in (_CLAUSE, _SPACE):
            for position in sorted(
                (found.end() for found in pattern.finditer(view.text, middle, view.end)),
                reverse=True,
            ):
                if position < view.end and is_boundary(view.text, position, view.start):
                    return _Cut(position, PieceKind.SOFT)
        return _Cut(last_boundary(view.text, view.start, view.end), PieceKind.SOFT)


def split_text(text: str, options: SentenceOptions, *, paragraphs: bool = False) -> list[Piece]:
    """Return the pieces of a whole text, by the very rules of the stream."""
    splitter = SentenceSplitter(options, paragraphs=paragraphs)
    return splitter.push(text) + splitter.finish()


def _skip_spaces(view: View, position: int) -> int:
    spaces = markup.SPACES.match(view.text, position, view.end)
    return spaces.end() if spaces else position


def _has_line_break(view: View, end: int, start: int | None = None) -> bool:
    return bool(_LINE_BREAK.search(view.text, view.start if start is None else start, end))
