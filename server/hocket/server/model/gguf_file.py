"""A safe reader of GGUF files. Engine thread, at load.

Nothing in the file is believed: counts, lengths and offsets are checked against caps and against
the file's length before anything is allocated or mapped. Format: GGUF specification, versions 2
and 3, little-endian. Blocks of quantised weights are turned into float32 by the `gguf` package.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np

from hocket.server.errors import StartupError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_PAIRS = 4_096
_MOST_TENSORS = 65_536
_MOST_STRING = 1 << 20
_MOST_NAME = 1024  # bytes of a key or of a tensor's name
_MOST_ELEMENTS = 4 << 20  # of all arrays together
_MOST_DIMENSIONS = 4
_MOST_ALIGNMENT = 1 << 16
_SHOWN = 64  # characters of a name that an error repeats
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


class _Broken(Exception):
    """What is wrong with the file, in a few words."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file.

    Attributes:
        shape: Rows first, as in torch.
        quantization: How its numbers are stored.
        start: Where it begins in the file, in bytes.
        end: Where it ends.
    """

    shape: tuple[int, ...]
    quantization: gguf.GGMLQuantizationType
    start: int
    end: int


class _Cursor:
    """Reads values one after the other and never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._elements_left = _MOST_ELEMENTS
        self.at = 0

    def take(self, count: int, what: str) -> bytes:
        if count > self._size - self.at:
            raise _Broken(f"it ends inside {what}")
        begin, self.at = self.at, self.at + count
        return self._data[begin : self.at]

    def number(self, form: str, what: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        return int(value)

    def count(self, form: str, most: int, what: str) -> int:
        value = self.number(form, what)
        if value > most:
            raise _Broken(f"it declares {value} {what}, more than {most}")
        return value

    def string(self, what: str, most: int = _MOST_STRING) -> str:
        length = self.count("<Q", most, f"bytes in {what}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise _Broken(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> object:
        if kind != _ARRAY:
            return self._single(kind, what)
        element = self.number("<I", what)
        length = self.count("<Q", self._elements_left, f"elements in {what}")
        self._elements_left -= length
        if element in _SCALARS:
            form = _SCALARS[element]
            raw = self.take(length * struct.calcsize(form), what)
            return list(struct.unpack(f"<{length}{form[1]}", raw))
        if element != _STRING:  # arrays of arrays too are refused
            raise _Broken(f"{what} has elements of the unknown type {element}")
        return [self.string(what) for _ in range(length)]

    def _single(self, kind: int, what: str) -> object:
        if kind == _STRING:
            return self.string(what)
        if kind not in _SCALARS:
            raise _Broken(f"{what} has the unknown type {kind}")
        form = _SCALARS[kind]
        (value,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        return value


class GgufFile:
    """An open GGUF file: metadata, and tensors that are read one at a time."""

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            StartupError: It cannot be read, or is not what it claims to be.
        """
        self._name = path.name
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait for ever
                raise StartupError(f"{path} is not a file")
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise StartupError(f"{path} cannot be read: {reason}") from error
        try:
            self.metadata, self.tensors = _parse(self._data)
        except _Broken as error:
            self._data.close()
            raise StartupError(f"{self._name} is not a sound GGUF file: {error}") from None

    def read(self, name: str) -> np.ndarray:
        """Return one tensor as float32.

        Raises:
            StartupError: There is none of this name, or its numbers cannot be decoded.
        """
        info = self.tensors.get(name)
        if info is None:
            raise StartupError(f"{self._name} lacks the tensor {name}")
        raw = np.frombuffer(self._data[info.start : info.end], dtype=np.uint8)
        try:
            with np.errstate(all="ignore"):  # what overflows is seen in what the model writes
                numbers = _numbers(raw, info)
        except (NotImplementedError, ValueError):
            raise StartupError(
                f"{self._name} stores {name} as {info.quantization.name}, which is not supported"
            ) from None
        return numbers.reshape(info.shape)


def _numbers(raw: np.ndarray, info: TensorInfo) -> np.ndarray:
    kinds = gguf.GGMLQuantizationType
    if info.quantization == kinds.F32:
        return raw.view(np.float32).copy()
    if info.quantization == kinds.F16:
        return raw.view(np.float16).astype(np.float32)
    rows = raw.reshape(int(np.prod(info.shape[:-1], dtype=np.int64)), -1)
    return np.asarray(gguf.quants.dequantize(rows, info.quantization), dtype=np.float32)


def _parse(data: mmap.mmap) -> tuple[Mapping[str, object], Mapping[str, TensorInfo]]:
    cursor = _Cursor(data)
    if cursor.take(4, "its magic number") != _MAGIC:
        raise _Broken("it does not begin with GGUF")
    version = cursor.number("<I", "its version")
    if version not in _VERSIONS:
        raise _Broken(f"its version is {version}, not 2 or 3 in little-endian order")
    num_tensors = cursor.count("<Q", _MOST_TENSORS, "tensors")
    num_pairs = cursor.count("<Q", _MOST_PAIRS, "metadata pairs")
    metadata: dict[str, object] = {}
    for _ in range(num_pairs):
        key = cursor.string("a metadata key", _MOST_NAME)
        shown = _shown(key)
        if key in metadata:
            raise _Broken(f"the metadata key {shown} stands twice")
        kind = cursor.number("<I", f"the type of {shown}")
        metadata[key] = cursor.value(kind, f"the value of {shown}")
    alignment = metadata.get("general.alignment", 32)
    if (
        not (type(alignment) is int and 0 < alignment <= _MOST_ALIGNMENT)
        or alignment.bit_count() != 1
    ):
        raise _Broken("its alignment is not a power of two up to 65536")
    declared = [_declaration(cursor) for _ in range(num_tensors)]
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, quantization, offset in declared:
        if name in tensors:
            raise _Broken(f"the tensor {_shown(name)} stands twice")
        if offset % alignment:
            raise _Broken(f"the tensor {_shown(name)} is not aligned")
        start, size = base + offset, _size(name, shape, quantization)
        if start + size > len(data):
            raise _Broken(f"it ends inside the tensor {_shown(name)}")
        tensors[name] = TensorInfo(shape, quantization, start, start + size)
    _check_disjoint(tensors)
    return MappingProxyType(metadata), MappingProxyType(tensors)


def _declaration(
    cursor: _Cursor,
) -> tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, int]:
    name = cursor.string("a tensor's name", _MOST_NAME)
    shown = _shown(name)
    num_dimensions = cursor.count("<I", _MOST_DIMENSIONS, f"dimensions of {shown}")
    shape = tuple(cursor.number("<Q", f"the shape of {shown}") for _ in range(num_dimensions))
    kind = cursor.number("<I", f"the type of {shown}")
    try:
        quantization = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise _Broken(f"the tensor {shown} has the unknown type {kind}") from None
    return name, shape[::-1], quantization, cursor.number("<Q", f"the offset of {shown}")


def _size(name: str, shape: tuple[int, ...], quantization: gguf.GGMLQuantizationType) -> int:
    if not shape or min(shape) == 0:
        raise _Broken(f"the tensor {_shown(name)} is empty")
    block, block_bytes = gguf.GGML_QUANT_SIZES[quantization]
    if shape[-1] % block:
        raise _Broken(f"the rows of {_shown(name)} are not whole blocks")
    elements = 1
    for dimension in shape:
        elements *= dimension
    return elements // block * block_bytes


def _check_disjoint(tensors: Mapping[str, TensorInfo]) -> None:
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        if info.start < end:
            raise _Broken(f"the tensor {_shown(name)} overlaps another one")
        end = info.end


def _shown(name: str) -> str:
    """Return a name from the file as it may stand in an error: short, and on one line."""
    return repr(name[:_SHOWN])
