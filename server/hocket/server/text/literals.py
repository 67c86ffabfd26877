"""One regular expression for many fixed texts. Pure functions; any thread.

Alternatives written side by side are tried one by one, and vocabularies have thousands of special
tokens that begin alike. Written as a tree of prefixes, a match costs no more than its length.
"""

import re
from collections.abc import Iterable

_End = ""  # as a key: a text ends here
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
    return f"(?:{_pattern(root)})" if root else "(?!)"


def _pattern(node: _Node) -> str:
    chain = ""
    while len(node) == 1 and _End not in node:
        ((character, node),) = node.items()
        chain += re.escape(character)
    branches = [
        re.escape(character) + _pattern(child) for character, child in node.items() if character
    ]
    if not branches:
        return chain
    return f"{chain}(?:{'|'.join(branches)}){'?' if _End in node else ''}"
