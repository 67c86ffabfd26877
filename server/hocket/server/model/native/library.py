"""The kernels' C functions, and the structures that they read. Engine thread.

The structures mirror those of `source/forward.cpp` and `source/linear.h`; loading compares sizes.
"""

import ctypes
from ctypes import Structure, c_float, c_int32, c_void_p
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from hocket.server.errors import StartupError

_Fields = list[tuple[str, type]]


class LinearStruct(Structure):
    """A packed linear layer."""

    _fields_: ClassVar[_Fields] = [
        ("in_features", c_int32),
        ("out_features", c_int32),
        ("is_int8", c_int32),
        ("reserved", c_int32),
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
    ]


class LayerStruct(Structure):
    """A transformer block."""

    _fields_: ClassVar[_Fields] = [
        ("qkv", LinearStruct),
        ("output", LinearStruct),
        ("gate_up", LinearStruct),
        ("down", LinearStruct),
        ("before_attention", c_void_p),
        ("after_attention", c_void_p),
        ("before_mlp", c_void_p),
        ("after_mlp", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("rotation", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("window", c_int32),
        ("reserved", c_int32),
    ]


class ModelStruct(Structure):
    """A model."""

    _fields_: ClassVar[_Fields] = [
        ("layers", c_void_p),
        ("embedding", c_void_p),
        ("norm", c_void_p),
        ("head", LinearStruct),
        ("num_layers", c_int32),
        ("hidden", c_int32),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("intermediate", c_int32),
        ("block_size", c_int32),
        ("activation", c_int32),
        ("epsilon", c_float),
        ("scale", c_float),
        ("embedding_scale", c_float),
        ("num_threads", c_int32),
    ]


class SliceStruct(Structure):
    """Consecutive tokens of one sequence."""

    _fields_: ClassVar[_Fields] = [
        ("blocks", c_void_p),
        ("first_row", c_int32),
        ("count", c_int32),
        ("start", c_int32),
        ("reserved", c_int32),
    ]


class StepStruct(Structure):
    """One forward pass and the memory it works in."""

    _fields_: ClassVar[_Fields] = [
        ("tokens", c_void_p),
        ("slices", c_void_p),
        ("slice_of", c_void_p),
        ("x", c_void_p),
        ("wide", c_void_p),
        ("mixed", c_void_p),
        ("queries", c_void_p),
        ("values", c_void_p),
        ("scales", c_void_p),
        ("offsets", c_void_p),
        ("rows", c_int32),
    ]


_STRUCTURES = (LinearStruct, LayerStruct, ModelStruct, SliceStruct, StepStruct)


class OpenMPStruct(Structure):
    """Functions of GCC's OpenMP runtime."""

    _fields_: ClassVar[_Fields] = [
        ("parallel", c_void_p),
        ("thread_num", c_void_p),
        ("num_threads", c_void_p),
    ]


_OPENMP = "libgomp.so.1"  # torch has loaded it: its own, or the system's where that came first


class Library:
    """The compiled kernels. Each call lets go of the interpreter's lock."""

    def __init__(self, path: Path) -> None:
        """Load them.

        Args:
            path: As `build` returned it; its name tells the version.

        Raises:
            StartupError: They are broken, were compiled from other sources, or torch computes with
                another OpenMP runtime than GCC's.
        """
        self.version = path.stem.partition("-")[2]
        try:
            self._library = ctypes.CDLL(str(path))
            sizes = (c_int32 * len(_STRUCTURES))()
            self._library.hocket_sizes(sizes)
        except (OSError, AttributeError) as error:
            raise StartupError(
                f"the kernels in {path} cannot be loaded; delete the file"
            ) from error
        if list(sizes) != [ctypes.sizeof(structure) for structure in _STRUCTURES]:
            raise StartupError(f"the kernels in {path} are of another version; delete the file")
        self._library.hocket_use_openmp(_openmp())

    def forward(self, model: ModelStruct, step: StepStruct) -> None:
        """Compute a step's hidden states, and write its keys and values."""
        self._library.hocket_forward(ctypes.byref(model), ctypes.byref(step))

    def logits(
        self, model: ModelStruct, step: StepStruct, hidden: Tensor, rows: list[int], out: Tensor
    ) -> None:
        """Write `[rows, out_features]` float32 logits of some rows of hidden states.

        The memory of `step` must have room for as many rows.
        """
        self._library.hocket_logits(
            ctypes.byref(model),
            c_void_p(hidden.data_ptr()),
            (c_int32 * len(rows))(*rows),
            c_int32(len(rows)),
            c_void_p(step.values),
            c_void_p(step.scales),
            c_void_p(step.offsets),
            c_void_p(out.data_ptr()),
        )


def has_openmp() -> bool:
    """Whether torch has brought the runtime that the kernels take their threads from."""
    try:
        _openmp()
    except StartupError:
        return False
    return True


def _openmp() -> OpenMPStruct:
    """Return the functions of the runtime that torch computes with.

    Raises:
        StartupError: It is another than GCC's.
    """
    try:
        runtime = ctypes.CDLL(_OPENMP)
    except OSError as error:
        raise StartupError(f"the kernels need {_OPENMP}, which torch has not brought") from error
    parallel, thread_num, num_threads = (
        ctypes.cast(function, c_void_p)
        for function in (
            runtime.GOMP_parallel,
            runtime.omp_get_thread_num,
            runtime.omp_get_num_threads,
        )
    )
    return OpenMPStruct(parallel=parallel, thread_num=thread_num, num_threads=num_threads)
