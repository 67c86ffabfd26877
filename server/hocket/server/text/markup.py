"""Lists, headings, tables, fences and inline code, as far as cutting text asks. Pure functions."""

import re
from functools import lru_cache
from typing import Final

SPACES: Final = re.compile(r"\s*")

_ITEM: Final = r"[-*+–—](?=\s)|[•‣⁃◦▪]|\d{1,3}(?:\.\)|[.)])(?=\s)|[a-z][.)](?=\s)"
_LINE_MARKER: Final = re.compile(rf"(?:{_ITEM}|#{{1,6}}(?=\s)|[|>]|`{{3}}|~{{3}})")
_LINE_MARKER_BEGUN: Final = re.compile(
    r"(?:[-*+–—]|\d{1,3}(?:\.\)|[.)])?|[a-z][.)]?|#{1,6}|`{1,2}|~{1,2})"
)
_STRUCTURED_LINE: Final = re.compile(rf"[ \t]*(?:{_ITEM}|#{{1,6}}(?=\s)|[|>])")
_OPENING_MARKER: Final = re.compile(
    r"\s*(?:[#>|*•‣⁃◦▪+–—-]+\s*)*"
    r"\(?(?:\d{1,3}(?:\.\d{1,3})*|[a-zA-Z])(?:\.\)|[.)])"
)
_ENUMERATED: Final = re.compile(r"\s*(?:([•‣⁃◦▪])|(\d{1,3}|[a-y])(\.\)|\.|\))(?=\s))")
_ENUMERATED_BEGUN: Final = re.compile(r"(?:\d{1,3}|[a-y])(?:\.\)?|\))?")
_FENCE: Final = re.compile(r"`{3,}|~{3,}")
_FENCE_BEGUN: Final = re.compile(r"`{1,}|~{1,}")
_END_OF_INFO: Final = re.compile(r"[`\n]")
_BACKTICKS: Final = re.compile(r"`+")
_OPEN_ATTRIBUTE: Final = re.compile(
    r"""<[A-Za-z][^<>]{0,200}=\s*(?:"[^"<>]{0,200}|'[^'<>]{0,200})\Z"""
)
_INLINE_CODE_LIMIT: Final = 100
_TAG_LIMIT: Final = 200
_MARKER_LIMIT: Final = 24


def begins_structured_line(text: str, start: int, end: int) -> bool | None:
    """Return whether a list item, heading, table row, quotation or fence begins at `start`.

    `None` means that the text up to `end` does not tell.
    """
    if _LINE_MARKER.match(text, start, end):
        return True
    begun = _LINE_MARKER_BEGUN.match(text, start, end)
    return None if begun and begun.end() == end else False


def is_in_structured_line(text: str, start: int, position: int) -> bool:
    """Return whether the line that holds `position` is a list item, heading or table row.

    `start` is where the first line in question begins.
    """
    line = max(text.rfind("\n", start, position), text.rfind("\r", start, position)) + 1
    return bool(_STRUCTURED_LINE.match(text, max(line, start), position))


def is_opening_marker(text: str, start: int, end: int) -> bool:
    """Return whether all of `start:end` is the marker of an item, such as `1.` or `# 2.)`."""
    return end - start <= _MARKER_LIMIT and bool(_OPENING_MARKER.fullmatch(text, start, end))


def next_marker(text: str, start: int, end: int) -> str | None:
    """Return what begins the next item if a list runs on within a line.

    After `1.) first` that is ` 2.) `; after a bullet the same bullet. `None` without a marker.
    """
    marker = _ENUMERATED.match(text, start, end)
    if marker is None:
        return None
    bullet, number, delimiter = marker.groups()
    if bullet:
        return f" {bullet}"
    following = str(int(number) + 1) if number.isdigit() else chr(ord(number) + 1)
    return f" {following}{delimiter} "


def may_become_marker(text: str, start: int, end: int) -> bool:
    """Return whether more text may make an enumerating marker of all of `start:end`."""
    return end - start <= _MARKER_LIMIT and bool(_ENUMERATED_BEGUN.fullmatch(text, start, end))


def opens_fence(text: str, start: int, end: int, *, is_final: bool) -> str | re.Pattern[str]:
    """Return the fence of a block of code that begins at `start`; "" if none does.

    The rest of a line that opens a block with backticks holds none; else they are inline code
    (CommonMark 4.5). A pattern means that the text up to `end` does not tell: what it finds would.

    Args:
        text: Holds the line.
        start: Where it begins, white space aside.
        end: Where what is known of it ends.
        is_final: Whether the text ends there.
    """
    fence = _FENCE.match(text, start, end)
    if not fence:
        begun = _FENCE_BEGUN.match(text, start, end)
        return _anything_but(begun[0][0]) if begun and begun.end() == end and not is_final else ""
    if fence.end() == end and not is_final:
        return _anything_but(fence[0][0])
    if fence[0][0] == "~":
        return fence[0]
    told = _END_OF_INFO.search(text, fence.end(), end)
    if told:
        return "" if told[0] == "`" else fence[0]
    return fence[0] if is_final else _END_OF_INFO


def end_of_fence(text: str, start: int, end: int, fence: str, *, is_final: bool) -> int | None:
    """Return where the line that closes a fence ends, line break included.

    Lines are looked at from `start`, which is inside the block. The end of the text ends a line.
    """
    found = _closing(fence[0], len(fence), is_final=is_final).search(text, start, end)
    return found.end() if found else None


@lru_cache(maxsize=2)
def _anything_but(mark: str) -> re.Pattern[str]:
    return re.compile(f"[^{mark}]")


@lru_cache(maxsize=64)
def _closing(mark: str, size: int, *, is_final: bool) -> re.Pattern[str]:
    line_end = r"(?:\r?\n|\Z)" if is_final else r"\r?\n"
    return re.compile(rf"(?<![^\n])[ \t]*{mark}{{{size},}}[ \t]*{line_end}")


def is_in_inline_code(text: str, start: int, position: int) -> bool:
    """Return whether a backtick stands open before `position`, nearby and in the same line."""
    start = max(start, position - _INLINE_CODE_LIMIT)
    if text.find("`", start, position) < 0:  # nearly always
        return False
    start = max(start, text.rfind("\n", start, position) + 1)
    opened: str | None = None
    for run in _BACKTICKS.finditer(text, start, position):
        if opened is None:
            opened = run[0]
        elif run[0] == opened:
            opened = None
    return opened is not None


def is_in_attribute(text: str, start: int, position: int) -> bool:
    """Return whether `position` is inside the quoted value of an attribute of a tag."""
    start = max(start, position - _TAG_LIMIT)
    opened = text.rfind("<", start, position)
    return opened >= 0 and bool(_OPEN_ATTRIBUTE.fullmatch(text, opened, position))
