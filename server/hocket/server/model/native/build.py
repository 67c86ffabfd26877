"""Compiles the kernels once and keeps them beside the weights. Engine thread, at load."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import structlog
import torch

from hocket.server.model.registry import Report

_log = structlog.get_logger(__name__)

SOURCES = Path(__file__).with_name("source")
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


def is_supported() -> bool:
    """Whether the kernels run on this processor: x86-64 with AVX-512, its BF16 and its VNNI."""
    cpu = torch.cpu
    return bool(
        cpu._is_avx512_supported()  # noqa: SLF001 - torch has no public way to ask
        and cpu._is_avx512_bf16_supported()  # noqa: SLF001 - the same
        and cpu._is_vnni_supported()  # noqa: SLF001 - the same
    )


def build(folder: Path, report: Report = lambda _stage, _done: None) -> Path | None:
    """Return the compiled kernels, compiling them first where they are absent from a folder.

    Returns:
        None where they cannot be had: the processor is another, there is no compiler, or it fails.
        The log says which.
    """
    if not is_supported():
        return None
    compiler = shutil.which("g++")
    if compiler is None:
        _log.info("no kernels", reason="there is no g++; computing with torch alone")
        return None
    target = folder / f"kernels-{_fingerprint(compiler)}.so"
    if target.is_file():
        return target
    report("compiling the kernels", None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / target.name
            main = SOURCES / "forward.cpp"
            subprocess.run(  # noqa: S603 - our own sources
                [compiler, *_FLAGS, str(main), "-o", str(draft)],
                check=True,
                capture_output=True,
                timeout=_COMPILE_SECONDS,
            )
            draft.replace(target)
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("no kernels", reason=f"they cannot be compiled: {type(error).__name__}")
        return None
    return target


def _fingerprint(compiler: str) -> str:
    """Return what changes with the sources, the flags and the compiler."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    status = Path(compiler).resolve().stat()
    digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
