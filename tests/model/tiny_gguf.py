"""A GGUF file with a tiny Llama in it, byte by byte, so that a test can spoil any of it."""

import struct
from collections.abc import Mapping

import numpy as np

from model.test_gguf_tokenizer import byte_level_metadata

UINT8, INT32, UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 5, 4, 6, 7, 8, 9, 10
F32, F16, Q4_0, I32 = 0, 1, 2, 26
ALIGNMENT = 32

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 8, 12, 2, 1, 4, 64

HYPERPARAMETERS: dict[str, object] = {
    "general.architecture": "llama",
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": INNER,
    "llama.block_count": 1,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.context_length": CONTEXT,
}


def string(text: str | bytes, *, length: int | None = None) -> bytes:
    """Return a string as GGUF writes it, or one that claims another length."""
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def array(kind: int, length: int, items: bytes) -> bytes:
    """Return the value of an array."""
    return struct.pack("<IQ", kind, length) + items


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    """Return a metadata pair."""
    return string(key) + struct.pack("<I", kind) + value


def typed(key: str, value: object) -> bytes:
    """Return a metadata pair of the type that suits a Python value."""
    match value:
        case bool():
            return pair(key, BOOL, struct.pack("<?", value))
        case int():
            kind, form = (UINT32, "<I") if 0 <= value < 1 << 32 else (UINT64, "<Q")
            return pair(key, *((kind, struct.pack(form, value)) if value >= 0 else _int32(value)))
        case float():
            return pair(key, FLOAT32, struct.pack("<f", value))
        case str():
            return pair(key, STRING, string(value))
        case [str(), *_]:
            items = b"".join(map(string, value))
            return pair(key, ARRAY, array(STRING, len(value), items))
        case [int(), *_]:
            items = struct.pack(f"<{len(value)}i", *value)
            return pair(key, ARRAY, array(INT32, len(value), items))
    raise TypeError(value)


def _int32(value: int) -> tuple[int, bytes]:
    return INT32, struct.pack("<i", value)


def header(num_tensors: int = 0, num_pairs: int = 0, *, version: int = 3) -> bytes:
    """Return what a file begins with."""
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_pairs)


def declaration(
    name: str | bytes, dimensions: tuple[int, ...], kind: int = F32, offset: int = 0
) -> bytes:
    """Return what a file says of a tensor; dimensions stand in the file's order."""
    form = f"<I{len(dimensions)}QIQ"
    return string(name) + struct.pack(form, len(dimensions), *dimensions, kind, offset)


def padded(raw: bytes) -> bytes:
    """Return bytes up to the next aligned place."""
    return raw + b"\0" * (-len(raw) % ALIGNMENT)


def file(metadata: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return a whole file."""
    pairs = b"".join(typed(key, value) for key, value in metadata.items())
    kinds = {"float32": F32, "float16": F16, "int32": I32}
    declared, data = b"", b""
    for name, numbers in tensors.items():
        kind = kinds[numbers.dtype.name]
        declared += declaration(name, numbers.shape[::-1], kind, len(data))
        data += padded(numbers.tobytes())
    return padded(header(len(tensors), len(metadata)) + pairs + declared) + data


def tokenizer() -> dict[str, object]:
    """Return the metadata of a tokenizer."""
    return byte_level_metadata()


def tensors(vocabulary_size: int) -> dict[str, np.ndarray]:
    """Return all weights of the model."""
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary_size, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (queries, HIDDEN),
        "blk.0.attn_k.weight": (keys, HIDDEN),
        "blk.0.attn_v.weight": (keys, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, queries),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
    }
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()
    }
