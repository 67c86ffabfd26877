"""Where a piece is cut that is as long as it may become and has no end. Pure functions."""

# ruff: noqa: RUF001 - marks of many scripts are what this file is about

import re
from typing import Final

from hocket.server.text.graphemes import is_boundary, last_boundary
from hocket.server.text.pieces import PieceKind
from hocket.server.text.runs import View

_CLAUSE: Final = re.compile(r"[,;:،؛—–)\]]\s+|[，；：、）】」』]\s*")
_SPACE: Final = re.compile(r"\s+")


def cut_softly(view: View, *, is_code: bool) -> tuple[int, PieceKind]:
    """Return the best cut of what is in sight: a line of code, a clause, a word, a character."""
    if is_code:
        line = view.text.rfind("\n", view.start, view.end - 1) + 1
        if line > view.start:
            return line, PieceKind.CODE
        return last_boundary(view.text, view.start, view.end), PieceKind.CODE
    middle = (view.start + view.end) // 2
    for pattern in (_CLAUSE, _SPACE):
        for position in sorted(
            (found.end() for found in pattern.finditer(view.text, middle, view.end)),
            reverse=True,
        ):
            if position < view.end and is_boundary(view.text, position, view.start):
                return position, PieceKind.SOFT
    return last_boundary(view.text, view.start, view.end), PieceKind.SOFT
