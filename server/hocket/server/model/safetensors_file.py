"""A safe reader of safetensors files. Engine thread, at load.

The header is checked (size, types, shapes, offsets, overlaps) against the file's length before the
`safetensors` package maps it. Format: the safetensors README of version 0.4.
"""

import json
import struct
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from hocket.server.errors import StartupError

_MOST_HEADER = 25_000_000
_MOST_TENSORS = 65_536
_MOST_DIMENSIONS = 8
_SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_FLOATS = {"F32", "F16", "BF16"}
_PREFIX_BYTES = 8


class SafetensorsFile:
    """An open safetensors file, read one tensor at a time."""

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            StartupError: It cannot be read, or is not what it claims to be.
        """
        self._name = path.name
        try:
            self._types = _checked_header(path)
        except OSError as error:
            raise StartupError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            detail = (
                error.args[0] if type(error) is ValueError and error.args else "a broken header"
            )
            raise StartupError(f"{self._name} is not a sound safetensors file: {detail}") from None
        self._handle = safe_open(str(path), framework="pt")

    @property
    def names(self) -> frozenset[str]:
        """The names of its tensors."""
        return frozenset(self._types)

    def read(self, name: str) -> Tensor:
        """Return one tensor as float32 or bfloat16.

        Raises:
            StartupError: There is none of this name, or it holds no such numbers.
        """
        kind = self._types.get(name)
        if kind is None:
            raise StartupError(f"{self._name} lacks the tensor {name}")
        if kind not in _FLOATS:
            raise StartupError(f"{self._name} stores {name} as {kind}, which is not supported")
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor.float() if tensor.dtype is torch.float16 else tensor


def _checked_header(path: Path) -> dict[str, str]:
    """Return the type of each tensor; the text of a ValueError says what is wrong."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_PREFIX_BYTES)
        if len(prefix) < _PREFIX_BYTES:
            raise ValueError("it is too short")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MOST_HEADER, size - 8):
            raise ValueError("its header is longer than it may be")
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError:
        raise ValueError("its header is not JSON") from None
    header.pop("__metadata__", None)
    if len(header) > _MOST_TENSORS:
        raise ValueError("it declares too many tensors")
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in _SIZES:
            raise ValueError(f"{name} has an unknown type")
        numbers = [begin, end, *shape]
        if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{name} has a broken shape or offset")
        count = 1
        for dimension in shape:
            count *= dimension
        if end - begin != count * _SIZES[kind] or end > size - 8 - length:
            raise ValueError(f"{name} does not fit its offsets or the file")
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin < at:
            raise ValueError("tensors overlap")
        at = end
    return {name: entry["dtype"] for name, entry in header.items()}
