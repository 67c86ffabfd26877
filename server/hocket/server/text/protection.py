"""What is kept of a text while the rest is worked on: found, masked, put back. Pure; any thread."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hocket.server.text.verbatim import Span, Terms, find_verbatim

_LETTER: Final = re.compile(r"[^\W_]")
# Brackets that models copy, the best first; the first that do not occur in a text are taken. Of 16
# short tasks SmolLM2 kept all masks in 7, 3 and 2.
_BRACKETS: Final = (("⟦", "⟧"), ("<<", ">>"), ("[[", "]]"))
_TAKEN: Final = re.compile(r"(?:(?<=\[\[)x*|(?<!x)x+(?=\]\]))")


class Protection:
    """Finds what is kept of the segments of one document.

    Args:
        finds_kinds: Keeps code, addresses, placeholders, tags and formulas.
        terms: Texts that are kept wherever they stand, written as they are here. In scripts that
            part words by spaces they are whole words.
        ranges: What else is kept, in UTF-8 bytes of the document. A range that begins or ends
            inside a character takes all of it.
    """

    def __init__(
        self,
        *,
        finds_kinds: bool = True,
        terms: Iterable[str] = (),
        ranges: Iterable[Span] = (),
    ) -> None:
        self._finds_kinds = finds_kinds
        self._terms = Terms(terms)
        self._ranges = merge(ranges)
        self._ends = [end for _, end in self._ranges]

    @property
    def finds_kinds(self) -> bool:
        """Whether code, addresses, placeholders, tags and formulas are kept."""
        return self._finds_kinds

    def find(self, text: str, start_byte: int = 0) -> tuple[Span, ...]:
        """Return what is kept of a text that begins at `start_byte` of the document.

        In characters of the text; in order, apart from each other.
        """
        spans = list(self._terms.find(text))
        if self._finds_kinds:
            spans.extend(find_verbatim(text))
        if self._ends and self._ends[-1] > start_byte:
            spans.extend(self._find_ranges(text, start_byte))
        return merge(spans)

    def _find_ranges(self, text: str, start_byte: int) -> Iterator[Span]:
        raw = text.encode()
        characters = done = 0  # of `raw`, so many characters are in the first `done` bytes
        for index in range(bisect_right(self._ends, start_byte), len(self._ranges)):
            start, end = self._ranges[index]
            if start >= start_byte + len(raw):
                return
            bounds: list[int] = []
            for byte in (_edge(raw, start - start_byte, -1), _edge(raw, end - start_byte, 1)):
                characters += len(raw[done:byte].decode())
                done = max(done, byte)
                bounds.append(characters)
            yield bounds[0], bounds[1]


@dataclass(frozen=True, slots=True)
class Part:
    """What is worked on between kept spans.

    Attributes:
        before: What stands before it, kept.
        text: What is worked on. Neither begins nor ends with white space; holds a letter or a
            digit.
    """

    before: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A text with masks in the place of what is kept.

    Attributes:
        source: The text as it was.
        spans: What is kept of it, in characters; in order, apart from each other.
        text: The text with masks.
        brackets: What a mask begins and ends with; a number stands between.
    """

    source: str
    spans: tuple[Span, ...]
    text: str
    brackets: tuple[str, str]

    def unmask(self, written: str) -> str | None:
        """Return what was written, with what is kept in the place of the masks.

        None unless each mask is there exactly once, and no other. A space beside the number is no
        harm, nor are the digits of another script.
        """
        opening, closing = map(re.escape, self.brackets)
        masks = re.compile(rf"{opening} ?(\d{{1,9}}) ?{closing}")
        numbers = sorted(int(found[1]) for found in masks.finditer(written))
        if numbers != list(range(len(self.spans))):
            return None
        kept = [self.source[start:end] for start, end in self.spans]
        return masks.sub(lambda found: kept[int(found[1])], written)

    def parts(self) -> tuple[tuple[Part, ...], str]:
        """Return what is worked on piece by piece where masks were lost, and what stands after.

        Joined they are the source. No part means that all of it is kept.
        """
        parts: list[Part] = []
        done = 0
        for start, end in between(self.source, self.spans):
            text = self.source[start:end]
            if is_kept(text, ()):
                continue
            begin = start + len(text) - len(text.lstrip())
            parts.append(Part(self.source[done:begin], text.strip()))
            done = begin + len(parts[-1].text)
        return tuple(parts), self.source[done:]


def mask(text: str, spans: Sequence[Span]) -> Masked:
    """Mask spans of a text, in characters; they must be in order and apart from each other."""
    brackets = _brackets_for(text)
    pieces: list[str] = []
    for number, (start, end) in enumerate(between(text, spans)):
        pieces += [text[start:end], f"{brackets[0]}{number}{brackets[1]}"]
    del pieces[-1:]
    return Masked(source=text, spans=tuple(spans), text="".join(pieces), brackets=brackets)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans in order and apart from each other, empty ones left away."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def between(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return what stands before, between and after spans: one more than there are, maybe empty."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return list(pairwise(edges))[::2]


def is_kept(text: str, spans: Sequence[Span]) -> bool:
    """Return whether nothing is left to work on: no letter and no digit outside the spans."""
    return not any(_LETTER.search(text, start, end) for start, end in between(text, spans))


def _edge(raw: bytes, position: int, step: int) -> int:
    """Return the nearest edge of a character, from `position` on in the direction of `step`."""
    position = min(max(position, 0), len(raw))
    while 0 < position < len(raw) and 0x80 <= raw[position] < 0xC0:  # noqa: PLR2004 - of UTF-8
        position += step
    return position


def _brackets_for(text: str) -> tuple[str, str]:
    """Return brackets of which neither occurs in a text: no mask can come of what it leaves."""
    for opening, closing in _BRACKETS:
        if opening not in text and closing not in text:
            return opening, closing
    more = "x" * (1 + max((len(found[0]) for found in _TAKEN.finditer(text)), default=0))
    return f"[[{more}", f"{more}]]"
