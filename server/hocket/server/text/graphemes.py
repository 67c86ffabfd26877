"""Where a character ends as readers see it: text is never cut inside one. Pure functions.

The rules are those of UAX #29 for grapheme clusters. Where `unicodedata` does not know a property,
a wider one stands for it: more may be kept together than the standard asks for, never less.
"""

import re
from itertools import takewhile
from typing import Final
from unicodedata import category, combining

_FIRST_JOINED: Final = "\u0300"  # code points before it join nothing but CR with LF
_ZERO_WIDTH_JOINER: Final = "\u200d"
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})
_CONTROLS: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
_SYMBOLS: Final = frozenset({"So", "Sm"})
_VIRAMA: Final = 9  # canonical combining class
_FINALS: Final = 28  # Hangul syllables come in rows of so many; the first of a row is open

# No marks, but joined to what stands before them: joiners, vowel signs of Thai and Lao, voicing
# marks of halfwidth Katakana, skin tones, tags.
_JOINED: Final = re.compile(
    "[\u0e33\u0eb3\u200c\u200d\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
# Joined to what stands after them.
_PREPENDED: Final = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\u1cf5\u1cf6\U000110bd\U000110cd\U000111c2\U000111c3"
    "\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02]"
)
_PICTOGRAPHS: Final = re.compile("[\u203c\u2049\u2139\u3030\u303d\U0001f000-\U0001fffd]")
_REGIONAL_INDICATOR: Final = re.compile("[\U0001f1e6-\U0001f1ff]")
_LEADING_JAMO: Final = re.compile("[\u1100-\u115f\ua960-\ua97c]")
_VOWEL_JAMO: Final = re.compile("[\u1160-\u11a7\ud7b0-\ud7c6\U00016d63\U00016d67-\U00016d6a]")
_TRAILING_JAMO: Final = re.compile("[\u11a8-\u11ff\ud7cb-\ud7fb]")
_SYLLABLE: Final = re.compile("[\uac00-\ud7a3]")


def is_boundary(text: str, position: int, start: int = 0) -> bool:
    """Return whether text may be cut before `position`.

    Nothing from `position + 1` on is looked at, and nothing before `start`, where a piece begins
    that a cut has made already. There must be something on both sides.
    """
    before, after = text[position - 1], text[position]
    if before < _FIRST_JOINED:
        if after < _FIRST_JOINED:
            return not (before == "\r" and after == "\n")
        return not _is_joined(after) or _is_control(before)
    if _is_control(before) or _is_control(after):
        return True
    if _is_joined(after) or _PREPENDED.match(before):
        return False
    if before == _ZERO_WIDTH_JOINER and _is_pictograph(after):
        base = position - 1 - _count_joined(text, position, start)
        return base >= start and not _is_pictograph(text[base])
    if _is_joined(before) and category(after) == "Lo" and _has_virama(text, position, start):
        return False
    if _REGIONAL_INDICATOR.match(before) and _REGIONAL_INDICATOR.match(after):
        return _count_regional_indicators(text, position, start) % 2 == 0
    return not _is_one_syllable(before, after)


def last_boundary(text: str, start: int, end: int) -> int:
    """Return the last position in `start < position < end` where text may be cut.

    `end` itself is not one, for what comes after it is not known. If all of it is one character,
    the position is `end - 1`, or `end - 2` where that would part a line break.
    """
    for position in range(end - 1, start, -1):
        if is_boundary(text, position, start):
            return position
    return end - 1 if text[end - 2 : end] != "\r\n" else end - 2


def _is_joined(character: str) -> bool:
    return category(character) in _MARKS or _JOINED.match(character) is not None


def _is_control(character: str) -> bool:
    return (
        category(character) in _CONTROLS
        and _JOINED.match(character) is None
        and _PREPENDED.match(character) is None
    )


def _is_pictograph(character: str) -> bool:
    return category(character) in _SYMBOLS or _PICTOGRAPHS.match(character) is not None


def _count_joined(text: str, position: int, start: int) -> int:
    backwards = (text[index] for index in range(position - 1, start - 1, -1))
    return sum(1 for _ in takewhile(_is_joined, backwards))


def _count_regional_indicators(text: str, position: int, start: int) -> int:
    backwards = (text[index] for index in range(position - 1, start - 1, -1))
    return sum(1 for _ in takewhile(_REGIONAL_INDICATOR.match, backwards))


def _has_virama(text: str, position: int, start: int) -> bool:
    """Return whether a mark before `position` makes one conjunct of the letters around it."""
    count = _count_joined(text, position, start)
    return any(combining(mark) == _VIRAMA for mark in text[position - count : position])


def _is_one_syllable(before: str, after: str) -> bool:
    """Return whether two code points are parts of one Hangul syllable."""
    if _LEADING_JAMO.match(before):
        return bool(
            _LEADING_JAMO.match(after) or _VOWEL_JAMO.match(after) or _SYLLABLE.match(after)
        )
    is_open = bool(_SYLLABLE.match(before)) and not ((ord(before) - ord("\uac00")) % _FINALS)
    if _VOWEL_JAMO.match(before) or is_open:
        return bool(_VOWEL_JAMO.match(after) or _TRAILING_JAMO.match(after))
    is_closed = bool(_SYLLABLE.match(before) or _TRAILING_JAMO.match(before))
    return is_closed and bool(_TRAILING_JAMO.match(after))
