"""The wire contract, the taxonomy and the documents agree."""

import subprocess
import sys
from pathlib import Path

import pytest

from hocket.server import errors
from hocket.v1 import error_pb2

ROOT = Path(__file__).resolve().parents[2]


def _classes() -> list[type[errors.HocketError]]:
    found, queue = [], [errors.HocketError]
    while queue:
        subclasses = queue.pop().__subclasses__()
        queue += subclasses
        found += subclasses
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_every_reason_is_on_the_wire() -> None:
    """The taxonomy's reasons are the wire enum, no more and no less."""
    wire = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 - not a dict
    assert {reason.value for reason in errors.Reason} == wire - {"UNSPECIFIED"}


def test_every_reason_has_a_class_that_raises_it() -> None:
    """No reason is a promise that nothing keeps."""
    special = {
        errors.Reason.PROMPT_EMPTY,
        errors.Reason.PROMPT_TOO_LONG,
    }  # InvalidRequest, by argument
    assert set(errors.Reason) == {cls.reason for cls in _classes()} | special


@pytest.mark.parametrize("reason", sorted(errors.Reason))
def test_every_reason_is_raised_somewhere(reason: errors.Reason) -> None:
    """Each class, or each special reason, is used outside the taxonomy."""
    names = {cls.__name__ for cls in _classes() if cls.reason is reason} - {"InvalidRequest"}
    names |= {f"Reason.{reason.name}"}
    sources = [p.read_text() for p in (ROOT / "server").rglob("*.py") if p.name != "errors.py"]
    uses = ["InvalidRequest"] if reason is errors.Reason.FIELD_INVALID else names
    assert any(name in source for name in uses for source in sources)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing names every class with its code."""
    drawing = errors.__doc__ or ""
    for cls in _classes():
        assert any(cls.__name__ in line and cls.code in line for line in drawing.splitlines()), cls


@pytest.mark.parametrize("command", [["tools/docs_tables.py", "--check"]], ids=["docs tables"])
def test_generated_files_are_fresh(command: list[str]) -> None:
    """What is generated is what is checked in."""
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
