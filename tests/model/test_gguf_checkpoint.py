"""What a GGUF file says of a model agrees with itself, or is refused with one clear line."""

from pathlib import Path

import numpy as np
import pytest

from hocket.server.model.gguf_checkpoint import GgufCheckpoint
from model import tiny_gguf as tiny
from model.hostility import refused

pytestmark = pytest.mark.torch

TENSORS = tiny.tensors(5)


def write(path: Path, metadata: dict[str, object], tensors: dict[str, object]) -> Path:
    """Write the tiny model with these changes; None leaves something out."""
    file = path / "tiny.gguf"
    said = {**tiny.HYPERPARAMETERS, **metadata}
    held = {**TENSORS, **tensors}
    file.write_bytes(
        tiny.file(
            {key: value for key, value in said.items() if value is not None},
            {name: numbers for name, numbers in held.items() if numbers is not None},
        )
    )
    return file


HUGE = 2**32 - 1
NAN, INFINITY = float("nan"), float("inf")

ABSURD = [
    ({"general.architecture": None}, "lacks the metadata general.architecture"),
    ({"general.architecture": 3}, "no str as general.architecture"),
    ({"general.architecture": "bert"}, "'bert'; supported are llama"),
    ({"llama.rope.dimension_count": 2}, "rotates 2 of"),
    ({"general.architecture": "\n\x1b[2J" * 100_000}, "supported are llama"),
    *(
        ({key: None}, f"lacks the metadata {key}")
        for key in tiny.HYPERPARAMETERS
        if not key.endswith(("architecture", "head_count_kv"))
    ),
    *(
        ({key: value}, f" as {key}")
        for key, default in tiny.HYPERPARAMETERS.items()
        if isinstance(default, int)
        for value in (0, -1, 2**63, 1.0, True, "8", [1, 2])
    ),
    *(
        ({"llama.attention.layer_norm_rms_epsilon": value}, "epsilon")
        for value in (0.0, -1.0, NAN, INFINITY, "1e-5")
    ),
    ({"llama.attention.head_count": 3, "llama.attention.head_count_kv": 2}, "3 heads for 2 key"),
    ({"llama.attention.head_count": 9, "llama.attention.head_count_kv": 9}, "has 0 as"),
    ({"llama.attention.key_length": 0}, "has 0 as llama.attention.key_length"),
    ({"llama.attention.key_length": 5}, "odd width"),
    ({"llama.attention.key_length": 2**31}, "attention.key_length"),
    ({"llama.attention.key_length": 2**31 - 2}, "attn_q.weight in the shape"),
    ({"llama.embedding_length": 16}, "token_embd.weight in the shape [5, 8]"),
    ({"llama.feed_forward_length": HUGE >> 1}, "ffn_gate.weight in the shape"),
    ({"llama.block_count": HUGE, "llama.attention.sliding_window": 4}, "from 1 to 1024"),
    ({"llama.block_count": 2}, "lacks the tensor blk.1.attn_q.weight"),
    ({"llama.context_length": HUGE}, "llama.context_length"),
    ({"llama.rope.freq_base": 0.0}, "rotary"),
    ({"llama.rope.freq_base": NAN}, "llama.rope.freq_base"),
    ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
    ({"llama.rope.scaling.type": "linear"}, "lacks the metadata llama.rope.scaling.factor"),
    ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}, "stretched by 0"),
]


@pytest.mark.parametrize(("metadata", "words"), ABSURD, ids=lambda value: str(value)[:70])
def test_absurd_hyperparameters_are_one_clear_line(tmp_path, metadata, words):
    """Absent, of the wrong type, out of reason, or not possible together."""
    with refused(words):
        GgufCheckpoint(write(tmp_path, metadata, {}))


@pytest.mark.parametrize("name", TENSORS)
def test_each_tensor_is_asked_for_when_the_file_is_opened(tmp_path, name):
    """Absent, turned, too small, or of another rank: nothing is read before it is told."""
    whole = TENSORS[name]
    with refused(f"lacks the tensor {name}"):
        GgufCheckpoint(write(tmp_path, {}, {name: None}))
    turned = whole.T.copy() if whole.ndim > 1 else whole[None]
    for spoilt in (turned[..., None], whole[..., :-1].copy(), turned):
        if spoilt.shape != whole.shape:
            with refused(name):
                GgufCheckpoint(write(tmp_path, {}, {name: spoilt}))


def test_a_bias_that_only_one_projection_has_is_told(tmp_path):
    """One bias means that its fellows have theirs."""
    bias = np.zeros(tiny.HEADS * tiny.HEAD_DIM, dtype=np.float32)
    with refused("lacks the tensor blk.0.attn_k.bias"):
        GgufCheckpoint(write(tmp_path, {}, {"blk.0.attn_q.bias": bias}))


def test_factors_that_are_no_numbers_are_told(tmp_path):
    """Rotary factors of Llama 3 are positive and finite."""
    for value in (NAN, INFINITY, 0.0, -1.0):
        factors = np.full(tiny.HEAD_DIM // 2, value, dtype=np.float32)
        with refused("stretched by"):
            GgufCheckpoint(write(tmp_path, {}, {"rope_freqs.weight": factors}))


def test_numbers_of_a_type_that_no_weight_has_are_told(tmp_path):
    """Integers are no weights."""
    name = "blk.0.ffn_up.weight"
    opened = GgufCheckpoint(write(tmp_path, {}, {name: TENSORS[name].astype(np.int32)}))
    with refused(f"stores {name} as I32"):
        opened.tensor("model.layers.0.mlp.up_proj.weight")
