"""Compiles the kernels: out of which sources, with which flags, under which name.

Needs the standard library alone. `hatch_build.py` loads this file by its path while a wheel is
built, where neither torch nor hocket is installed.
"""

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).with_name("source")
_MAIN = "forward.cpp"
_FLAGS = (
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",  # two versions loaded into one process share nothing
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=off",  # or rounding would depend on what stands around a product
    # x86-64-v4, spelled out since compilers do not agree on its name, and two extensions.
    *("-mavx512f", "-mavx512cd", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"),
    *("-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe", "-mpopcnt"),
    *("-mavx512bf16", "-mavx512vnni"),
)
_COMPILE_SECONDS = 300.0
_MOST_REASON = 300  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        compile: Starts it on C++.
        link: Starts it on what it made of that.
        file: What changes when it is another version.
        platform: Tag of the platforms that what it makes runs on.
    """

    compile: tuple[str, ...]
    link: tuple[str, ...]
    file: Path
    platform: str


class CompileError(Exception):
    """The compiler failed. The message is one line."""


def find() -> Compiler | None:
    """Return this machine's compiler, or else the one of the `ziglang` package, or None."""
    path = shutil.which("g++")
    if path is not None:
        # Not manylinux: it links against this machine's C library, however new that is.
        return Compiler(compile=(path,), link=(path,), file=Path(path), platform="linux_x86_64")
    package = importlib.util.find_spec("ziglang")
    if package is not None and package.origin is not None:
        zig, target = (sys.executable, "-m", "ziglang"), ("-target", "x86_64-linux-gnu.2.17")
        return Compiler(
            compile=(*zig, "c++", *target),
            link=(*zig, "cc", *target),  # as C: nothing of a C++ library is needed
            file=Path(package.origin).with_name("zig"),
            platform="manylinux_2_17_x86_64",
        )
    return None


def is_target() -> bool:
    """Whether what is compiled here is for a machine that the kernels are written for."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


def sources_digest() -> str:
    """Return what changes with the sources and the flags."""
    digest = hashlib.sha256("\0".join(_FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in {".cpp", ".h"}:
            text = source.read_bytes()
            digest.update(f"\0{source.name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()[:16]


def name_of(compiler: Compiler) -> str:
    """Return the file name of what a compiler makes; it tells the sources and the compiler."""
    status = compiler.file.resolve().stat()
    maker = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    return f"kernels-{sources_digest()}-{maker}.so"


def made_from_these_sources(folder: Path) -> list[Path]:
    """Return the files of a folder that any compiler made from these sources, in order of name."""
    return sorted(folder.glob(f"kernels-{sources_digest()}-*.so"))


def compile_kernels(compiler: Compiler, folder: Path) -> Path:
    """Compile the kernels into a folder, which is made if it is absent, and return the file.

    The file appears whole or not at all.

    Raises:
        CompileError: The compiler failed, took too long, or the folder cannot be written.
    """
    with _told():
        target = folder / name_of(compiler)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / target.name
            made = str(draft.with_suffix(".o"))
            _run([*compiler.compile, *_FLAGS, "-c", str(SOURCES / _MAIN), "-o", made], scratch)
            _run([*compiler.link, "-shared", "-s", made, "-o", str(draft)], scratch)
            draft.replace(target)
    return target


def _run(command: list[str], scratch: str) -> None:
    """Run a compiler, which may keep what it likes in a folder."""
    subprocess.run(  # noqa: S603 - our own sources
        command,
        check=True,
        capture_output=True,
        timeout=_COMPILE_SECONDS,
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch},  # noqa: TID251 - passed on
    )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what goes wrong into one line.

    Raises:
        CompileError: Something went wrong.
    """
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise CompileError(f"the compiler failed: {_last_line(error.stderr)}") from error
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"the compiler took more than {error.timeout:.0f} s") from error
    except OSError as error:
        raise CompileError(f"{type(error).__name__}: {error.strerror}") from error


def _last_line(said: bytes) -> str:
    """Return the last line that speaks of an error, or else the last, of what a compiler said."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or ["it said nothing"])[-1][:_MOST_REASON]
