"""A template computes within its budget, however it goes about it."""

import time
import tracemalloc

import pytest
from jinja2.exceptions import SecurityError, UndefinedError

from hocket.server.text.budget import Budget, TooMuch
from hocket.server.text.sandbox import Sandbox

CHARS = 1_000_000


def render(source: str, *, operations: int = 20_000, **given: object) -> str:
    sandbox = Sandbox({"shout": str.upper})
    template = sandbox.from_string(sandbox.rewrite(sandbox.parse(source)))
    budget = Budget(chars=CHARS, operations=operations, seconds=20.0, clock=time.thread_time)
    with sandbox.spending(budget):
        return "".join(template.generate(**given))


def doubling(expression: str, first: str = "'xxxxxxxx'") -> str:
    """Return a template that takes something twice, again and again."""
    return (
        f"{{% set ns = namespace(x={first}) %}}{{% for i in range(40) %}}"
        f"{{% set ns.x = {expression} %}}{{% endfor %}}"
    )


GROWING = [
    "{{ 'x' * 400000000 }}",
    "{{ 400000000 * [1] }}",
    "{{ ['x' * 1000] * 400000 }}",
    "{{ 'x'.ljust(400000000) }}",
    "{{ 'x'.rjust(width=400000000) }}",
    "{{ 'x'.zfill(400000000) }}",
    "{{ 'x'.center(400000000) }}",
    "{{ '\t'.expandtabs(400000000) }}",
    "{{ ('\t' * 50000).expandtabs(900) }}",
    "{{ 'x' | center(400000000) }}",
    "{{ 'x' | indent(400000000, first=true) }}",
    "{{ ('\n' * 20000) | indent(900, true, true) }}",
    "{{ ('\n' * 20000) | indent('x' * 20000, true, true) }}",
    "{{ '%400000000d' % 1 }}",
    "{{ '%-400000000d' % 1 }}",
    "{{ '%(a(b))400000000d' % {'a(b)': 1} }}",
    "{{ '%*d' % (400000000, 1) }}",
    "{{ '%.400000000f' % 1.5 }}",
    "{{ '%400000000d' | format(1) }}",
    "{{ '%(a)400000000d' | format(a=1) }}",
    "{{ ('%(a)s' * 10000) % {'a': 'x' * 10000} }}",
    "{{ '{:400000000}'.format(1) }}",
    "{{ '{:.400000000f}'.format(1.5) }}",
    "{{ '{:{}}'.format(1, 400000000) }}",
    "{{ ('{0}' * 10000).format('x' * 10000) }}",
    "{{ '{a:400000000}'.format_map({'a': 1}) }}",
    "{{ [1] | map('format', 1) | list if false else ('{:400000000}' | attr('format'))(1) }}",
    "{{ ('x' * 20000).replace('x', 'y' * 20000) }}",
    "{{ ('x' * 20000) | replace('', 'y' * 20000) }}",
    "{{ ('y' * 20000).join(['x'] * 20000) }}",
    "{{ range(20000) | join('y' * 20000) }}",
    "{{ 'x'.translate({120: 'y' * 100000}) }}",
    "{{ 'x'.encode().ljust(400000000) }}",
    "{{ (1).to_bytes(400000000, 'big') }}",
    "{{ [1] | batch(400000000, 'x') | list }}",
    "{{ [1] | slice(400000000) | list }}",
    "{{ 1 | round(400000000) }}",
    "{{ {'a': [1]} | tojson(indent=400000000) }}",
    "{{ {'a': [1]} | tojson(indent='x' * 100000) }}",
    "{{ [[1]] | sum(start=[]) }}",
    "{{ 10 ** 9999 }}",
    "{{ (-9) ** 100000 }}",
    "{{ 2 ** 99999.0 }}",
    "{{ ('f' * 100000) | int(base=16) }}",
    doubling("ns.x ~ ns.x"),
    doubling("ns.x + ns.x"),
    doubling("'%s%s' % (ns.x, ns.x)"),
    doubling("'%s%s' | format(ns.x, ns.x)"),
    doubling("'{0}{0}'.format(ns.x)"),
    doubling("''.join([ns.x, ns.x])"),
    doubling("[ns.x, ns.x] | join"),
    doubling("ns.x.replace('x', 'xx')"),
    doubling("ns.x + ns.x", first="[1]"),
    doubling("ns.x * ns.x", first="3"),
    doubling("[ns.x, ns.x]"),
    doubling("(ns.x, ns.x)"),
    doubling("{'a': ns.x, 'b': ns.x}"),
    doubling("dict(a=ns.x, b=ns.x)"),
    doubling("[ns.x, ns.x]") + "{{ ns.x }}",
    doubling("(ns.x, ns.x)") + "{{ ns.x | string }}",
    doubling("{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}",
    doubling("dict(a=ns.x, b=ns.x)") + "{{ ns.x ~ '' }}",
    doubling("[ns.x] * 2") + "{{ '%s' % ns.x }}",
    doubling("[1] | batch(3, ns.x) | list") + "{{ ns.x }}",
    (
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(40) %}"
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}"
    ),
    (
        "{% set ns = namespace(x='xxxxxxxx') %}{% macro m() %}{{ ns.x }}{{ ns.x }}{% endmacro %}"
        "{% for i in range(40) %}{% set ns.x = m() %}{% endfor %}"
    ),
    (
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}"
        "{% set ns.x = ns.x + [('x' * 9000)[1:]] %}{% endfor %}"
    ),
]
GROWING += [
    "{% set x = 'x' * 90000 %}" + "".join(f"{{% set x{i} = {part} %}}" for i in range(40))
    for part in ("x[1:]", "x.upper()", "x.lower().title()", "x | upper", "x ~ 1", "x + '1'")
]
ENDLESS = [
    "{% for i in range(3000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
    "{% for i in range(3000) %}{% for j in range(1000) if j < 0 %}{% endfor %}{% endfor %}",
    "{% for i in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    (
        "{% for i in range(9) recursive %}{% if loop.depth < 20 %}{{ loop(range(9)) }}{% endif %}"
        "{% endfor %}"
    ),
    "{% for i in range(3000) %}{{ range(1000) | select('odd') | list | length }}{% endfor %}",
    "{% for i in range(3000) %}{{ range(1000) | select('lt', 0) | first }}{% endfor %}",
    "{% for i in range(3000) %}{{ range(1000) | map('abs') | max }}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
]


