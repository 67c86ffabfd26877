"""Code, addresses, placeholders, tags, formulas and terms: what stays as it is in a text.

Pure functions; any thread. Patterns look ahead no further than a bound, or to the next sign of
their own kind, so that a text costs what its length is, whoever wrote it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from hocket.server.text import markup
from hocket.server.text.literals import any_of

Span = tuple[int, int]

# Letters, marks and digits of scripts that part words by spaces and attach nothing to them. A term
# is not looked for inside their words; Arabic, Korean and Japanese attach particles to a name.
_SPACED: Final = (
    "0-9A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u0386\u0388-\u0588"
    "\u0900-\u0963\u0966-\u0df3\u10a0-\u10fa\u10fc-\u10ff\u1c80-\u1cbf\u1d00-\u1fff\u2c60-\u2c7f"
    "\ua640-\ua69f\ua720-\ua7ff"
)
_OF_SPACED: Final = re.compile(f"[{_SPACED}]")
_JOINED: Final = "\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff"
# The rest of a line that opens a block holds no backtick; else it is inline code.
_FENCE: Final = re.compile(r"^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)

_ADDRESS: Final = rf"[{_SPACED}._~:/?#@!$&'*+,;=%-]"
# A parenthesis belongs to an address if it is closed within; the point of a sentence does not.
_REST_OF_ADDRESS: Final = rf"{_ADDRESS}+(?:\({_ADDRESS}*\){_ADDRESS}*)*(?<=[{_SPACED}/=&#~$+@%)-])"
_ELEMENTS: Final = "(?i:code|pre|script|style|kbd|samp|var|tt)"
_ENVIRONMENTS: Final = (
    r"(?:equation|align|gather|multline|eqnarray|math|displaymath|verbatim|lstlisting|tabular)\*?"
)
_AMOUNT: Final = r"(?:\d{1,4}|\*)"
_CONVERSION: Final = (
    rf"%(?:\(\w{{1,60}}\))?(?:\d{{1,2}}\$)?[-+#0]{{0,3}}{_AMOUNT}?(?:\.{_AMOUNT})?"
    r"(?:hh?|ll?|[Lzjt])?[sdiuoxXfFeEgGcrap@]"
)

# What must be in a text for a pattern to be worth trying, and the pattern.
_PATTERNS: Final = tuple(
    (sign, re.compile(pattern, re.DOTALL))
    for sign, pattern in (
        # Inline code; a blank line ends any.
        ("`", r"(?<!`)(`{1,8})(?!`)(?:[^\n]|\n(?![ \t]{0,99}\n)){1,500}?(?<!`)\1(?!`)"),
        # Addresses of pages and of people; the targets of links.
        ("://", rf"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{{1,15}}://{_REST_OF_ADDRESS}"),
        ("www.", rf"(?<![A-Za-z0-9])www\.{_REST_OF_ADDRESS}"),
        ("](", r"(?<=\]\()[^()\s]{1,2000}(?=[)\s])"),
        (
            "@",
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])",
        ),
        # Placeholders of templates and of formatted strings.
        ("{", r"[$#]?\{\{[^{}\n]{0,200}\}\}|\{%[^{}\n]{0,300}%\}"),
        ("{", r"[$#]?\{(?:\w[\w.\[\]-]{0,60})?(?:![rsa])?(?::[^{}\s]{0,30})?\}"),
        ("%", rf"(?<![\d%]){_CONVERSION}"),
        # Tags, comments, entities, elements whose text is no prose.
        ("<", r"</?[A-Za-z][\w:.-]{0,60}(?:[\s/][^<>]*)?>|<[!?%][^<>]*>"),
        ("<!--", r"<!--(?:(?!<!--|-->).)*-->"),
        ("</", rf"<({_ELEMENTS})\b[^<>]*>(?:(?!</?\1\b).)*</\1\s{{0,9}}>"),
        ("&", r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});"),
        # Formulas. Between single dollars neither edge is a space, and no number follows, as it
        # does where both are money.
        ("$$", r"\$\$[^$]+\$\$"),
        ("$", r"(?<![\\$0-9A-Za-z])\$(?![\s$])[^$\n]{1,300}(?<![\s\\])\$(?![\d$])"),
        ("\\(", r"\\\((?:[^\\]|\\(?![()]))+\\\)"),
        ("\\[", r"\\\[(?:[^\\]|\\(?![\[\]]))+\\\]"),
        (
            "\\begin",
            rf"\\begin\{{({_ENVIRONMENTS})\}}(?:(?!\\(?:begin|end)\{{\1\}}).)*\\end\{{\1\}}",
        ),
        # No word of any language: keys, digests, pictures written as text.
        ("", r"(?<![A-Za-z0-9+/=_%-])[A-Za-z0-9+/=_%-]{64,}"),
    )
)


def find_verbatim(text: str) -> Iterator[Span]:
    """Yield where code, addresses, placeholders, tags and formulas are; they may overlap."""
    if "```" in text or "~~~" in text:
        yield from _find_fenced(text)
    for sign, pattern in _PATTERNS:
        if sign in text:
            for found in pattern.finditer(text):
                yield found.span()


def _find_fenced(text: str) -> Iterator[Span]:
    """Yield blocks of code between fences; one that is not closed reaches to the end."""
    position = 0
    while found := _FENCE.search(text, position):
        start, end = found.start(1), len(text)
        position = markup.end_of_fence(text, found.end(), end, found[1], is_final=True) or end
        yield start, start + len(text[start:position].rstrip())


class Terms:
    """Finds given texts, written as they are given.

    Where one begins or ends with a letter of a script that parts words by spaces, no such letter
    may be beside it, so that it is not found inside a longer word.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        groups: dict[tuple[bool, bool], list[str]] = {}
        for term in filter(None, terms):
            edges = bool(_OF_SPACED.match(term[0])), bool(_OF_SPACED.match(term[-1]))
            groups.setdefault(edges, []).append(term)
        self._patterns = tuple(
            re.compile(
                f"(?={f'(?<![{_SPACED}])' if begins else ''}({any_of(group)})"
                f"(?![{_JOINED}{_SPACED if ends else ''}]))"
            )
            for (begins, ends), group in groups.items()
        )

    def find(self, text: str) -> Iterator[Span]:
        """Yield where they are, the longest at each place; they may overlap."""
        for pattern in self._patterns:
            for found in pattern.finditer(text):
                yield found.span(1)
