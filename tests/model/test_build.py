"""Which compiled kernels are taken: shipped, kept, compiled now."""

import shutil
from pathlib import Path

import pytest
import structlog
import torch

import fake_compiler
from hocket.server.model.native import build as building
from hocket.server.model.native import compiler, library
from hocket.server.model.native.build import build

pytestmark = pytest.mark.torch

LOADABLE = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Sources that a test may change."""
    folder = tmp_path / "source"
    shutil.copytree(compiler.SOURCES, folder)
    monkeypatch.setattr(compiler, "SOURCES", folder)
    return folder


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Return the folder of shipped kernels, on a machine whose processor runs them."""
    monkeypatch.setattr(building, "SHIPPED", tmp_path / "prebuilt")
    monkeypatch.setattr(building, "is_supported", lambda: True)
    return building.SHIPPED


def _ship(folder, name="0badcafe"):
    folder.mkdir(exist_ok=True)
    file = folder / f"kernels-{compiler.sources_digest()}-{name}.so"
    shutil.copy(LOADABLE, file)
    return file


def _keep(folder, name):
    folder.mkdir(exist_ok=True)
    file = folder / f"kernels-{compiler.sources_digest()}-{name}.so"
    file.write_text("kept")
    return file


def test_shipped_kernels_come_before_kept_ones_and_before_the_compiler(
    tmp_path, shipped, monkeypatch
):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.FAILS)
    file = _ship(shipped)
    _keep(tmp_path / "cache", "00000000")
    assert build(tmp_path / "cache") == file


def test_shipped_kernels_need_neither_compiler_nor_folder(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, None)
    file = _ship(shipped)
    assert build(tmp_path / "cache") == file
    assert build(None) == file
    assert not (tmp_path / "cache").exists()


def test_another_processor_takes_no_kernels_at_all(tmp_path, shipped, monkeypatch):
    _ship(shipped)
    _keep(tmp_path / "cache", "00000000")
    monkeypatch.setattr(building, "is_supported", lambda: False)
    assert build(tmp_path / "cache") is None


@pytest.mark.parametrize("change", ["a line", "a file", "a name", "a flag"])
def test_kernels_of_other_sources_or_flags_are_ignored(
    tmp_path, sources, shipped, monkeypatch, change
):
    """Wherever they lie."""
    fake_compiler.put(tmp_path, monkeypatch, None)
    stale = {_ship(shipped), _keep(tmp_path / "cache", "00000000")}
    assert build(tmp_path / "cache") in stale
    if change == "a line":
        (sources / "dot.h").write_text((sources / "dot.h").read_text() + "\n")
    elif change == "a file":
        (sources / "new.h").touch()
    elif change == "a name":
        (sources / "dot.h").rename(sources / "dots.h")
    else:
        monkeypatch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, "-g"))
    assert build(tmp_path / "cache") is None
    _ship(shipped)
    assert build(tmp_path / "cache") not in stale | {None}


def test_what_formats_the_sources_is_none_of_them(sources):
    before = compiler.sources_digest()
    (sources / ".clang-format").write_text("ColumnLimit: 80")
    assert compiler.sources_digest() == before


def test_shipped_kernels_that_do_not_load_are_passed_over(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    _ship(shipped).write_bytes(b"not a library")
    with structlog.testing.capture_logs() as lines:
        made = build(tmp_path / "cache")
    assert made is not None
    assert made.parent == tmp_path / "cache"
    assert [line["event"] for line in lines] == ["the shipped kernels cannot be loaded"]


def test_kept_kernels_need_no_compiler(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, None)
    kept = _keep(tmp_path / "cache", "00000000")
    assert build(tmp_path / "cache") == kept


def test_nothing_shipped_nothing_kept_and_no_compiler_is_none(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, None)
    assert build(tmp_path / "cache") is None
    assert build(None) is None


def test_this_machines_compiler_compiles_once(tmp_path, shipped, monkeypatch):
    """What another compiler made is not taken, and what this one made is not made again."""
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    foreign = _keep(tmp_path / "cache", "00000000")
    stages = []
    made = [build(tmp_path / "cache", lambda stage, _done: stages.append(stage)) for _ in "ab"]
    assert stages == ["compiling the kernels"]
    assert made[0] == made[1] != foreign
    assert made[0].read_text() == "made"
    assert set((tmp_path / "cache").iterdir()) == {foreign, made[0]}


def test_without_one_the_compiler_of_a_package_serves(tmp_path, shipped, monkeypatch):
    """It links as C does: what is made asks for no C++ library."""
    fake_compiler.put(tmp_path, monkeypatch, None)
    calls = fake_compiler.put_package(tmp_path, monkeypatch)
    made = build(tmp_path / "cache")
    assert made is not None
    assert made.read_text() == "made"
    compile_, link = calls.read_text().splitlines()
    assert compile_.startswith("c++ -target x86_64-linux-gnu.2.17 ")
    assert link.startswith("cc -target x86_64-linux-gnu.2.17 -shared ")
    assert build(tmp_path / "cache") == made
    (tmp_path / "site" / "ziglang" / "zig").write_text("another version")
    assert build(tmp_path / "cache") != made


def test_this_machines_compiler_comes_before_that_of_a_package(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.WRITES)
    calls = fake_compiler.put_package(tmp_path, monkeypatch)
    assert build(tmp_path / "cache") is not None
    assert not calls.exists()


def test_without_the_openmp_that_torch_computes_with_there_are_no_kernels(
    tmp_path, shipped, monkeypatch
):
    _ship(shipped)
    monkeypatch.setattr(library, "_OPENMP", "libnowhere.so.1")
    with structlog.testing.capture_logs() as lines:
        assert build(tmp_path / "cache") is None
    assert "OpenMP" in lines[0]["reason"]
    assert not (tmp_path / "cache").exists()


def test_the_log_has_the_last_error_that_the_compiler_spoke_of(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, fake_compiler.FAILS)
    with structlog.testing.capture_logs() as lines:
        assert build(tmp_path / "cache") is None
    (line,) = lines
    assert line["event"] == "no kernels"
    assert line["reason"] == "the compiler failed: forward.cpp:1:1: error: no such thing"
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_failures_are_one_line_too(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, "exit 1")
    with structlog.testing.capture_logs() as lines:
        assert build(tmp_path / "cache") is None
        (tmp_path / "bin" / "g++").write_text("#!/bin/sh\necho killed >&2\nexit 1\n")
        assert build(tmp_path / "cache") is None
        (tmp_path / "bin" / "g++").write_text("#!/nowhere/sh\n")
        assert build(tmp_path / "cache") is None
        (tmp_path / "file").touch()
        assert build(tmp_path / "file" / "cache") is None
    assert [line["reason"] for line in lines] == [
        "the compiler failed: it said nothing",
        "the compiler failed: killed",
        "FileNotFoundError: No such file or directory",
        "NotADirectoryError: Not a directory",
    ]


def test_a_compiler_that_hangs_is_ended(tmp_path, shipped, monkeypatch):
    fake_compiler.put(tmp_path, monkeypatch, "exec /bin/sleep 60")
    monkeypatch.setattr(compiler, "_COMPILE_SECONDS", 0.1)
    with structlog.testing.capture_logs() as lines:
        assert build(tmp_path / "cache") is None
    assert "took more than" in lines[0]["reason"]
