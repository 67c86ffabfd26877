"""A paragraph to its list items, headings and table rows. Pure functions; any thread."""

import re
from enum import Enum, auto
from itertools import pairwise
from typing import Final

_LINE: Final = re.compile(r"[^\n\r\u2028\u2029]*(?:\r\n|[\n\r\u2028\u2029]|\Z)")
_SINGLE: Final = re.compile(r"[ \t]*(?:#{1,6}\s|\|)")
_QUOTED: Final = re.compile(r"[ \t]*>")
_ITEM: Final = re.compile(r"[ \t]*(?:[-*+–—]\s|[•‣⁃◦▪]|\d{1,3}(?:\.\)|[.)])\s|[a-z][.)]\s)")
# A number within a paragraph begins a list only where it is the first: lines break anywhere.
_FIRST_ITEM: Final = re.compile(r"[ \t]*(?:[-*+–—]\s|[•‣⁃◦▪]|1(?:\.\)|[.)])\s|a[.)]\s)")


class Block(Enum):
    """What a line belongs to, as far as the next one asks."""

    NONE = auto()
    PROSE = auto()
    QUOTED = auto()
    ITEM = auto()
    SINGLE = auto()


def split_blocks(text: str, block: Block, *, begins_line: bool) -> tuple[list[str], Block]:
    """Cut a text without blank lines; return the parts and what the last one is.

    Headings and rows are a part each. An item goes on in lines that are indented, a quotation in
    lines that are marked; prose goes on until something else begins.

    Args:
        text: The text.
        block: What the text goes on with.
        begins_line: Whether it begins a line; else it goes on with one.
    """
    starts = [0]
    for line in _LINE.finditer(text):
        if line.end() == line.start():
            break
        if line.start() or begins_line:
            begun = _block_of(line[0], block)
            if begun is None:
                continue
            block = begun
            if line.start():
                starts.append(line.start())
    bounds = [*starts, len(text)]
    parts = [text[start:end] for start, end in pairwise(bounds)]
    return parts, block


def _block_of(line: str, before: Block) -> Block | None:
    """Return what a line begins; None if it goes on with what is before it."""
    if not line.strip():
        return None
    if _SINGLE.match(line):
        return Block.SINGLE
    if _QUOTED.match(line):
        return None if before is Block.QUOTED else Block.QUOTED
    if (_FIRST_ITEM if before is Block.PROSE else _ITEM).match(line):
        return Block.ITEM
    goes_on = before is Block.PROSE or (before is Block.ITEM and line[0] in " \t")
    return None if goes_on else Block.PROSE
