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
from functools import lru_cache
from typing import Final, NamedTuple

from hocket.server.text import markup
from hocket.server.text.graphemes import is_boundary
from hocket.server.text.languages import rules_of
from hocket.server.text.pieces import Piece, PieceKind, QuotePolicy, SentenceMode, SentenceOptions
from hocket.server.text.quotations import is_in_quotation
from hocket.server.text.runs import ANYTHING, Run, RunReader, View
from hocket.server.text.softcuts import cut_softly
from hocket.server.text.terminators import SHOWS_MORE, Terminators, Verdict

PARAGRAPH_FACTOR: Final = 8
_HOLD_LIMIT: Final = 250
_BLANK_LINE: Final = 2
_LINE_BREAKS: Final = frozenset("\n\r\u2028\u2029")
_LINE_BREAK: Final = re.compile(r"\r\n|[\n\r\u2028\u2029]")
_LETTER: Final = re.compile(r"[^\W_]")
_VISIBLE: Final = re.compile(r"\S")
_NEWLINE: Final = re.compile(r"\n")


class _Cut(NamedTuple):
    position: int
    kind: PieceKind


class _Resume(NamedTuple):
    """No cut here: look on from `position`, or wait there until something comes."""

    position: int
    until: re.Pattern[str] | None = None


@lru_cache(maxsize=64)
def _rules(language: str, mode: SentenceMode) -> tuple[Terminators, re.Pattern[str]]:
    terminators = Terminators(rules_of(language), mode)
    return terminators, re.compile(rf"[\n\r{terminators.pattern}]")


