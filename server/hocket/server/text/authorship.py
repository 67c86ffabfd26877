"""Which special tokens a template wrote itself, whatever its callers wrote. Any thread.

Before a template is compiled, marks that nobody can guess are put around every special token in
its own text, and at the open ends of tokens that it builds, as in `'<|' + role + '|>'`. In what it
writes, a special token is one between marks. What callers write holds no marks, however the
template cuts, joins, maps or reverses it, so that nothing of it becomes a special token.
"""

# ruff: noqa: N802 - Jinja's visitors name their methods after its nodes

import re
import secrets
from collections.abc import Mapping
from typing import Final

from jinja2 import nodes
from jinja2.visitor import NodeVisitor

from hocket.server.text.literals import any_of

_NONCHARACTERS: Final = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_LEFTOVERS: Final = re.compile("[\ufdd0-\ufdef]+")
_MARK_CHARS: Final = 12  # 60 bits
_ROLES: Final = frozenset({"", "system", "user", "assistant", "tool"})
# Methods whose arguments are looked for in a text. Those of the callers have no marks.
_SEARCHES: Final = """
    count endswith find get index lstrip partition removeprefix removesuffix replace rfind
    rindex rpartition rsplit rstrip split startswith strip
"""
_FIELD: Final = re.compile(r"(%s|\{\w*\})")


class Authorship:
    """Marks a template's own special tokens, and finds them again in what it writes.

    Args:
        special: How special tokens are written. A text of one character is none here: it could
            not be told from a letter.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self._ids = {text: token_id for text, token_id in special.items() if len(text) > 1}
        self._mark = "".join(secrets.choice(_NONCHARACTERS) for _ in range(_MARK_CHARS))
        ends = _NONCHARACTERS[:4]
        opened, closed, self._begun, self._ended = (self._mark + end for end in ends)
        self._marks = re.compile(f"{self._mark}[{''.join(ends)}]")
        tokens = any_of(self._ids)
        self._token = re.compile(f"({tokens})")
        self._marked = rf"{opened}\1{closed}"
        self._written = re.compile(
            f"{opened}({tokens}){closed}|{self._begun}({tokens}){self._ended}"
        )
        self._heads = {text[:size] for text in self._ids for size in range(1, len(text))}
        self._tails = {text[size:] for text in self._ids for size in range(1, len(text))}
        self._longest = max(map(len, self._ids), default=0)
        self._built: frozenset[str] = frozenset()

    def mark_template(self, template: nodes.Template) -> None:
        """Put marks into a parsed template, once.

        A token that is built counts if what is between its ends is a role that everybody has, or
        a text of the template's: a role of a caller's own makes no special token.
        """
        constants = {node.value for node in template.find_all(nodes.Const)}
        marker = _Marker(self)
        marker.visit(template)
        self._built = frozenset(
            text
            for text in self._ids
            for start in range(1, len(text))
            if text[:start] in marker.heads
            for end in range(start, len(text))
            if text[end:] in marker.tails and text[start:end] in _ROLES | constants
        )

    def mark(self, text: str) -> str:
        """Return a text of the template's with marks around its special tokens."""
        return self._token.sub(self._marked, text)

    def mark_ends(self, text: str) -> tuple[str, str, str]:
        """Return a text marked also where it may be the end or the beginning of a token.

        Returns:
            The text, the end of a token with which it begins, the beginning with which it ends.
        """
        pieces = self._token.split(text)
        first, last = pieces[0], pieces[-1]
        sizes = range(min(self._longest, len(first)), 0, -1)
        tail = next((first[:size] for size in sizes if first[:size] in self._tails), "")
        if len(pieces) == 1:
            last = last[len(tail) :]
        sizes = range(min(self._longest, len(last)), 0, -1)
        head = next((last[-size:] for size in sizes if last[-size:] in self._heads), "")
        start, end = len(tail), len(text) - len(head)
        middle = self.mark(text[start:end])
        return (
            (tail + self._ended if tail else "") + middle + (self._begun + head if head else ""),
            tail,
            head,
        )

    def is_forged(self, text: str) -> bool:
        """Return whether a text of a caller's holds marks, which chance does not bring about."""
        return self._mark in text

    def parts(self, written: str) -> list[str | int]:
        """Return ordinary text and the template's special tokens, in order."""
        parts: list[str | int] = []
        start = 0
        for match in self._written.finditer(written):
            token = match[1] or (match[2] if match[2] in self._built else None)
            if token:
                parts += [self.unmarked(written[start : match.start()]), self._ids[token]]
                start = match.end()
        return [*parts, self.unmarked(written[start:])]

    def unmarked(self, written: str) -> str:
        """Return a text without marks."""
        return self._marks.sub("", written)

    def apparent(self, written: str) -> list[int]:
        """Return the special tokens that stand in a text, whoever wrote them."""
        plain = _LEFTOVERS.sub("", written)  # the template may have cut the marks, too
        return [self._ids[token] for token in self._token.findall(plain)]


