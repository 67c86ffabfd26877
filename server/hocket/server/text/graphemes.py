"""Where a character ends as readers see it: text is never cut inside one. Pure functions.

The rules follow UAX #29 for grapheme clusters as far as a cut needs them: it may keep more
together than the standard does, never less.
"""

import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"
_HANGUL_VOWELS_AND_FINALS = ("\u1160", "\u11ff")
_HANGUL_EXTENDED = ("\ud7b0", "\ud7ff")
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
_REGIONAL_INDICATORS = ("\U0001f1e6", "\U0001f1ff")
_TAGS = ("\U000e0020", "\U000e007f")
_MARKS = frozenset({"Mn", "Me", "Mc"})
_VIRAMA = 9  # canonical combining class


def _within(character: str, bounds: tuple[str, str]) -> bool:
    return bounds[0] <= character <= bounds[1]


def is_boundary(before: str, after: str) -> bool:
    """Return whether text may be cut between two code points."""
    if after < "\u0300":
        return not (before == "\r" and after == "\n") and before != _ZERO_WIDTH_JOINER
    if before == _ZERO_WIDTH_JOINER or after in {_ZERO_WIDTH_JOINER, "\u200c"}:
        return False
    if unicodedata.category(after) in _MARKS or unicodedata.combining(before) == _VIRAMA:
        return False
    if _within(before, _REGIONAL_INDICATORS) and _within(after, _REGIONAL_INDICATORS):
        return False
    return not any(
        _within(after, bounds)
        for bounds in (_HANGUL_VOWELS_AND_FINALS, _HANGUL_EXTENDED, _SKIN_TONES, _TAGS)
    )


def last_boundary(text: str, start: int, end: int) -> int:
    """Return the last position in `start < position < end` where text may be cut.

    `end` itself is not one, for what comes after it is not known. If all of it is one character,
    the position is `end - 1`, or `end - 2` where that would part a line break.
    """
    for position in range(end - 1, start, -1):
        if is_boundary(text[position - 1], text[position]):
            return position
    return end - 1 if text[end - 2 : end] != "\r\n" else end - 2
