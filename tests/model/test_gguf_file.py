"""A GGUF file is read as it was meant, or refused with one clear line."""

import os
import struct
from pathlib import Path
from unittest import mock

import gguf
import numpy as np
import pytest
from hypothesis import given

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.gguf_checkpoint import GgufCheckpoint
from hocket.server.model.gguf_file import GgufFile
from hocket.server.model.loading import load_model
from model import tiny_gguf as tiny
from model.hostility import mutations, refused, refused_or_fine

pytestmark = pytest.mark.torch

TOKENIZER = tiny.tokenizer()
TENSORS = tiny.tensors(len(TOKENIZER["tokenizer.ggml.tokens"]))
SMALL = tiny.tensors(5)
SMALL_FILE = tiny.file(tiny.HYPERPARAMETERS, SMALL)
SMALL_HEADER = len(SMALL_FILE) - sum(len(tiny.padded(each.tobytes())) for each in SMALL.values())
WHOLE_FILE = tiny.file({**tiny.HYPERPARAMETERS, **TOKENIZER}, TENSORS)
RUNNER = RunnerConfig(
    dtype="float32", kv_cache_mib=1, saved_kv_mib=0, num_threads=1, max_context_tokens=16
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "tiny.gguf"


def load(path: Path, cache: Path) -> None:
    source = ModelSourceConfig(model=str(path), cache_dir=str(cache))
    load_model(source, RUNNER, lambda *_: None)


def read_all(path: Path) -> None:
    opened = GgufFile(path)
    for name in opened.tensors:
        opened.read(name)


def test_a_sound_file_is_read_as_it_was_written(path):
    """Metadata and numbers are those of the writer, in both versions of the format."""
    for version in (2, 3):
        path.write_bytes(SMALL_FILE[:4] + struct.pack("<I", version) + SMALL_FILE[8:])
        opened = GgufFile(path)
        assert opened.tensors.keys() == SMALL.keys()
        for name, numbers in SMALL.items():
            np.testing.assert_array_equal(opened.read(name), numbers)
        assert {
            key: pytest.approx(value) if isinstance(value, float) else value
            for key, value in tiny.HYPERPARAMETERS.items()
        } == opened.metadata


def test_a_sound_file_is_a_model(path, tmp_path):
    path.write_bytes(WHOLE_FILE)
    load(path, tmp_path)
    assert (tmp_path / "tiny.tokenizer.json").is_file()


def test_a_user_without_a_home_may_load_a_file(path, monkeypatch):
    """Nothing needs to be kept for that."""
    path.write_bytes(WHOLE_FILE)
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError))
    load_model(ModelSourceConfig(model=str(path)), RUNNER, lambda *_: None)


def pairs(*written: bytes) -> bytes:
    return tiny.header(0, len(written)) + b"".join(written)


def declared(
    *declarations: bytes, data: int = 0, metadata: bytes = b"", num_pairs: int = 0
) -> bytes:
    head = tiny.header(len(declarations), num_pairs) + metadata + b"".join(declarations)
    return tiny.padded(head) + b"\0" * data


def aligned_to(value: bytes) -> bytes:
    metadata = string_pair("general.alignment", value)
    return declared(tiny.declaration("t", (4,)), data=64, metadata=metadata, num_pairs=1)


def string_pair(key: str, value: bytes) -> bytes:
    return tiny.string(key) + value


def number(kind: int, form: str, value: object) -> bytes:
    return struct.pack(f"<I{form}", kind, value)