@pytest.mark.parametrize("source", GROWING)
def test_nothing_grows_without_bound(source: str) -> None:
    """What would be too large is refused before it is made."""
    tracemalloc.start()
    try:
        with pytest.raises((SecurityError, ValueError)):
            render(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * CHARS


@pytest.mark.parametrize("source", ENDLESS)
def test_nothing_lasts_without_bound(source: str) -> None:
    """Turns of loops, calls, filters and tests are counted, with output and without."""
    with pytest.raises((TooMuch, RecursionError)):
        render(source)


def test_a_namespace_is_not_written_out() -> None:
    """Namespaces may hold each other, so that writing one might never end."""
    source = doubling("namespace(a=ns.x, b=ns.x)") + "{{ ns.x }} {{ [ns] }}"
    assert render(source) == "<namespace> [<namespace>]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none ~ 2.5 ~ [1] }}", "a1None2.5[1]"),
        ("{{ 'abcdef'[1:3] }}{{ [1, 2, 3][::-1] }}{{ (1, 2)[:1] }}", "bc[3, 2, 1](1,)"),
        ("{{ '%5.1f|%s|%%' % (1.25, 'x') }}{{ '%s' | format([1]) }}", "  1.2|x|%[1]"),
        ("{{ '{:>5}{{}}{a}'.format(1, a='b') }}", "    1{}b"),
        ("{{ 'ab'.center(4) }}{{ 'a\tb'.expandtabs(4) }}{{ '7'.zfill(3) }}", " ab a   b007"),
        ("{{ 'a\nb' | indent }}|{{ 'a\nb' | indent(2, true) }}", "a\n    b|  a\n  b"),
        ("{{ [1, 2, 3] | sum }}{{ [{'a': 1}] | sum('a') }}", "61"),
        ("{{ [{'a': 1}, {'a': 2}] | join('-', attribute='a') }}", "1-2"),
        ("{{ range(5) | batch(2, 0) | list }}", "[[0, 1], [2, 3], [4, 0]]"),
        ("{{ {'b': 'é', 'a': none} | tojson(indent=1, sort_keys=true) }}",
         '{\n "a": null,\n "b": "é"\n}'),
        ("{% for a, b in {'x': 1}.items() if b %}{{ a }}{{ loop.index }}{% endfor %}", "x1"),
        ("{% for i in range(4) %}{{ loop.cycle('a', 'b') }}{% endfor %}", "abab"),
        ("{% set j = joiner() %}{% set c = cycler(1, 2) %}{{ j() }}{{ j() }}{{ c.next() }}", ", 1"),
        ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m(1) %}y{% endcall %}",
         "<1y>"),
        ("{% block b %}b{% endblock %}{{ self.b() }}", "bb"),
        ("{{ [3, 1] | sort | first }}{{ ['a', 'B'] | map('upper') | join }}", "1AB"),
        ("{{ 1 + 2 * 3 ** 2 % 5 }}{{ [1] * 2 + [2] }}", "4[1, 1, 2]"),
        ("{{ missing ~ '' }}{{ missing is defined }}{{ shout('x') }}", "FalseX"),
        (("{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}{{ loop(x) }}"
         "{% else %}{{ x }}{% endif %}{% endfor %}"), "123"),
    ],
)  # fmt: skip
def test_what_templates_do_works(source: str, expected: str) -> None:
    """Within the budget, everything is as in plain Jinja."""
    assert expected == render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ shout.__globals__.x }}",
        "{{ missing() }}",
        "{{ messages[0].content() }}",
        "{{ [].append(1) }}",
        "{{ {}.update(a=1) }}",
        "{{ 'x'.encode() }}",
        "{{ range(200000) }}",
        "{{ 'x'.join(range(3)) }}",
        "{{ 'x'.nothing() }}",
    ],
)
def test_what_is_not_offered_is_refused(source: str) -> None:
    """Only what is known to be bounded can be called."""
    with pytest.raises((SecurityError, UndefinedError, OverflowError)):
        render(source, messages=[{"content": "x"}])


def test_filters_that_cannot_be_bounded_are_left_out() -> None:
    """Their time or their text grows faster than what they are given."""
    names = {"pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"}
    assert not names & Sandbox({}).filters.keys()


def test_a_long_conversation_costs_few_operations() -> None:
    """A turn of a usual template costs a few operations, and a few copies of its text."""
    source = "{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim + '\n' }}{% endfor %}"
    given = [{"role": "user", "content": "word " * 10}] * 1000
    assert len(render(source, operations=10_000, messages=given)) > 50_000