class _Marker(NodeVisitor):
    """Marks the constants of a template that are written, not those that are looked for."""

    def __init__(self, authorship: Authorship) -> None:
        self._authorship = authorship
        self.heads: set[str] = set()
        self.tails: set[str] = set()

    def visit_Const(self, node: nodes.Const) -> None:
        if isinstance(node.value, str):
            node.value = self._authorship.mark(node.value)

    def visit_TemplateData(self, node: nodes.TemplateData) -> None:
        node.data = self._with_ends(node.data)

    def visit_Output(self, node: nodes.Output) -> None:
        self._mark_ends(*node.nodes)

    def visit_Add(self, node: nodes.Add) -> None:
        self._mark_ends(node.left, node.right)

    def visit_Concat(self, node: nodes.Concat) -> None:
        self._mark_ends(*node.nodes)

    def visit_Mod(self, node: nodes.Mod) -> None:
        self._mark_ends(node.left, node.right)

    def visit_Assign(self, node: nodes.Assign) -> None:
        self._mark_ends(node.node)

    def visit_CondExpr(self, node: nodes.CondExpr) -> None:
        self.visit(node.test)
        self._mark_ends(node.expr1, *([node.expr2] if node.expr2 else []))

    def visit_List(self, node: nodes.List) -> None:
        self._mark_ends(*node.items)

    def visit_Pair(self, node: nodes.Pair) -> None:
        self._look_for(node.key)
        self._mark_ends(node.value)

    def visit_Compare(self, node: nodes.Compare) -> None:
        self._look_for(node.expr, *(operand.expr for operand in node.ops))

    def visit_Getitem(self, node: nodes.Getitem) -> None:
        self.visit(node.node)
        self._look_for(node.arg)

    def visit_Test(self, node: nodes.Test) -> None:
        self.visit(node.node)
        self._look_for(*node.args or ())

    def visit_Filter(self, node: nodes.Filter) -> None:
        if node.node is not None:
            self._mark_ends(node.node)
        searched = 1 if node.name == "replace" else 0
        self._look_for(*node.args[:searched])
        self._mark_ends(*node.args[searched:], *(keyword.value for keyword in node.kwargs))

    def visit_Call(self, node: nodes.Call) -> None:
        searched = 0
        if isinstance(node.node, nodes.Getattr):
            self._mark_ends(node.node.node)
            if node.node.attr in _SEARCHES.split():
                searched = 1
        else:
            self.visit(node.node)
        self._look_for(*node.args[:searched])
        self._mark_ends(*node.args[searched:], *(keyword.value for keyword in node.kwargs))
        for arguments in (node.dyn_args, node.dyn_kwargs):
            if arguments is not None:
                self.visit(arguments)

    def _mark_ends(self, *written: nodes.Node) -> None:
        for node in written:
            if isinstance(node, nodes.Const) and isinstance(node.value, str):
                node.value = self._with_ends(node.value)
            else:
                self.visit(node)

    def _with_ends(self, text: str) -> str:
        pieces = _FIELD.split(text)
        for index in range(0, len(pieces), 2):
            pieces[index], tail, head = self._authorship.mark_ends(pieces[index])
            self.tails.add(tail)
            self.heads.add(head)
        return "".join(pieces)

    def _look_for(self, *searched: nodes.Node) -> None:
        for node in searched:
            constants = node.items if isinstance(node, nodes.List | nodes.Tuple) else [node]
            if not all(isinstance(constant, nodes.Const) for constant in constants):
                self.visit(node)
