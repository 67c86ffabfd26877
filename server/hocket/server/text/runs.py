"""Runs of terminators and what closes with them, in a text that comes in parts.

One reader per text, in the text's thread. It goes on where it stopped, so that a run that comes
one character at a time is read once.
"""

# ruff: noqa: RUF001 - marks of many scripts are what this file is about

import re
from functools import lru_cache
from typing import Final, NamedTuple

# Unicode property Sentence_Terminal, without what white space must follow.
WIDE_TERMINATORS: Final = (
    "։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥။።፧፨᙮᜵᜶។៕᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
)
NARROW_TERMINATORS: Final = ".!?…‼‽⁇⁈⁉"
_WIDE: Final = frozenset(WIDE_TERMINATORS)

# Variation selectors among them: they make an emoji of the mark before them.
_CLOSING: Final = r""")\]}"'”’»›“‘«*_`~」』）】》〉〕〗〙〛＂＇｣\ufe0e\ufe0f"""
_CLOSERS: Final = re.compile(rf"(?:\[\d{{1,3}}\]|[{_CLOSING}])*")
_BEYOND_CLOSERS: Final = re.compile(rf"[^{_CLOSING}\s]")
_OPEN_NOTE: Final = re.compile(r"\[\d{0,3}")  # may become the number of a note, which closes
ANYTHING: Final = re.compile("")


class View(NamedTuple):
    """The part of a text that may be looked at.

    Attributes:
        text: It and more.
        start: Where the open piece begins.
        end: Where sight ends.
        is_final: Whether nothing comes after `end`.
    """

    text: str
    start: int
    end: int
    is_final: bool


class Run(NamedTuple):
    """Terminators and what closes with them.

    Attributes:
        start: The first terminator.
        marks: The terminators, with the spaces inside a spaced ellipsis.
        end: Behind the closing quotes and brackets.
        is_wide: Whether a sentence may end without white space.
        closers: The closing quotes and brackets.
    """

    start: int
    marks: str
    end: int
    is_wide: bool
    closers: str


@lru_cache(maxsize=64)
def _patterns(terminators: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    marks = re.compile(rf"(?:[{terminators}]|(?<=\.) (?=\.))*")
    return marks, re.compile(rf"[^{terminators}\s]")


class RunReader:
    """Reads the run at a position, as far as the text has come.

    Args:
        terminators: The characters that end sentences, as inside the brackets of a pattern.
    """

    def __init__(self, terminators: str) -> None:
        self._marks, self._beyond_marks = _patterns(terminators)
        self.forget()

    def forget(self) -> None:
        """Begin anew: positions have another meaning from now on."""
        self._start = -1
        self._marks_end = 0
        self._end = 0

    def read(self, view: View, start: int) -> int | re.Pattern[str]:
        """Return where the run at `start` ends; if that is not seen yet, what will show more.

        White space shows nothing: what a run means, the next visible character tells.
        """
        if start != self._start:
            self._start = self._marks_end = self._end = start
        marks = self._marks.match(view.text, self._marks_end, view.end)
        self._marks_end = marks.end() if marks else self._marks_end
        if self._marks_end == view.end:
            return self._beyond_marks
        closers = _CLOSERS.match(view.text, max(self._marks_end, self._end), view.end)
        self._end = closers.end() if closers else self._marks_end
        if self._end == view.end:
            return _BEYOND_CLOSERS
        if not view.is_final and _OPEN_NOTE.fullmatch(view.text, self._end, view.end):
            return ANYTHING
        return self._end

    def run(self, view: View) -> Run:
        """Return the run that was read."""
        marks = view.text[self._start : self._marks_end]
        closers = view.text[self._marks_end : self._end]
        return Run(self._start, marks, self._end, not _WIDE.isdisjoint(marks), closers)
