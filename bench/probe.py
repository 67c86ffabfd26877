"""What the machine can do at most: read memory, multiply in bfloat16 and in int8, all threads.

    python -m bench.probe

Where hocket's kernels can be compiled, a small program of the same compiler keeps the multipliers
busy out of registers and reads memory front to back; elsewhere torch multiplies large matrices and
sums a large tensor. The best of several short turns counts: a bound must not be too low.
"""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from hocket.server.startup import prepare_torch

prepare_torch()

import torch

from bench.command import deliver, origin, parser
from bench.roofline import Rates
from hocket.server.model.config import RunnerConfig
from hocket.server.model.device import compute_threads
from hocket.server.model.native.build import is_supported

_SOURCE = Path(__file__).with_name("probe.cpp")
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-march=x86-64-v4", "-mavx512bf16",
    "-mavx512vnni",
)  # fmt: skip
_READ_BYTES = 512 << 20
_SIDE = 2048
_TURNS = 40


def rates() -> Rates:
    """Measure what the machine can do now."""
    threads = compute_threads(RunnerConfig())
    compiler = shutil.which("g++")
    if compiler is not None and is_supported():
        return _by_kernels(compiler, threads)
    return _by_torch(threads)


def _by_kernels(compiler: str, threads: int) -> Rates:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "probe.so"
        subprocess.run([compiler, *_FLAGS, str(_SOURCE), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
    for name in ("probe_int8", "probe_bf16", "probe_read"):
        getattr(library, name).restype = ctypes.c_double
    memory = torch.ones(_READ_BYTES, dtype=torch.uint8)
    place, size = ctypes.c_void_p(memory.data_ptr()), ctypes.c_size_t(_READ_BYTES)
    return Rates(
        read=_best(lambda: float(library.probe_read(place, size, threads))),
        bf16=_best(lambda: float(library.probe_bf16(threads))),
        int8=_best(lambda: float(library.probe_int8(threads))),
        source="instructions",
    )


def _by_torch(threads: int) -> Rates:
    torch.set_num_threads(threads)
    memory = torch.ones(_READ_BYTES // 4)
    wide = torch.randn(_SIDE, _SIDE).to(torch.bfloat16)
    whole = torch.randint(-100, 100, (_SIDE, _SIDE), dtype=torch.int8)
    operations = 2.0 * _SIDE**3
    return Rates(
        read=_best(lambda: _READ_BYTES / _seconds(memory.sum)),
        bf16=_best(lambda: operations / _seconds(lambda: wide @ wide)),
        int8=_best(lambda: operations / _seconds(lambda: torch._int_mm(whole, whole))),  # noqa: SLF001 - the only int8 product
        source="torch",
    )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _best(rate: Callable[[], float]) -> float:
    return max(rate() for _ in range(_TURNS))


def main() -> None:
    """Run as a command."""
    arguments = parser(__doc__).parse_args()
    deliver({**origin("bench.probe", "torch"), "rates": asdict(rates())}, arguments)


if __name__ == "__main__":
    main()
