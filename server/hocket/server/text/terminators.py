"""Whether a terminator ends a sentence: the marks, the word before, the word after.

Everything here looks at text up to a decision point and no further, so that the answer does not
depend on how much text happens to have arrived. Pure functions of their arguments; any thread.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from hocket.server.text.languages import Language
from hocket.server.text.pieces import SentenceMode

# Unicode property Sentence_Terminal, without what white space must follow.
WIDE_TERMINATORS: Final = (
    "։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥။።፧፨᙮᜵᜶។៕᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
)
NARROW_TERMINATORS: Final = ".!?…‼‽⁇⁈⁉"
_DOTS: Final = frozenset(".…")
_MARKS: Final = frozenset("!?‼‽⁇⁈⁉;")

# Variation selectors among them: they make an emoji of the mark before them.
_CLOSERS: Final = re.compile(
    r"""(?:\[\d{1,3}\]|[)\]}"'”’»›“‘«*_`~」』）】》〉〕〗〙〛＂＇｣\ufe0e\ufe0f])*"""
)
_OPENERS: Final = re.compile(r"""[("'\[{“‘«„‚‹¿¡*_`「『（【《]*""")
_DASHES: Final = re.compile(r"[-–—―]+\s*")
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ACRONYM: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_ORDINAL: Final = re.compile(r"\d{1,2}")
_GOING_ON: Final = frozenset(",;:)،؛、，；：%&=/")
_QUOTED: Final = frozenset("とっ")
_CLOSED_QUOTE: Final = frozenset("」』")
_VOWELS: Final = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ")
_TIMES: Final = frozenset({"a.m", "p.m"})
_WORD_LIMIT: Final = 40
_SPACED_ELLIPSIS_DOTS: Final = 4
_SHORT_NAME: Final = 4
_ABBREVIATION_LENGTHS: Final = range(2, 6)
_PHRASE_WORDS: Final = 3


class Verdict(Enum):
    """What is known about a terminator."""

    END = auto()
    NO_END = auto()
    UNDECIDED = auto()


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


@dataclass(frozen=True, slots=True)
class Run:
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