@lru_cache(maxsize=256)
def _either(pattern: re.Pattern[str], character: str) -> re.Pattern[str]:
    return re.compile(f"{pattern.pattern}|{re.escape(character)}")


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
        self._parts: list[str] = []  # that came since `_text` was looked at
        self._held = 0
        self._until = ANYTHING  # without it, parts change nothing
        self._text = ""  # the open piece begins at `_start`
        self._start = 0
        self._start_byte = 0
        self._begins_line = True  # spaces before it aside
        self._fence = ""  # of the block of code that the open piece goes on with
        self._runs = RunReader(self._terminators.pattern)
        self._begin(0)

    def _begin(self, position: int) -> None:
        """Forget what is known of the open piece, which begins at `position`."""
        self._start = self._scan = position  # candidates before `_scan` are decided
        self._is_opened = False  # whether it is known what the piece begins with
        self._marker: str | None = None  # of the next item, if it begins with an item of a list
        self._forget()

    def _forget(self) -> None:
        """Forget where things are in the open piece; they will be found again."""
        self._visible = -1  # what is not white space begins here, if that is known
        self._is_prose = False  # whether it is known that no block of code begins here
        self._letter: int | None = None  # the first
        self._unlettered = -1  # no letter before it
        self._undecided: tuple[Run, int] | None = None  # all but the verdict about it is known
        self._runs.forget()

    @property
    def held_chars(self) -> int:
        """Characters that wait for a decision; fewer than `max_chars` after each push."""
        return self._held

    @property
    def is_in_code(self) -> bool:
        """Whether the open piece is known to be of a block of code; at the end, the last one."""
        return bool(self._fence)

    def push(self, text: str) -> list[Piece]:
        """Return the pieces that are decided by more text.

        Its cost does not depend on how much is held: what waits says what it waits for, and
        nothing that was read is read again before that comes.
        """
        self._parts.append(text)
        self._held += len(text)
        if self._held < self._capacity and not self._until.search(text):
            return []  # the common case by far: a few more letters
        return self._take(is_final=False)

    def finish(self) -> list[Piece]:
        """Return all that is left, now that the text is at its end."""
        pieces = self._take(is_final=True)
        if self._text:
            pieces.append(self._emit(_Cut(len(self._text), PieceKind.TAIL)))
            self._text = ""
            self._held = 0
            self._begin(0)
        return pieces

    def _take(self, *, is_final: bool) -> list[Piece]:
        self._text += "".join(self._parts)
        self._parts.clear()
        pieces: list[Piece] = []
        self._until = ANYTHING
        while self._start < len(self._text):
            end = min(len(self._text), self._start + self._capacity)
            view = View(self._text, self._start, end, is_final=is_final and end == len(self._text))
            found = self._find(view)
            if not isinstance(found, _Cut) and end - self._start == self._capacity:
                position, kind = cut_softly(view, is_code=bool(self._fence))
                found = _Cut(position, kind)
            if not isinstance(found, _Cut):
                self._until = found
                break
            pieces.append(self._emit(found))
        if self._start:
            self._text = self._text[self._start :]
            self._scan -= self._start
            self._start = 0
            self._forget()
        self._held = len(self._text)
        return pieces

    def _emit(self, cut: _Cut) -> Piece:
        text = self._text[self._start : cut.position]
        start_byte, self._start_byte = self._start_byte, self._start_byte + len(text.encode())
        self._begin(cut.position)
        if self._fence and not text.endswith("\n"):
            self._scan += 1  # the rest of a line closes no block
        last = text.rstrip(" \t")[-1:]
        self._begins_line = last in {"\n", "\r"} if last else self._begins_line
        return Piece(text, start_byte, self._start_byte, cut.kind)

    def _find(self, view: View) -> _Cut | re.Pattern[str]:
        """Return the first cut of the open piece; if there is none in sight, what may bring one."""
        if self._visible < 0:
            visible = _skip_spaces(view, view.start)
            if visible == view.end:
                return _VISIBLE
            self._visible = visible
        if not self._fence and not self._is_prose:
            fence: str | re.Pattern[str] = ""
            if self._begins_line or _has_line_break(view, self._visible):
                fence = _opens_fence(view, self._visible)
            if not isinstance(fence, str):
                return fence
            if fence:
                self._fence = fence
                # The line that opens a block does not close it.
                self._scan = self._visible + len(fence)
            self._is_prose = not self._fence
        if self._fence:
            return self._find_end_of_code(view)
        return self._find_end_of_prose(view)

    def _find_end_of_code(self, view: View) -> _Cut | re.Pattern[str]:
        closed = markup.end_of_fence(
            view.text, self._scan, view.end, self._fence, is_final=view.is_final
        )
        if closed is None:
            self._scan = max(self._scan, view.text.rfind("\n", self._scan, view.end) + 1)
            return _NEWLINE
        after = _skip_spaces(view, closed)
        if after == view.end and not view.is_final:
            return _VISIBLE
        self._fence = ""
        if after < view.end and not is_boundary(view.text, after, view.start):
            after -= 1  # a mark joined the last space, which goes with it
        return _Cut(after, PieceKind.CODE)

    def _find_end_of_prose(self, view: View) -> _Cut | re.Pattern[str]:
        if not self._is_opened:
            if not self._paragraphs:
                self._marker = markup.next_marker(view.text, view.start, view.end)
            self._is_opened = not markup.may_become_marker(view.text, self._visible, view.end)
        while self._scan < view.end:
            found = self._candidate.search(view.text, self._scan, view.end)
            position = found.start() if found else view.end
            listed = self._find_marker(self._marker, view.end) if self._marker else -1
            if 0 <= listed < position:
                return _Cut(listed + 1, PieceKind.LIST_ITEM)
            if found is None:
                break
            result = self._decide(view, position)
            if isinstance(result, _Cut):
                return result
            if result.until is not None and not view.is_final:
                self._scan = position
                return result.until if self._is_opened else ANYTHING
            self._scan = result.position
        self._scan = view.end
        if not self._is_opened:
            return ANYTHING
        return _either(self._candidate, self._marker[-1]) if self._marker else self._candidate

    def _find_marker(self, marker: str, end: int) -> int:
        """Return where the list's next item begins within the line, or -1."""
        return self._text.find(marker, max(self._start, self._scan - len(marker)), end)

    def _decide(self, view: View, position: int) -> _Cut | _Resume:
        if view.text[position] in _LINE_BREAKS:
            after = _skip_spaces(view, position)
            if after == view.end:
                return _Resume(after, until=_VISIBLE)
            return self._decide_line_break(view, position, after)
        if self._undecided and self._undecided[0].start == position:
            return self._decide_terminator(view, *self._undecided)
        end = self._runs.read(view, position)
        if not isinstance(end, int):
            if self._marker and view.text.endswith(self._marker[:-1], view.start, view.end):
                end = ANYTHING  # a space would make it the marker of the next item
            return _Resume(view.end, until=end)
        after = _skip_spaces(view, end)
        if after == view.end:
            return _Resume(after, until=_VISIBLE)
        run = self._runs.run(view)
        if after == end and not run.is_wide:
            return _Resume(end)
        if _has_line_break(view, after, end):
            result = self._decide_line_break(view, end, after)
            if isinstance(result, _Cut) or result.until is not None:
                return result
        if self._terminators.goes_on(view, run, after) or self._is_vetoed(view, run, after):
            return _Resume(end)
        return self._decide_terminator(view, run, after)

    def _decide_line_break(self, view: View, position: int, after: int) -> _Cut | _Resume:
        if position <= self._visible:
            return _Resume(after)
        if not is_boundary(view.text, after, view.start):
            return _Resume(after)
        if len(_LINE_BREAK.findall(view.text, position, after)) >= _BLANK_LINE:
            return _Cut(after, PieceKind.PARAGRAPH_END)
        if self._paragraphs:
            fence = _opens_fence(view, after)
            if not isinstance(fence, str):
                return _Resume(position, until=fence)
            return _Cut(after, PieceKind.PARAGRAPH_END) if fence else _Resume(after)
        if markup.is_in_structured_line(view.text, view.start, position):
            return _Cut(after, PieceKind.LIST_ITEM)
        begins = markup.begins_structured_line(view.text, after, view.end)
        if begins is None and not view.is_final:
            return _Resume(position, until=ANYTHING)
        return _Cut(after, PieceKind.SENTENCE) if begins else _Resume(after)

    def _decide_terminator(self, view: View, run: Run, after: int) -> _Cut | _Resume:
        verdict = self._terminators.judge(view, run, after)
        if verdict in SHOWS_MORE:
            self._undecided = run, after
            return _Resume(run.start, until=SHOWS_MORE[verdict])
        if verdict is Verdict.NO_END:
            return _Resume(run.end)
        if run.marks == ". . . ." and not view.text[run.start - 1].isspace():
            # The period of a sentence, then an ellipsis that opens the next.
            return _Cut(run.start + 2, PieceKind.SENTENCE)
        return _Cut(after, PieceKind.SENTENCE)

    def _is_vetoed(self, view: View, run: Run, after: int) -> bool:
        text, start = view.text, view.start
        return (
            run.end - self._visible < self._min_chars
            or not is_boundary(text, after, start)
            or not self._has_letter(view, run.start)
            or markup.is_opening_marker(text, start, run.end)
            or markup.is_in_inline_code(text, start, run.end)
            or markup.is_in_attribute(text, start, run.end)
            or (
                self._holds_quotes
                and run.end - start < self._hold
                and is_in_quotation(text, start, run.end)
            )
        )

    def _has_letter(self, view: View, end: int) -> bool:
        if self._letter is None:
            found = _LETTER.search(view.text, max(self._unlettered, self._visible), end)
            self._letter = found.start() if found else None
            self._unlettered = end
        return self._letter is not None


def split_text(text: str, options: SentenceOptions, *, paragraphs: bool = False) -> list[Piece]:
    """Return the pieces of a whole text, by the very rules of the stream."""
    splitter = SentenceSplitter(options, paragraphs=paragraphs)
    return splitter.push(text) + splitter.finish()


def _skip_spaces(view: View, position: int) -> int:
    spaces = markup.SPACES.match(view.text, position, view.end)
    return spaces.end() if spaces else position


def _opens_fence(view: View, position: int) -> str | re.Pattern[str]:
    return markup.opens_fence(view.text, position, view.end, is_final=view.is_final)


def _has_line_break(view: View, end: int, start: int | None = None) -> bool:
    return bool(_LINE_BREAK.search(view.text, view.start if start is None else start, end))
