"""Finds the compiled kernels: shipped in the wheel, kept from an earlier start, or compiled now.

The first of these is taken:

1. shipped: in `prebuilt/`, where building a wheel put it, if it can be loaded here;
2. kept: in the folder beside the weights, made by this machine's compiler; by any where there is
   none;
3. compiled now by this machine's compiler, into that folder.

All three count only if they were made from exactly the sources and the flags of this install, which
their names tell. Engine thread, at load.
"""

import ctypes
from pathlib import Path

import structlog
import torch

from hocket.server.model.native import compiler
from hocket.server.model.native.compiler import CompileError
from hocket.server.model.native.library import has_openmp
from hocket.server.model.registry import Report

_log = structlog.get_logger(__name__)

SHIPPED = Path(__file__).with_name("prebuilt")


def is_supported() -> bool:
    """Whether the kernels run on this processor: x86-64 with AVX-512, its BF16 and its VNNI."""
    cpu = torch.cpu
    return bool(
        cpu._is_avx512_supported()  # noqa: SLF001 - torch has no public way to ask
        and cpu._is_avx512_bf16_supported()  # noqa: SLF001 - the same
        and cpu._is_vnni_supported()  # noqa: SLF001 - the same
    )


def build(folder: Path | None, report: Report = lambda _stage, _done: None) -> Path | None:
    """Return the compiled kernels, compiling them first where nobody has yet.

    Args:
        folder: Where compiled kernels are kept; None where nothing can be kept, so that only
            shipped ones are found.
        report: Told before anything is compiled.

    Returns:
        None where they cannot be had: the processor is another, there is no compiler, or it fails.
        The log says which.
    """
    if not is_supported():
        _log.info("no kernels", reason="they are for another processor")
        return None
    if not has_openmp():
        _log.info("no kernels", reason="torch computes with another OpenMP runtime than GCC's")
        return None
    for shipped in compiler.made_from_these_sources(SHIPPED):
        if _can_be_loaded(shipped):
            return shipped
    if folder is None:
        _log.info("no kernels", reason="none were shipped, and none can be kept")
        return None
    command = compiler.find()
    kept = compiler.made_from_these_sources(folder)
    if command is None:
        if kept:
            return kept[0]
        _log.info("no kernels", reason="none were shipped, and there is neither g++ nor ziglang")
        return None
    own = folder / compiler.name_of(command)
    if own in kept:
        return own
    report("compiling the kernels", None)
    try:
        return compiler.compile_kernels(command, folder)
    except CompileError as error:
        _log.warning("no kernels", reason=str(error))
        return None


def _can_be_loaded(library: Path) -> bool:
    """Whether a library made on another machine loads on this one."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        _log.warning("the shipped kernels cannot be loaded", reason=str(error))
        return False
    return True