HOSTILE = {
    "empty": (b"", "empty"),
    "half a magic": (b"GG", "magic"),
    "another magic": (b"GGML" + SMALL_FILE[4:], "begin with GGUF"),
    "a pickle": (b"\x80\x04cos\nsystem\n", "begin with GGUF"),
    "no version": (b"GGUF", "version"),
    "version 1": (tiny.header(version=1), "version is 1"),
    "version 4": (tiny.header(version=4), "version is 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
    "no counts": (SMALL_FILE[:8], "ends inside"),
    "countless tensors": (tiny.header(2**63, 0), "tensors"),
    "countless pairs": (tiny.header(0, 2**64 - 1), "metadata pairs"),
    "pairs that are not there": (tiny.header(0, 4096), "ends inside"),
    "tensors that are not there": (tiny.header(65_536, 0), "ends inside"),
    "an endless key": (pairs(tiny.string(b"k", length=2**63)), "bytes in a metadata key"),
    "a long key": (pairs(tiny.typed("k" * 2000, 1)), "bytes in a metadata key"),
    "a key of no text": (pairs(tiny.pair(b"\xff\xfe", tiny.UINT32, b"\0" * 4)), "UTF-8"),
    "a key twice": (pairs(tiny.typed("k", 1), tiny.typed("k", 2)), "twice"),
    "a key of lines": (pairs(tiny.string("a\nb\r\x1b[2J")), "ends inside"),
    "an unknown value type": (pairs(tiny.pair("k", 13, b"\0" * 8)), "type 13"),
    "an endless text": (pairs(tiny.pair("k", tiny.STRING, tiny.string(b"", length=2**62))), "more"),
    "a text cut short": (pairs(tiny.pair("k", tiny.STRING, tiny.string(b"a", length=9))), "ends"),
    "a text of no text": (pairs(tiny.pair("k", tiny.STRING, tiny.string(b"\xc0"))), "UTF-8"),
    "an endless array": (pairs(tiny.pair("k", 9, tiny.array(tiny.UINT8, 2**60, b""))), "elements"),
    "arrays that are long together": (
        pairs(*(tiny.pair(f"{n}", 9, tiny.array(0, 3 << 20, b"\0" * (3 << 20))) for n in (1, 2))),
        "elements",
    ),
    "an array cut short": (pairs(tiny.pair("k", 9, tiny.array(10, 4 << 20, b"\0" * 9))), "ends"),
    "texts cut short": (pairs(tiny.pair("k", 9, tiny.array(8, 4 << 20, b"\0" * 99))), "ends"),
    "an array of arrays": (pairs(tiny.pair("k", 9, tiny.array(9, 1, tiny.array(9, 1, b"")))), "9"),
    "an array of nothing known": (pairs(tiny.pair("k", 9, tiny.array(99, 0, b""))), "type 99"),
    "five dimensions": (declared(tiny.declaration("t", (1,) * 5)), "5 dimensions"),
    "countless dimensions": (
        tiny.header(1) + tiny.string("t") + b"\xff" * 4,
        "4294967295 dimensions",
    ),
    "no dimension": (declared(tiny.declaration("t", ())), "empty"),
    "an empty dimension": (declared(tiny.declaration("t", (4, 0))), "empty"),
    "a product of 2 to the 64": (declared(tiny.declaration("t", (2**32, 2**32))), "ends inside"),
    "a product of 2 to the 252": (declared(tiny.declaration("t", (2**63,) * 4)), "ends inside"),
    "a tensor of an unknown type": (declared(tiny.declaration("t", (4,), 9999)), "type 9999"),
    "a tensor of a removed type": (declared(tiny.declaration("t", (32,), 4)), "unknown type 4"),
    "half a block": (declared(tiny.declaration("t", (33,), tiny.Q4_0), data=99), "whole blocks"),
    "a tensor past the end": (declared(tiny.declaration("t", (9,)), data=32), "ends inside"),
    "an offset past the end": (
        declared(tiny.declaration("t", (4,), offset=2**64 - 32), data=32),
        "ends inside",
    ),
    "an offset between": (declared(tiny.declaration("t", (4,), offset=4), data=32), "aligned"),
    "a name twice": (declared(*[tiny.declaration("t", (4,))] * 2, data=32), "twice"),
    "a name of no text": (declared(tiny.declaration(b"\xff", (4,))), "UTF-8"),
    "a long name": (declared(tiny.declaration("n" * 2000, (4,))), "bytes in a tensor's name"),
    "a name of lines": (declared(tiny.declaration("a\nb\x1b[2J", (4,))), "ends inside"),
    "overlapping tensors": (
        declared(tiny.declaration("a", (16,)), tiny.declaration("b", (4,), offset=32), data=64),
        "overlaps",
    ),
    "alignment 0": (aligned_to(number(tiny.UINT32, "I", 0)), "alignment"),
    "alignment 3": (aligned_to(number(tiny.UINT32, "I", 3)), "alignment"),
    "alignment -8": (aligned_to(number(tiny.INT32, "i", -8)), "alignment"),
    "alignment 2 to the 31": (aligned_to(number(tiny.UINT32, "I", 2**31)), "alignment"),
    "alignment true": (aligned_to(number(tiny.BOOL, "?", True)), "alignment"),
    "alignment 32.0": (aligned_to(number(tiny.FLOAT32, "f", 32.0)), "alignment"),
    "alignment by text": (aligned_to(number(tiny.STRING, "Q", 2) + b"32"), "alignment"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_clear_line(path, content, words):
    """Whatever it claims, what it costs is bounded by its own size."""
    path.write_bytes(content)
    with refused(words):
        GgufFile(path)


def test_every_truncation_is_one_clear_line(path):
    """Wherever a copy was broken off."""
    for size in range(0, len(SMALL_FILE) - tiny.ALIGNMENT, 29):
        path.write_bytes(SMALL_FILE[:size])
        with pytest.raises(StartupError):
            GgufFile(path)


def test_what_is_no_file_is_one_clear_line(tmp_path):
    """Something absent, a folder, a pipe that nobody writes into."""
    (tmp_path / "folder.gguf").mkdir()
    os.mkfifo(tmp_path / "pipe.gguf")
    for name, words in (
        ("absent", "No such file"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
    ):
        with refused(words):
            GgufFile(tmp_path / f"{name}.gguf")


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType, ids=lambda kind: kind.name)
def test_any_bytes_of_any_type_are_numbers_or_one_clear_line(path, kind):
    """No pattern of bits makes a decoder fail."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    noise = np.random.default_rng(kind).bytes(6 * size)
    path.write_bytes(declared(tiny.declaration("t", (2 * block, 3), kind)) + noise)
    opened = GgufFile(path)
    with refused_or_fine():
        numbers = opened.read("t")
        assert (numbers.shape, numbers.dtype) == ((3, 2 * block), np.float32)
    with refused("lacks the tensor"):
        opened.read("another")


@given(change=mutations(SMALL_HEADER))
def test_no_mutation_of_a_small_file_is_more_than_a_clear_line(path, change):
    """Any change gives a file that is read to its end, or one line."""
    path.write_bytes(change(SMALL_FILE))
    with refused_or_fine():
        read_all(path)
    with refused_or_fine():
        opened = GgufCheckpoint(path)
        assert opened.tensor("model.embed_tokens.weight").shape[1] == opened.config.hidden_size


@pytest.mark.slow
@pytest.mark.timeout(120)
@given(change=mutations(len(WHOLE_FILE)))
def test_no_mutation_of_a_whole_model_is_more_than_a_clear_line(path, tmp_path_factory, change):
    """The same, with its tokenizer and its template, up to a model that could run."""
    path.write_bytes(change(WHOLE_FILE))
    with refused_or_fine():
        load(path, tmp_path_factory.getbasetemp() / "cache")
