"""The wheel brings compiled kernels where there was a compiler, and is pure elsewhere."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder
from hatchling.plugin.utils import load_plugin_from_script

import fake_compiler

ROOT = Path(__file__).resolve().parents[2]
NATIVE = "hocket/server/model/native"
PREBUILT = f"{NATIVE}/prebuilt/"
PURE = {"force_include": {}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """As much of the project as the hook reads, on a machine whose kernels are ours."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    folder = tmp_path / "project"
    native = folder / "server" / NATIVE
    shutil.copytree(ROOT / "server" / NATIVE / "source", native / "source")
    shutil.copy(ROOT / "server" / NATIVE / "compiler.py", native)
    return folder


def _hook(project):
    script = ROOT / "hatch_build.py"
    hook = load_plugin_from_script(str(script), script.name, BuildHookInterface, "build_hook")
    return hook(str(project), {}, None, None, str(project / "dist"), "wheel")


def _run(hook, version="standard"):
    data = {"force_include": {}}
    hook.initialize(version, data)
    return data


def test_a_wheel_that_is_built_beside_a_compiler_brings_the_kernels(tmp_path, project, monkeypatch):
    """What was compiled lies in the wheel alone: the sources stay as they were."""
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    hook = _hook(project)
    data = _run(hook)
    ((made, place),) = data.pop("force_include").items()
    assert data == {"pure_python": False, "tag": "py3-none-linux_x86_64"}
    assert Path(made).read_text() == "made"
    assert place == PREBUILT + Path(made).name
    hook.finalize("standard", data, "the.whl")
    assert not Path(made).parent.exists()
    after = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_where_there_is_no_compiler_the_build_asks_for_one_as_a_package(
    tmp_path, project, monkeypatch
):
    fake_compiler.put(tmp_path, monkeypatch, None)
    assert [name.partition(">")[0] for name in _hook(project).dependencies()] == ["ziglang"]
    fake_compiler.put_package(tmp_path, monkeypatch)
    hook = _hook(project)
    data = _run(hook)
    hook.finalize("standard", data, "the.whl")
    assert data["tag"] == "py3-none-manylinux_2_17_x86_64"
    assert len(data["force_include"]) == 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_compiler_is_asked_for_only_where_it_is_of_use(tmp_path, project, monkeypatch, machine):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES if machine == "x86_64" else None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert _hook(project).dependencies() == []


def test_an_editable_install_compiles_nothing(tmp_path, project, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    assert _run(_hook(project), "editable") == PURE


@pytest.mark.parametrize("script", [None, fake_compiler.FAILS], ids=["none", "fails"])
def test_without_a_compiler_that_works_the_wheel_is_pure(tmp_path, project, monkeypatch, script):
    fake_compiler.put(tmp_path, monkeypatch, script)
    hook = _hook(project)
    assert _run(hook) == PURE
    hook.finalize("standard", {}, "the.whl")


@pytest.mark.parametrize(("system", "machine"), [("linux", "aarch64"), ("darwin", "x86_64")])
def test_on_other_machines_the_wheel_is_pure(tmp_path, project, monkeypatch, system, machine):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    assert _run(_hook(project)) == PURE


def test_the_hook_is_registered():
    """A hook that nobody calls would leave every wheel pure without a word."""
    hooks = WheelBuilder(str(ROOT)).get_build_hooks(str(ROOT / "dist"))
    assert [type(hook).__name__ for hook in hooks.values()] == ["KernelsHook"]


FINDS = """
import sys, pathlib
from hocket.server.model.native.build import build
from hocket.server.model.native.library import Library
path = build(None)
library = Library(path)
runtimes = {
    line.split()[-1]
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line
}
print(path, library.version, *runtimes, sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None, reason="nothing to compile with"
)
def test_kernels_travel_in_a_real_wheel(tmp_path):
    """Built here, they are found and loaded where it is unpacked, without a compiler.

    They compute with the OpenMP runtime that torch has loaded, and with no second one.
    """
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(
        [*command, "--quiet", "-w", tmp_path / "wheels"], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive:
        (kernels,) = [name for name in archive.namelist() if name.startswith(PREBUILT)]
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        lines = archive.read(metadata).decode().splitlines()
        archive.extractall(tmp_path / "unpacked")
    assert {"Root-Is-Purelib: false", "Tag: py3-none-linux_x86_64"} <= set(lines)

    from hocket.server.model.native.build import is_supported  # noqa: PLC0415 - needs torch

    if not is_supported():
        pytest.skip("the kernels are for another processor")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked"), "PATH": ""}  # noqa: TID251 - passed on
    done = subprocess.run(
        [sys.executable, "-c", FINDS],
        check=True, capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    path, version, runtime = done.stdout.splitlines()
    assert path == str(tmp_path / "unpacked" / kernels)
    assert kernels.endswith(f"kernels-{version}.so")
    assert "/torch/lib/" in runtime
