"""A safetensors file is read as it was meant, or refused with one clear line."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from safetensors.torch import save

from hocket.server.errors import StartupError
from hocket.server.model.safetensors_file import SafetensorsFile
from model.hostility import mutations, refused, refused_or_fine

pytestmark = pytest.mark.torch

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.arange(4, dtype=torch.float16),
    "c": torch.ones(1, 2, 3, dtype=torch.bfloat16),
    "d": torch.tensor(7.0),
}
SOUND = save(TENSORS, metadata={"format": "pt"})
FIRST_BYTES = 8 + int.from_bytes(SOUND[:8], "little")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "model.safetensors"


def test_a_sound_file_is_read_as_it_was_written(path):
    """Half precision becomes single; the rest stays as it is."""
    path.write_bytes(SOUND)
    opened = SafetensorsFile(path)
    assert TENSORS.keys() == opened.names
    for name, tensor in TENSORS.items():
        expected = tensor.float() if tensor.dtype is torch.float16 else tensor
        assert expected.dtype is opened.read(name).dtype
        assert torch.equal(expected, opened.read(name))
        assert tuple(tensor.shape) == opened.shape(name)
    assert opened.shape("e") is None
    with refused("lacks the tensor e"):
        opened.read("e")


def test_numbers_of_a_type_that_no_weight_has_are_told(path):
    """Integers are no weights."""
    path.write_bytes(save({"n": torch.arange(3)}))
    with refused("stores n as I64"):
        SafetensorsFile(path).read("n")


def written(header: object, data: int = 0, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * data


def entry(
    dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(*arguments: object, **changes: object) -> bytes:
    return written({"t": entry(*arguments, **changes)}, 8)


TWICE = b'{"t":%b,"t":%b}' % ((json.dumps(entry()).encode(),) * 2)

HOSTILE = {
    "empty": (b"", "too short"),
    "seven bytes": (b"\1\0\0\0\0\0\0", "too short"),
    "no header": (written(b""), "not JSON"),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "more than"),
    "a length of 2 to the 64": (written({}, length=2**64 - 1), "more than"),
    "a length past the end": (written({"t": entry()}, length=200), "ends inside its header"),
    "a length that is too short": (written({"t": entry()}, 8, length=9), "not JSON"),
    "bytes that are no text": (written(b"\xff\xfe{}\0"), "not JSON"),
    "brackets without end": (written(b"[" * 100_000), "not JSON"),
    "a number without end": (written(b"9" * 100_000), "not JSON"),
    "a list": (written([]), "not a JSON object"),
    "nothing": (written(None), "not a JSON object"),
    "a name twice": (written(TWICE, 8), "twice"),
    "a shape twice": (
        written(b'{"t":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,8]}}', 8),
        "twice",
    ),
    "no description": (written({"t": None}), "does not describe"),
    "a list for a description": (written({"t": [1, 2]}), "does not describe"),
    "no type": (written({"t": {"shape": [2], "data_offsets": [0, 8]}}, 8), "unknown type"),
    "an unknown type": (one("F8_E4M3", offsets=(0, 2)), "unknown type"),
    "a list for a type": (one([]), "unknown type"),
    "no shape": (one(shape=None), "no shape"),
    "a text for a shape": (one(shape="2"), "no shape"),
    "a negative dimension": (one(shape=(-2,)), "no shape"),
    "a broken dimension": (one(shape=(2.0,)), "no shape"),
    "a dimension that is true": (one(shape=(2, True)), "no shape"),
    "nine dimensions": (one(shape=(1,) * 8 + (2,)), "no shape"),
    "a product of 2 to the 64": (one(shape=(2**32, 2**32), offsets=(0, 0)), "other bytes"),
    "dimensions of 4000 digits": (one(shape=(10**4000,) * 8), "other bytes"),
    "fewer bytes than the shape": (one(shape=(3,)), "other bytes"),
    "more bytes than the shape": (one(shape=(1,)), "other bytes"),
    "no offsets": (one(offsets=None), "no offsets"),
    "three offsets": (one(offsets=(0, 8, 8)), "no offsets"),
    "a negative offset": (one(offsets=(-8, 0)), "no offsets"),
    "offsets the other way": (one(offsets=(8, 0)), "other bytes"),
    "offsets past the end": (one(offsets=(8, 16)), "ends inside"),
    "offsets of 2 to the 64": (one(offsets=(2**64, 2**64 + 8)), "ends inside"),
    "overlapping tensors": (
        written({"t": entry(), "u": entry(offsets=(4, 12))}, 12),
        "'u' overlaps another one",
    ),
    "the same bytes twice": (written({"t": entry(), "u": entry()}, 8), "overlaps"),
    "a gap": (written({"t": entry(offsets=(8, 16))}, 16), "not a sound safetensors file"),
    "more data": (written({"t": entry()}, 16), "not a sound safetensors file"),
    "metadata of numbers": (written({"__metadata__": {"a": 1}, "t": entry()}, 8), "not a sound"),
    "a name of lines": (written({"a\nb\x1b[2J" * 900: entry(0)}, 8), "'a\\nb\\x1b[2J"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_clear_line(path, content, words):
    """Whatever it claims, what it costs is bounded by its own size."""
    path.write_bytes(content)
    with refused(words):
        SafetensorsFile(path)


@pytest.mark.slow
def test_too_many_tensors_are_one_clear_line(path):
    """However small each of them is."""
    path.write_bytes(written({f"{n}": entry(shape=(0,), offsets=(0, 0)) for n in range(65_537)}))
    with refused("65537 tensors"):
        SafetensorsFile(path)


def test_a_header_beyond_the_cap_is_not_even_read(tmp_path):
    """Though the file is as long as it claims."""
    file = tmp_path / "long.safetensors"
    with file.open("wb") as long:
        long.write(struct.pack("<Q", 90_000_000))
        long.truncate(100_000_000)
    with refused("more than 25000000"):
        SafetensorsFile(file)


def test_every_truncation_is_one_clear_line(path):
    """Wherever a copy was broken off."""
    for size in range(0, len(SOUND), 3):
        path.write_bytes(SOUND[:size])
        with pytest.raises(StartupError):
            SafetensorsFile(path)


def test_what_is_no_file_is_one_clear_line(tmp_path):
    """Something absent, a folder, a pipe that nobody writes into."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("absent", "No such file"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
    ):
        with refused(words):
            SafetensorsFile(tmp_path / name)


@given(change=mutations(FIRST_BYTES))
def test_no_mutation_is_more_than_a_clear_line(path, change):
    """Any change gives a file whose tensors can all be read, or one line."""
    path.write_bytes(change(SOUND))
    with refused_or_fine():
        opened = SafetensorsFile(path)
        for name in opened.names:
            with refused_or_fine():
                assert tuple(opened.read(name).shape) == opened.shape(name)
