"""A `g++` of our own on an otherwise empty path, and a `ziglang` of our own."""

import sys
from pathlib import Path

import pytest

WRITES = """
while [ "$1" != -o ]; do shift; done
printf made > "$2"
"""
FAILS = """
echo "forward.cpp:1:1: error: no such thing" >&2
echo "    1 | such.thing" >&2
echo "compilation terminated." >&2
exit 1
"""


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    """Let `g++` be a shell script, in a new folder; None for no compiler at all."""
    path = folder / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setitem(sys.modules, "ziglang", None)  # not even if it is installed
    if script is not None:
        file = path / "g++"
        file.write_text(f"#!/bin/sh\n{script}")
        file.chmod(0o755)


def put_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `ziglang` be a package of our own, whose compiler writes down what it was called with.

    Returns:
        The file that it writes a line into for each call.
    """
    package, calls = folder / "site" / "ziglang", folder / "calls"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "zig").write_text("version 1")
    (package / "__main__.py").write_text(
        "import pathlib, sys\n"
        f"with pathlib.Path({str(calls)!r}).open('a') as file:\n"
        "    print(*sys.argv[1:], file=file)\n"
        "pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_text('made')\n"
    )
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return calls
