"""Whether a quotation or bracket stands open. Pure functions."""

import re
from typing import Final

_PAIRS: Final = {
    "(": ")",
    "[": "]",
    "“": "”",
    "„": "“",
    "«": "»",
    "「": "」",
    "『": "』",
    "（": "）",
}
_MARKS: Final = re.compile("[" + re.escape("".join({*_PAIRS, *_PAIRS.values()})) + '"]')


def is_in_quotation(text: str, start: int, position: int) -> bool:
    """Return whether a quotation mark or bracket that opened since `start` is still open."""
    expected: list[str] = []
    for found in _MARKS.finditer(text, start, position):
        mark = found[0]
        if expected and mark == expected[-1]:
            expected.pop()
        elif mark == '"':
            expected.append(mark)
        elif mark in _PAIRS:
            expected.append(_PAIRS[mark])
    return bool(expected)
