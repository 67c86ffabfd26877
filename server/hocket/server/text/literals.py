"""One regular expression for many fixed texts. Pure functions; any thread.

Alternatives written side by side are tried one by one, and vocabularies have thousands of special
tokens that begin alike. Written as a tree of prefixes, a match costs no more than its length. Texts
that begin with each other very often, as in no real vocabulary, stand side by side in the end.
"""

import re
from collections.abc import Iterable, Iterator

_End = ""  # as a key: a text ends here
_MOST_NESTED = 20  # expressions nested deeper than this exhaust their compiler's stack, in the end
_Node = dict[str, "_Node"]


def any_of(texts: Iterable[str]) -> str:
    """Return a pattern that matches the longest of some texts, or nothing if there are none.

    It is an atom: it can be followed by a quantifier or stand beside other patterns.
    """
    root: _Node = {}
    for text in filter(None, texts):
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[_End] = {}
    return f"(?:{_pattern(root, _MOST_NESTED)})" if root else "(?!)"


def _pattern(node: _Node, levels: int) -> str:
    chain = ""
    while len(node) == 1 and _End not in node:
        ((character, node),) = node.items()
        chain += re.escape(character)
    if not levels:
        rests = sorted(_rests(node), key=len, reverse=True)
        return f"{chain}(?:{'|'.join(map(re.escape, rests))})"
    branches = [
        re.escape(character) + _pattern(child, levels - 1)
        for character, child in node.items()
        if character
    ]
    if not branches:
        return chain
    return f"{chain}(?:{'|'.join(branches)}){'?' if _End in node else ''}"


def _rests(node: _Node) -> Iterator[str]:
    """Return how the texts go on that come to a node."""
    ahead = [("", node)]
    while ahead:
        rest, node = ahead.pop()
        for character, child in node.items():
            if character:
                ahead.append((rest + character, child))
            else:
                yield rest