class Terminators:
    """Judges terminators by the rules of a language."""

    def __init__(self, language: Language, mode: SentenceMode) -> None:
        self._language = language
        self._is_careful = mode is SentenceMode.CAREFUL
        extra = re.escape(language.extra_terminators)
        self.pattern = f"{re.escape(NARROW_TERMINATORS + WIDE_TERMINATORS)}{extra}"
        self._run = re.compile(rf"(?:[{self.pattern}]|(?<=\.) (?=\.))+")

    def read_run(self, view: View, position: int) -> Run | None:
        """Return the run of terminators at `position`; None if it may go on beyond sight."""
        marks = self._run.match(view.text, position, view.end)
        if marks is None:  # pragma: no cover - positions come from `pattern`
            raise RuntimeError("no terminator stands there. This is a bug.")
        closers = _CLOSERS.match(view.text, marks.end(), view.end)
        end = closers.end() if closers else marks.end()
        if end == view.end:
            return None
        is_wide = any(mark in WIDE_TERMINATORS for mark in marks[0])
        return Run(position, marks[0], end, is_wide, view.text[marks.end() : end])

    def judge(self, view: View, run: Run, after: int) -> Verdict:
        """Return whether a sentence ends at `run`, with `after` the next visible character."""
        if run.is_wide:
            quoted = bool(run.closers) and run.closers[-1] in _CLOSED_QUOTE
            if quoted and view.text[after] in _QUOTED:
                return Verdict.NO_END
            return Verdict.END if after == run.end else self._unless_going_on(view, after)
        if not _MARKS.isdisjoint(run.marks):
            verdict = self._unless_going_on(view, after)
            if verdict is Verdict.END and self._is_careful:
                return self._unless_abbreviation_follows(view, after)
            return verdict
        if run.marks == ".":
            return self._judge_period(view, run, after)
        return self._judge_ellipsis(view, run, after)

    def _judge_ellipsis(self, view: View, run: Run, after: int) -> Verdict:
        before = view.text[run.start - 1] if run.start > view.start else " "
        if before in "[(":
            return Verdict.NO_END
        dots = sum(mark in _DOTS for mark in run.marks)
        if before.isspace() and dots < _SPACED_ELLIPSIS_DOTS:
            return Verdict.NO_END
        return self._unless_going_on(view, after)

    def _judge_period(self, view: View, run: Run, after: int) -> Verdict:
        token = _word_before(view, run.start)
        known = token.lower()
        if known in self._language.titles:
            return Verdict.NO_END
        going_on = self._unless_going_on(view, after)
        if going_on is not Verdict.END:
            return going_on
        if known in self._language.numbered and view.text[after].isdigit():
            return Verdict.NO_END
        if self._is_ambiguous(token, known):
            return self._if_starter_follows(view, known, after)
        if self._is_careful:
            return self._judge_carefully(view, token, after)
        return Verdict.END

    def _is_ambiguous(self, token: str, known: str) -> bool:
        if len(token) == 1 and token.isalpha():
            return True
        if known in self._language.closing or _ACRONYM.fullmatch(token):
            return True
        if self._language.has_ordinal_period and _ORDINAL.fullmatch(token):
            return True
        return (
            len(token) in _ABBREVIATION_LENGTHS
            and token.isascii()
            and token.isalpha()
            and not token.isupper()
            and _VOWELS.isdisjoint(known)
        )

    def _if_starter_follows(self, view: View, known: str, after: int) -> Verdict:
        word = _word_after(view, after)
        if word is None:
            return Verdict.UNDECIDED
        if not word:
            return Verdict.END
        if known in _TIMES and self._is_phrase_of_time(view, after):
            return Verdict.NO_END
        is_starter = word[0].isupper() and word.lower() in self._language.starters
        return Verdict.END if is_starter else Verdict.NO_END

    def _is_phrase_of_time(self, view: View, after: int) -> bool:
        words = view.text[view.start : after].split(maxsplit=_PHRASE_WORDS)
        is_short = len(words) <= _PHRASE_WORDS
        return is_short and words[0].lower() in self._language.prepositions

    def _judge_carefully(self, view: View, token: str, after: int) -> Verdict:
        word = _word_after(view, after)
        if word is None:
            return Verdict.UNDECIDED
        may_be_name = 1 < len(token) <= _SHORT_NAME and token.istitle()
        goes_on = bool(word) and word.istitle() and word.lower() not in self._language.starters
        if may_be_name and goes_on and self._language.starters:
            return Verdict.NO_END
        return Verdict.END

    def _unless_going_on(self, view: View, after: int) -> Verdict:
        character = view.text[after]
        if character.islower() or character in _GOING_ON:
            return Verdict.NO_END
        dashes = _DASHES.match(view.text, after, view.end)
        if dashes is None:
            return Verdict.END
        if dashes.end() == view.end:
            return Verdict.END if view.is_final else Verdict.UNDECIDED
        return Verdict.NO_END if view.text[dashes.end()].islower() else Verdict.END

    def _unless_abbreviation_follows(self, view: View, after: int) -> Verdict:
        word = _word_after(view, after)
        if word is None:
            return Verdict.UNDECIDED
        return Verdict.NO_END if word.lower() in self._language.closing else Verdict.END


def _word_before(view: View, position: int) -> str:
    start = max(view.start, position - _WORD_LIMIT)
    tokens = view.text[start:position].split()
    if not tokens or view.text[position - 1].isspace():
        return ""
    return tokens[-1].lstrip("([{\"'“‘«„*_`—–-")


def _word_after(view: View, position: int) -> str | None:
    """Return the word at `position`, quotes left away; empty if none; None if it may go on."""
    opened = _OPENERS.match(view.text, position, view.end)
    start = opened.end() if opened else position
    word = _WORD.match(view.text, start, view.end)
    end = word.end() if word else start
    if not view.is_final and (end == view.end or (view.text[end] in "'’" and end + 1 == view.end)):
        return None
    return word[0] if word else ""
