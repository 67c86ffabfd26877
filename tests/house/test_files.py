"""Files stay readable."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
SOURCES = sorted(
    path
    for root in ("server", "client", "tests", "bench", "tools")
    for path in (ROOT / root).rglob("*.py")
)
SHIPPED = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in {"server", "client"}]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_file_grows_past_its_room(path: Path) -> None:
    """A file of more than 400 lines hides a room that the design is missing."""
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """A module opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("word", ["utils", "manager", "helpers", "common", "misc"])
def test_no_file_has_a_name_that_says_nothing(word: str) -> None:
    """A noun of the field names every file."""
    assert [_name(path) for path in SHIPPED if word in path.stem] == []


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_assertions_are_for_our_own_impossibilities(path: Path) -> None:
    """`assert` never checks input: each one says that its failure is a bug."""
    silent = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) and "This is a bug." not in ast.unparse(node.msg or node)
    ]
    assert silent == []
