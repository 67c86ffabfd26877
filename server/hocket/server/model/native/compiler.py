"""Compiles the kernels: out of which sources, with which flags, under which name.

Needs the standard library alone. `hatch_build.py` loads this file by its path while a wheel is
built, where neither torch nor hocket is installed.
"""

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).with_name("source")
_MAIN = "forward.cpp"
_FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-ffp-contract=off",  # or rounding would depend on what stands around a product
    "-fopenmp",  # GCC's runtime, the one that torch brings: both use the same threads
    "-march=x86-64-v4",
    "-mavx512bf16",
    "-mavx512vnni",
)
_COMPILE_SECONDS = 300.0
_MOST_REASON = 300  # characters


class CompileError(Exception):
    """The compiler failed. The message is one line."""


def find() -> str | None:
    """Return the path of this machine's compiler, or None."""
    return shutil.which("g++")


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


def name_of(compiler: str) -> str:
    """Return the file name of what a compiler makes; it tells the sources and the compiler."""
    status = Path(compiler).resolve().stat()
    maker = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    return f"kernels-{sources_digest()}-{maker}.so"


def made_from_these_sources(folder: Path) -> list[Path]:
    """Return the files of a folder that any compiler made from these sources, in order of name."""
    return sorted(folder.glob(f"kernels-{sources_digest()}-*.so"))


def compile_kernels(compiler: str, folder: Path) -> Path:
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
            subprocess.run(  # noqa: S603 - our own sources
                [compiler, *_FLAGS, str(SOURCES / _MAIN), "-o", str(draft)],
                check=True,
                capture_output=True,
                timeout=_COMPILE_SECONDS,
            )
            draft.replace(target)
    return target


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
