"""Whether a terminator ends a sentence: the marks, the word before, the word after.

Everything here looks at text up to a decision point and no further, so that the answer does not
depend on how much text happens to have arrived. Pure functions of their arguments; any thread.
"""

import re
from enum import Enum, auto
from typing import Final

from hocket.server.text.languages import Language
from hocket.server.text.pieces import SentenceMode
from hocket.server.text.runs import NARROW_TERMINATORS, WIDE_TERMINATORS, Run, View

_DOTS: Final = frozenset(".…")
_MARKS: Final = frozenset("!?‼‽⁇⁈⁉;")
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
    """What is known about a terminator: whether it ends a sentence, or what its answer is in."""

    END = auto()
    NO_END = auto()
    IN_OPENERS = auto()
    IN_WORD = auto()
    IN_DASHES = auto()


# What must come before more is known than in one of these.
SHOWS_MORE: Final = {
    Verdict.IN_OPENERS: re.compile(r"""[^("'\[{“‘«„‚‹¿¡*_`「『（【《]"""),
    Verdict.IN_WORD: re.compile(r"[^\w'’]|_"),
    Verdict.IN_DASHES: re.compile(r"[^-–—―\s]"),
}


class Terminators:
    """Judges terminators by the rules of a language."""

    def __init__(self, language: Language, mode: SentenceMode) -> None:
        self._language = language
        self._is_careful = mode is SentenceMode.CAREFUL
        extra = re.escape(language.extra_terminators)
        self.pattern = f"{re.escape(NARROW_TERMINATORS + WIDE_TERMINATORS)}{extra}"

    @staticmethod
    def goes_on(view: View, run: Run, after: int) -> bool:
        """Return whether `after` alone shows that a sentence does not end: what is cheap to see."""
        character = view.text[after]
        return not run.is_wide and (character.islower() or character in _GOING_ON)

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
        if isinstance(word, Verdict):
            return word
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
        if isinstance(word, Verdict):
            return word
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
            return Verdict.END if view.is_final else Verdict.IN_DASHES
        return Verdict.NO_END if view.text[dashes.end()].islower() else Verdict.END

    def _unless_abbreviation_follows(self, view: View, after: int) -> Verdict:
        word = _word_after(view, after)
        if isinstance(word, Verdict):
            return word
        return Verdict.NO_END if word.lower() in self._language.closing else Verdict.END


def _word_before(view: View, position: int) -> str:
    start = max(view.start, position - _WORD_LIMIT)
    tokens = view.text[start:position].split()
    if not tokens or view.text[position - 1].isspace():
        return ""
    return tokens[-1].lstrip("([{\"'“‘«„*_`—–-")


def _word_after(view: View, position: int) -> str | Verdict:
    """Return the word at `position`, quotes left away; empty if none; a verdict if it may go on."""
    opened = _OPENERS.match(view.text, position, view.end)
    start = opened.end() if opened else position
    word = _WORD.match(view.text, start, view.end)
    end = word.end() if word else start
    if not view.is_final and (end == view.end or (view.text[end] in "'’" and end + 1 == view.end)):
        return Verdict.IN_WORD if word else Verdict.IN_OPENERS
    return word[0] if word else ""
