"""Where a model is computed, and how torch is told to use that device. Engine thread, at load."""

import ctypes

import torch

from hocket.server.errors import StartupError
from hocket.server.model.config import RunnerConfig
from hocket.server.model.shares import physical_cores

# glibc's mallopt parameters. Large temporaries otherwise go back to the kernel after each step and
# are faulted in again in the next one, which costs more than the arithmetic on them.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory; False where it cannot be asked."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 32 << 20),
        (_M_TRIM_THRESHOLD, 1 << 30),
        (_M_TOP_PAD, 64 << 20),
        (_M_ARENA_MAX, 1),
    )
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def compute_threads(config: RunnerConfig) -> int:
    """Return how many threads compute."""
    return config.num_threads or physical_cores()


def choose_device(config: RunnerConfig) -> torch.device:
    """Return where a model is computed.

    Raises:
        StartupError: A device was asked for that is not there.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise StartupError(
            "runner.device is cuda, but torch finds no CUDA device: "
            + ("the driver shows none" if torch.version.cuda else "this build of torch has no CUDA")
        )
    if config.device == "cuda" and config.kernels == "native":
        raise StartupError("runner.device is cuda, but runner.kernels is native, which needs cpu")
    if config.device == "cuda" or (
        config.device == "auto" and has_cuda and config.kernels != "native"
    ):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the number type for weights and cache.

    bfloat16 where the device multiplies it natively. Elsewhere it is emulated, and a processor is
    faster in float32, a CUDA device in float16.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - torch has no public way to ask
    return torch.bfloat16 if has_bfloat16 else torch.float32
