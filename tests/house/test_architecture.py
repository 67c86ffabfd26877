"""docs/architecture.md, the tree and the import rules tell the same story."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
SERVER = ROOT / "server" / "hocket" / "server"
CLIENT = ROOT / "client" / "hocket" / "client"


def _block(name: str) -> list[str]:
    """Return the lines of the fenced block with this information string."""
    found = re.search(rf"^```{name}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/architecture.md has no block {name}"
    return [line for line in found[1].splitlines() if line.strip()]


def _sources(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if path.name != "__init__.py"
    }


@pytest.mark.parametrize(("block", "root"), [("server", SERVER), ("client", CLIENT)])
def test_the_tree_names_every_file_and_no_other(block: str, root: Path) -> None:
    """Each line of the drawing is a file that exists, and each file has a line."""
    drawn = [line.split()[0] for line in _block(block)]
    assert sorted(_sources(root)) == sorted(drawn)


@pytest.mark.parametrize("block", ["server", "client"])
def test_each_file_of_the_tree_says_what_it_is_for(block: str) -> None:
    """A name alone explains nothing."""
    assert [line for line in _block(block) if len(line.split()) < 3] == []


def test_the_layers_drawn_are_the_layers_checked() -> None:
    """The drawing of the layers is the import linter's contract, row by row."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    checked = [
        {room.strip(" ()").removeprefix("hocket.server.") for room in row.split("|")}
        for row in layers
    ]
    drawn = [{room.strip() for room in row.split("|")} for row in _block("layers")]
    assert checked == drawn


def test_every_file_of_the_server_stands_in_a_layer() -> None:
    """No room stays outside the rules."""
    rooms = {room.strip() for row in _block("layers") for room in row.split("|")}
    top = {path.stem if path.suffix else path.name for path in SERVER.iterdir()}
    assert top - {"__init__", "__pycache__", "py"} == rooms


def _defines(path: Path, dotted: str) -> bool:
    """Whether a file defines this function, class or method."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for name in dotted.split("."):
        matches = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == name
        ]
        if not matches:
            return False
        body = matches[0].body
    return True


TRACE = re.findall(r"^\| \d+ \| [^|]+ \| `([\w/]+\.py)` `([\w.]+)` \|", DOCUMENT, re.MULTILINE)


def test_the_trace_follows_a_request_from_door_to_door() -> None:
    """The traced request takes at least a dozen steps, in through the porch and out again."""
    assert len(TRACE) >= 12
    assert {TRACE[0][0].split("/")[0], TRACE[-1][0].split("/")[0]} == {"rpc"}


@pytest.mark.parametrize(("file", "name"), TRACE, ids=[f"{file}:{name}" for file, name in TRACE])
def test_each_step_of_the_trace_is_in_the_code(file: str, name: str) -> None:
    """What the trace names exists where it says."""
    assert _defines(SERVER / file, name)
