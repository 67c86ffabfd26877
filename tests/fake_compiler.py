"""A `g++` of our own on an otherwise empty path."""

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
    if script is not None:
        file = path / "g++"
        file.write_text(f"#!/bin/sh\n{script}")
        file.chmod(0o755)
