"""Where chat templates run: a Jinja in which nothing is without bound. Any thread, several at once.

A template comes with weights; whoever chose the model has not read it. It reaches nothing but what
it is given, changes nothing, and works within a `Budget`: what can grow or last is counted, and
what cannot be counted is not offered. Its program is rewritten for that before it is compiled:
loops count their turns, and `~`, slices and literals of containers become calls.
"""

# ruff: noqa: N802 - Jinja's visitors name their methods after its nodes

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any, Final

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from hocket.server.text.budget import Budget

_MOST_IN_POWER: Final = 10_000
# Their text or their time grows faster than what they are given, or they draw lots.
_LEFT_OUT: Final = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
_PADDED_METHODS: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_TEXT_METHODS: Final = """
    capitalize casefold count endswith find format format_map index isalnum isalpha isascii
    isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join
    lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit
    rstrip split splitlines startswith strip swapcase title upper
"""
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: _PADDED_METHODS | frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
}


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained to write; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - the signature that templates know
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - the signature that templates know
) -> str:
    """Write JSON as `transformers` does: characters as they are, nothing escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class _Rewriter(NodeTransformer):
    """Turns what works without a call into calls that count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("turn"), lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(_call("turn"), node.test)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concatenated", *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return _call("sliced", node.node, *(bound or nodes.Const(None) for bound in bounds))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _call("made", self.generic_visit(node))

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return _call("made", self.generic_visit(node))

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _call("made", node) if node.ctx == "load" else node


