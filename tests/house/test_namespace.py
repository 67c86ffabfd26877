"""Three roots share one namespace, and stay able to."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("root", ["proto", "server", "client"])
def test_the_shared_folders_have_no_init(root: str) -> None:
    """One stray `__init__.py` would hide the other two roots."""
    strays = [folder / "__init__.py" for folder in (ROOT / root, ROOT / root / "hocket")]
    assert [path for path in strays if path.exists()] == []


@pytest.mark.parametrize(
    "package", ["proto/hocket/v1", "server/hocket/server", "client/hocket/client"]
)
def test_each_package_says_that_it_is_typed(package: str) -> None:
    """Type checkers read `py.typed` in each package of a namespace."""
    assert (ROOT / package / "py.typed").exists()


def test_the_editable_install_finds_all_three() -> None:
    """A wrong build setting leaves two roots off the path without a word."""
    code = "import hocket.v1.generation_pb2, hocket.server.errors, hocket.client"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_the_client_brings_neither_torch_nor_the_server() -> None:
    """Light clients stay light."""
    code = (
        "import sys, hocket.client;"
        "bad = [m for m in sys.modules if m == 'torch' or m.startswith('hocket.server')];"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_the_base_install_is_small() -> None:
    """Only gRPC, protobuf and Google's common messages come with the client."""
    requirements = importlib.metadata.requires("hocket") or []
    base = {name.split(">")[0].split("<")[0] for name in requirements if "extra ==" not in name}
    assert {"grpcio", "protobuf", "googleapis-common-protos"} == base


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    """What is shipped is every source file below the three roots, stubs included.

    `test_wheel.py` sees to the kernels that are compiled for it.
    """
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True, cwd=ROOT, capture_output=True,
        env={**os.environ, "HATCH_BUILD_NO_HOOKS": "true"},  # noqa: TID251 - passed on
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*-py3-none-any.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("proto", "server", "client")
        for path in (ROOT / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected == shipped
