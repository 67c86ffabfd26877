"""A safe reader of safetensors files. Engine thread, at load.

The header is checked (size, types, shapes, offsets, overlaps) against the file's length before the
`safetensors` package maps it. Format: the safetensors README of version 0.4.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
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
_SHOWN = 64  # characters of a name that an error repeats


class _Broken(Exception):
    """What is wrong with the file, in a few words."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the header says of one tensor, checked."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """An open safetensors file, read one tensor at a time."""

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            StartupError: It cannot be read, or is not what it claims to be.
        """
        self._name = path.name
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait for ever
                raise StartupError(f"{path} is not a file")
            self._entries = _checked_header(path)
            self._handle = safe_open(str(path), framework="pt")
        except OSError as error:
            raise StartupError(f"{path} cannot be read: {error.strerror or error}") from error
        except _Broken as error:
            raise StartupError(f"{self._name} is not a sound safetensors file: {error}") from None
        except SafetensorError as error:
            # It is stricter still: about gaps between tensors, bytes after the last one, metadata.
            raise StartupError(f"{self._name} is not a sound safetensors file") from error

    @property
    def names(self) -> frozenset[str]:
        """The names of its tensors."""
        return frozenset(self._entries)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor; None if there is none of this name."""
        entry = self._entries.get(name)
        return None if entry is None else entry.shape

    def read(self, name: str) -> Tensor:
        """Return one tensor as float32 or bfloat16.

        Raises:
            StartupError: There is none of this name, or it holds no such numbers.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise StartupError(f"{self._name} lacks the tensor {name}")
        if entry.kind not in _FLOATS:
            raise StartupError(
                f"{self._name} stores {name} as {entry.kind}, which is not supported"
            )
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor.float() if tensor.dtype is torch.float16 else tensor


def _checked_header(path: Path) -> Mapping[str, _Entry]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_PREFIX_BYTES)
        if len(prefix) < _PREFIX_BYTES:
            raise _Broken("it is too short")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MOST_HEADER:
            raise _Broken(f"its header has {length} bytes, more than {_MOST_HEADER}")
        if length > size - _PREFIX_BYTES:
            raise _Broken("it ends inside its header")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise _Broken("its header is not JSON") from None
    if not isinstance(header, dict):
        raise _Broken("its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > _MOST_TENSORS:
        raise _Broken(f"it declares {len(header)} tensors, more than {_MOST_TENSORS}")
    room = size - _PREFIX_BYTES - length
    entries = {name: _entry(name, value, room) for name, value in header.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < at:
            raise _Broken(f"the tensor {_shown(name)} overlaps another one")
        at = entry.end
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _Broken("a name stands twice in its header")
    return values


def _entry(name: str, value: object, room: int) -> _Entry:
    shown = _shown(name)
    if not isinstance(value, dict):
        raise _Broken(f"it does not describe the tensor {shown}")
    kind, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in _SIZES:
        raise _Broken(f"the tensor {shown} has an unknown type")
    if not _are_counts(shape) or len(shape) > _MOST_DIMENSIONS:
        raise _Broken(f"the tensor {shown} has no shape")
    if not _are_counts(offsets) or len(offsets) != 2:  # noqa: PLR2004 - begin and end
        raise _Broken(f"the tensor {shown} has no offsets")
    begin, end = offsets
    if end > room:
        raise _Broken(f"it ends inside the tensor {shown}")
    count = 1
    for dimension in shape:
        count *= dimension
    if end - begin != count * _SIZES[kind]:
        raise _Broken(f"the tensor {shown} has other bytes than its shape asks for")
    return _Entry(kind, tuple(shape), begin, end)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(number) is int and number >= 0 for number in values
    )


def _shown(name: str) -> str:
    """Return a name from the file as it may stand in an error: short, and on one line."""
    return repr(name[:_SHOWN])