def _call(name: str, *arguments: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Namespace(Namespace):
    """A namespace that is not written out, since namespaces may hold each other."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Format:
    """A text's own method `format`, within a budget."""

    def __init__(self, form: str, method: Callable[..., str], environment: "Sandbox") -> None:
        self._form, self._method, self._environment = form, method, environment

    def __call__(self, *args: object, **kwargs: object) -> str:
        self._environment.budget.check_braces(self._form, [*args, *kwargs.values()])
        return self._method(*args, **kwargs)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment in which everything that a template does is counted.

    Args:
        functions: What templates may call besides Jinja's own.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, functions: Mapping[str, Callable[..., object]]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # what is computed while compiling would not be counted
            extensions=[LoopControlExtension, _Generation],
            finalize=self._finalize,
        )
        self._local = threading.local()
        del self.globals["lipsum"]
        self.globals |= {"namespace": _Namespace, **functions}
        self._callable = frozenset(map(id, self.globals.values()))
        for name in _LEFT_OUT:
            del self.filters[name]
        self.filters |= {
            "tojson": _to_json, "join": self._join, "sum": self._sum, "format": self._format
        }  # fmt: skip
        self.filters = {name: self._counted(name, do) for name, do in self.filters.items()}
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._counted("", do) for name, do in tests.items()}

    @property
    def budget(self) -> Budget:
        """Of the rendering that this thread is at."""
        budget: Budget = self._local.budget
        return budget

    @contextmanager
    def spending(self, budget: Budget) -> Iterator[None]:
        """Let this thread render within a budget."""
        self._local.budget = budget
        try:
            yield
        finally:
            del self._local.budget

    def rewrite(self, template: nodes.Template) -> nodes.Template:
        """Return a parsed template that counts what it does."""
        _Rewriter().visit(template)
        return template

    def turn(self) -> bool:
        """Count a turn of a loop."""
        return True  # each call is counted

    def made(self, container: object) -> object:
        """Count a list, tuple or dict."""
        return self.budget.took(container)

    def sliced(self, value: Any, *bounds: Any) -> object:  # noqa: ANN401
        """Return `value[start:stop:step]`."""
        return self.budget.took(value[slice(*bounds)])

    def concatenated(self, *values: object) -> str:
        """Return `value ~ value`."""
        texts = [value if isinstance(value, str) else self.budget.text(value) for value in values]
        self.budget.take(sum(map(len, texts)))
        return "".join(texts)

    def concat(self, parts: Iterable[str]) -> str:
        """Join what the body of a macro or a block wrote."""
        parts = list(parts)
        self.budget.take(sum(map(len, parts)))
        return "".join(parts)

    def call_binop(
        self,
        context: Context,
        operator: str,
        left: Any,  # noqa: ANN401
        right: Any,  # noqa: ANN401
    ) -> object:
        """Compute what may grow, if its result is not too large."""
        budget = self.budget
        budget.count()
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "%" and isinstance(left, str):
            budget.check_percent(left, right)
        elif operator == "**":
            if not numbers or max(abs(left), abs(right)) > _MOST_IN_POWER:
                raise SecurityError("too large a power")
        elif operator == "*" and not numbers:
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(one, str | list | tuple):
                    budget.afford(8 * len(one) * times)
        elif operator == "+" and isinstance(left, str | list | tuple):
            budget.afford(len(left) + (len(right) if isinstance(right, type(left)) else 0))
        return budget.took(super().call_binop(context, operator, left, right))

    def call(
        self,
        context: Context,
        function: Any,  # noqa: ANN401
        /,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> object:
        """Call what is known to be bounded."""
        budget = self.budget
        budget.count()
        owner = getattr(function, "__self__", None)
        if owner is self:
            return function(*args)
        if isinstance(function, BuiltinMethodType):
            self._check_method(owner, function.__name__, args, kwargs)
        elif not (
            isinstance(
                function, Macro | BlockReference | LoopContext | Joiner | Undefined | _Format
            )
            or (isinstance(function, MethodType) and isinstance(owner, Cycler | LoopContext))
            or id(function) in self._callable
        ):
            raise SecurityError("this is not callable here")
        result = super().call(context, function, *args, **kwargs)
        budget.check_time()
        return budget.took(result)

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """Return the safe form of a text's method `format`, if `value` is that."""
        method = super().wrap_str_format(value)
        return method and _Format(value.__self__, method, self)  # type: ignore[attr-defined]

    def _check_method(
        self, owner: object, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        kwargs = {key: value for key, value in kwargs.items() if not key.startswith("_")}
        if name not in _METHODS.get(type(owner), ()):
            raise SecurityError(f"{name} is not offered")
        if not isinstance(owner, str):
            return
        if name in _PADDED_METHODS:
            sizes = [size for size in (*args, *kwargs.values()) if isinstance(size, int)]
            self.budget.check_padding(*sizes)
            if name == "expandtabs":
                self.budget.afford(len(owner) + owner.count("\t") * max([8, *sizes]))
        elif name == "replace":
            self._check_replacement(owner, *args[:2])
        elif name == "join":
            self._check_joined(owner, args[0])

    def _check_replacement(self, text: str, old: object, new: object) -> None:
        self.budget.afford(len(text) + text.count(str(old)) * len(str(new)))

    def _check_joined(self, separator: str, values: object) -> None:
        if not isinstance(values, str | list | tuple | dict):
            raise SecurityError("only lists are joined")
        self.budget.afford(len(values) * len(separator) + sum(map(self.budget.written, values)))

    @pass_context
    def _finalize(self, context: Context, value: object) -> object:  # noqa: ARG002
        return value if isinstance(value, str) else self.budget.text(value)

    def _counted(self, name: str, do: Callable[..., object]) -> Callable[..., object]:
        """Return a filter or test that stays within the budget."""
        is_given_more = hasattr(do, "jinja_pass_arg")

        @wraps(do)
        def counted(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401
            budget = self.budget
            budget.count()
            self._check_filter(name, args[is_given_more:], kwargs)
            result = do(*args, **kwargs)
            budget.check_time()
            return result if any(result is arg for arg in args) else budget.took(result)

        return counted

    def _check_filter(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        budget = self.budget
        given = [*args[1:], *kwargs.values()]
        if name in {"center", "indent", "batch", "slice", "round", "tojson"}:
            budget.check_padding(*(value for value in given if isinstance(value, int)))
            budget.check_padding(*(len(value) for value in given if isinstance(value, str)))
        if name == "indent":
            widths = [len(value) if isinstance(value, str) else value for value in given]
            text = str(args[0])
            budget.afford(len(text) + (len(text.splitlines()) + 1) * max([4, *map(int, widths)]))
        elif name == "replace":
            self._check_replacement(str(args[0]), *given[:2])
        elif name in {"string", "tojson", "trim", "upper", "lower", "title", "escape", "e"}:
            budget.afford(budget.written(args[0]))

    def _join(self, values: Iterable[object], d: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        taken = list(values)
        self._check_joined(d, taken)
        return d.join(map(str, taken))

    def _sum(
        self,
        values: Iterable[Any],
        attribute: str | int | None = None,
        start: Any = 0,  # noqa: ANN401
    ) -> object:
        """Add numbers; lists are added with `+`."""
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        taken = [start, *values]
        if not all(isinstance(value, int | float) for value in taken):
            raise SecurityError("only numbers are summed")
        return sum(taken)

    def _format(self, form: str, /, *args: object, **kwargs: object) -> str:
        values = kwargs or args
        self.budget.check_percent(form, values)
        return form % values
