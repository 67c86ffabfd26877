"""A decoder's weights out of a GGUF file, in the form of `checkpoint.py`. Engine thread, at load.

What the converter of llama.cpp changed is undone: the rows of query and key projections of `llama`
files stand in the order for rotation by pairs; Gemma's norms carry their offset of 1 already.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import (
    MOST_CONTEXT_TOKENS,
    MOST_COUNT,
    MOST_LAYERS,
    Architecture,
    DecoderConfig,
    RopeScaling,
    Shape,
    check_config,
    check_tensors,
)
from hocket.server.model.gguf_file import GgufFile

_T = TypeVar("_T", int, float, str)

_ARCHITECTURES = {
    "llama": Architecture.LLAMA,
    "qwen2": Architecture.QWEN2,
    "qwen3": Architecture.QWEN3,
    "gemma3": Architecture.GEMMA3,
    "gpt2": Architecture.GPT2,
}
_GEMMA_PERIOD = 6  # every sixth layer of Gemma 3 sees everything
_GEMMA_LARGEST_LAYERS = 62  # the 27B model scales its queries differently
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "transformer.wte.weight": "token_embd.weight",
    "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_GEMMA_LAYER = _LAYER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


class GgufCheckpoint:
    """A decoder in a GGUF file."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            StartupError: It is broken, or of an architecture that is not supported.
        """
        self._file = GgufFile(path)
        self._config = _config(self._file, path.name)
        is_gemma = self._config.architecture is Architecture.GEMMA3
        self._layer_names = _GEMMA_LAYER if is_gemma else _LAYER
        check_config(self._config, path.name)
        check_tensors(self._config, self._find, path.name)

    @property
    def config(self) -> DecoderConfig:
        """The hyperparameters."""
        return self._config

    @property
    def metadata(self) -> Mapping[str, object]:
        """All that the file says of itself, as plain Python values."""
        return self._file.metadata

    def tensor(self, name: str) -> Tensor:
        """Read one tensor as float32.

        Raises:
            StartupError: The file has no such tensor, or it is broken.
        """
        tensor = torch.from_numpy(self._file.read(self._stored_name(name)))
        if self._config.architecture is Architecture.LLAMA:
            if ".q_proj." in name:
                return _unpermute(tensor, self._config.num_heads)
            if ".k_proj." in name:
                return _unpermute(tensor, self._config.num_kv_heads)
        return tensor

    def _find(self, name: str) -> tuple[str, Shape | None]:
        stored = self._stored_name(name)
        info = self._file.tensors.get(stored)
        return stored, None if info is None else info.shape

    def _stored_name(self, name: str) -> str:
        if name in _TOP:
            return _TOP[name]
        _, _, index, rest = name.split(".", 3)
        part, _, kind = rest.rpartition(".")
        return f"blk.{index}.{self._layer_names[part]}.{kind}"


def _unpermute(tensor: Tensor, heads: int) -> Tensor:
    """Return rows in the order for rotation by halves."""
    rows = tensor.shape[0]
    pairs = tensor.view(heads, rows // heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


class _Metadata:
    """Typed reading of what a file says of its architecture."""

    def __init__(self, file: GgufFile, name: str) -> None:
        self._values = file.metadata
        self._file_name = name
        self.architecture = self._read("general.architecture", str, None)

    def get(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        return self._read(f"{self.architecture}.{key}", kind, default)

    def count(self, key: str, default: int | None = None, *, most: int = MOST_COUNT) -> int:
        value = self.get(key, int, default)
        if not 0 < value <= most:
            raise StartupError(
                f"{self._file_name} has {value} as {self.architecture}.{key}, which must be from 1"
                f" to {most}"
            )
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._values

    def token(self, key: str) -> int | None:
        value = self._values.get(f"tokenizer.ggml.{key}")
        return value if type(value) is int else None

    def _read(self, key: str, kind: type[_T], default: _T | None) -> _T:
        value = self._values.get(key, default)
        if value is None:
            raise StartupError(f"{self._file_name} lacks the metadata {key}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise StartupError(f"{self._file_name} has no {kind.__name__} as {key}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise StartupError(f"{self._file_name} has {value} as {key}")
        return value


def _config(file: GgufFile, name: str) -> DecoderConfig:
    meta = _Metadata(file, name)
    architecture = _ARCHITECTURES.get(meta.architecture)
    if architecture is None:
        raise StartupError(
            f"{name} is of the architecture {meta.architecture[:64]!r}; supported are"
            f" {', '.join(_ARCHITECTURES)}"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise StartupError(f"{name} lacks the tensor token_embd.weight")
    hidden = meta.count("embedding_length")
    heads = meta.count("attention.head_count")
    head_dim = meta.count("attention.key_length", hidden // heads)
    layers = meta.count("block_count", most=MOST_LAYERS)
    is_gemma = architecture is Architecture.GEMMA3
    is_gpt2 = architecture is Architecture.GPT2
    norm = "attention.layer_norm_epsilon" if is_gpt2 else "attention.layer_norm_rms_epsilon"
    window = meta.get("attention.sliding_window", int, 0)
    turned = meta.get("rope.dimension_count", int, head_dim)
    if turned != head_dim and not is_gpt2:
        raise StartupError(f"{name} rotates {turned} of {head_dim} numbers, which is not supported")
    scale = hidden / heads if is_gemma and layers >= _GEMMA_LARGEST_LAYERS else head_dim
    return DecoderConfig(
        architecture=architecture,
        vocabulary_size=embedding.shape[0],
        hidden_size=hidden,
        intermediate_size=meta.count("feed_forward_length"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=meta.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        norm_epsilon=meta.get(norm, float),
        max_context_tokens=meta.count("context_length", most=MOST_CONTEXT_TOKENS),
        tie_embeddings="output.weight" not in file.tensors,
        activation="gelu_tanh" if is_gemma or is_gpt2 else "silu",
        attention_bias=is_gpt2 or "blk.0.attn_q.bias" in file.tensors,
        output_bias=is_gpt2 or "blk.0.attn_output.bias" in file.tensors,
        mlp_bias=is_gpt2 or "blk.0.ffn_up.bias" in file.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
        post_norms=is_gemma,
        embedding_scale=hidden**0.5 if is_gemma else 1.0,
        query_scale=scale**-0.5,
        rope_theta=0.0 if is_gpt2 else meta.get("rope.freq_base", float, 10_000.0),
        rope_scaling=_rope_scaling(file, meta, name),
        rope_local_theta=10_000.0 if is_gemma else None,
        sliding_window=window or None,
        sliding_layers=_sliding_layers(window, layers, is_gemma=is_gemma),
        bos_token_id=meta.token("bos_token_id"),
        eos_token_ids=frozenset({end} if (end := meta.token("eos_token_id")) is not None else ()),
    )


def _sliding_layers(window: int, layers: int, *, is_gemma: bool) -> frozenset[int]:
    if not window:
        return frozenset()
    if is_gemma:
        return frozenset(index for index in range(layers) if (index + 1) % _GEMMA_PERIOD)
    return frozenset(range(layers))


def _rope_scaling(file: GgufFile, meta: _Metadata, name: str) -> RopeScaling | None:
    if "rope_freqs.weight" in file.tensors:
        # Only the ready factors are stored, not what they were made of; Llama 3.1 and 3.2 differ in
        # the largest of them alone.
        factor = float(file.read("rope_freqs.weight").max())
        return RopeScaling(kind="llama3", factor=factor, original_context_tokens=8192)
    if not meta.has("rope.scaling.type"):
        return None
    kind = meta.get("rope.scaling.type", str)
    if kind == "none":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=meta.get("rope.scaling.factor", float))
    raise StartupError(f"{name} stretches its positions by {kind[:64]!r}, which is not supported")
