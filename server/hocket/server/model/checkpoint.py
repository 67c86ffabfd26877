"""A decoder's hyperparameters and weights in one form, whatever file they came from.

Every reader hands out weights in this form, so that the model code knows no file format:

- matrices are `[out_features, in_features]`, GPT-2's too;
- query and key rows are in the order for rotation by halves (`rotate_half`);
- RMSNorm weights multiply as they are: Gemma's stored offset of 1 is added already;
- names are those of the architecture's `transformers` module, such as
  `model.layers.0.self_attn.q_proj.weight` or, for GPT-2, `transformer.h.0.attn.c_attn.weight`;
- a tied output head has no tensor of its own: `DecoderConfig.tie_embeddings` tells.

A reader checks its file by `check_config` and `check_tensors` when it opens it, so that a file that
contradicts itself is told at once and not after minutes of reading, and never costs more memory
than it has bytes. Engine thread, at load.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch

from hocket.server.errors import StartupError

MOST_COUNT = (1 << 31) - 1
MOST_LAYERS = 1024
MOST_CONTEXT_TOKENS = 10_000_000

Shape = tuple[int, ...]


class Architecture(StrEnum):
    """A decoder architecture, by the `model_type` of its `transformers` configuration."""

    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN2 = "qwen2"
    QWEN3 = "qwen3"
    GEMMA3 = "gemma3_text"
    GPT2 = "gpt2"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length that a model was trained on.

    Attributes:
        kind: `linear` divides positions by `factor`; `llama3` divides only low frequencies.
        factor: How many times longer.
        low_frequency_factor: `llama3` only.
        high_frequency_factor: `llama3` only.
        original_context_tokens: `llama3` only.
    """

    kind: str
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The hyperparameters of a decoder.

    Attributes:
        architecture: Which family.
        vocabulary_size: Rows of the embedding.
        hidden_size: Width of the residual stream.
        intermediate_size: Width inside the MLP.
        num_layers: Transformer blocks.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides `num_heads`.
        head_dim: Width of one head.
        norm_epsilon: Added to variances.
        max_context_tokens: Longest sequence that positions reach to.
        tie_embeddings: The output head is the embedding.
        activation: `silu`, `gelu_tanh` or `gelu`.
        attention_bias: Query, key and value projections have biases.
        output_bias: The attention's output projection has a bias (Llama's `attention_bias`).
        mlp_bias: The MLP's projections have biases.
        qk_norm: Query and key heads are RMS-normalised before rotation.
        post_norms: Attention and MLP outputs are normalised before they are added (Gemma 3).
        embedding_scale: Multiplies embeddings, rounded to the model's dtype as the original does.
        query_scale: Multiplies attention scores; usually `head_dim ** -0.5`.
        rope_theta: Base of the rotary frequencies; 0 for learned positions (GPT-2).
        rope_scaling: How the frequencies are stretched; None if they are not.
        rope_local_theta: Base for layers with a sliding window where it differs (Gemma 3).
        sliding_window: How many tokens back, itself included, a sliding layer sees; None if none.
        sliding_layers: Which layers slide; empty for none.
        bos_token_id: Begin-of-text token, if any.
        eos_token_ids: End-of-text tokens.
    """

    architecture: Architecture
    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_epsilon: float
    max_context_tokens: int
    tie_embeddings: bool
    activation: str
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    embedding_scale: float = 1.0
    query_scale: float
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_local_theta: float | None = None
    sliding_window: int | None = None
    sliding_layers: frozenset[int] = frozenset()
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = frozenset()


class Checkpoint(Protocol):
    """Weights on disk, read one tensor at a time."""

    @property
    def config(self) -> DecoderConfig:
        """The hyperparameters."""
        ...

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor in the form that this module describes, as float32 or bfloat16.

        Raises:
            StartupError: The file has no such tensor, or it is broken.
        """
        ...


def check_config(config: DecoderConfig, file: str) -> None:
    """Check that hyperparameters are possible together.

    Args:
        config: Each count in it is from 1 to its `MOST_...` already, and each number finite.
        file: How to call where they stand.

    Raises:
        StartupError: They are not.
    """
    for what in _impossibilities(config):
        raise StartupError(f"{file} declares {what}")


def _impossibilities(config: DecoderConfig) -> Iterator[str]:
    heads, kv_heads, scaling = config.num_heads, config.num_kv_heads, config.rope_scaling
    if heads % kv_heads:
        yield f"{heads} heads for {kv_heads} key and value heads"
    if config.norm_epsilon <= 0:
        yield f"a norm epsilon of {config.norm_epsilon}"
    if config.architecture is Architecture.GPT2:
        return
    if config.head_dim % 2:
        yield f"heads of an odd width: {config.head_dim}"
    bases = (config.rope_theta, config.rope_local_theta)
    if any(base is not None and base < 1 for base in bases):
        yield "a base below 1 for its rotary frequencies"
    if scaling is None:
        return
    if not 0 < scaling.factor < float("inf"):
        yield f"that its positions are stretched by {scaling.factor}"
    if not 0 < scaling.low_frequency_factor < scaling.high_frequency_factor:
        yield "no range of frequencies between the low ones and the high ones"


def check_tensors(
    config: DecoderConfig, find: Callable[[str], tuple[str, Shape | None]], file: str
) -> None:
    """Check that a file holds all tensors that its hyperparameters ask for, in their shapes.

    Args:
        config: The hyperparameters.
        find: For a tensor's name in our form, its name in the file and its shape in our form; None
            instead of a shape where the file has no such tensor.
        file: How to call the file.

    Raises:
        StartupError: One is absent or has another shape.
    """
    for name, expected in tensor_shapes(config):
        stored, found = find(name)
        if found is None:
            raise StartupError(f"{file} lacks the tensor {stored}")
        if found != expected:
            raise StartupError(
                f"{file} has {stored} in the shape {list(found)}, but its hyperparameters ask for"
                f" {list(expected)}"
            )


def tensor_shapes(config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of each tensor that a model of these hyperparameters reads."""
    hidden = config.hidden_size
    if config.architecture is Architecture.GPT2:
        yield "transformer.wte.weight", (config.vocabulary_size, hidden)
        yield "transformer.wpe.weight", (config.max_context_tokens, hidden)
        for index in range(config.num_layers):
            yield from _gpt2_layer(f"transformer.h.{index}", config)
        yield "transformer.ln_f.weight", (hidden,)
        yield "transformer.ln_f.bias", (hidden,)
    else:
        yield "model.embed_tokens.weight", (config.vocabulary_size, hidden)
        for index in range(config.num_layers):
            yield from _llama_layer(f"model.layers.{index}", config)
        yield "model.norm.weight", (hidden,)
    if not config.tie_embeddings:
        yield "lm_head.weight", (config.vocabulary_size, hidden)


def _llama_layer(prefix: str, config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for name, rows, columns, has_bias in (
        ("self_attn.q_proj", queries, hidden, config.attention_bias),
        ("self_attn.k_proj", keys, hidden, config.attention_bias),
        ("self_attn.v_proj", keys, hidden, config.attention_bias),
        ("self_attn.o_proj", hidden, queries, config.output_bias),
        ("mlp.gate_proj", inner, hidden, config.mlp_bias),
        ("mlp.up_proj", inner, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, inner, config.mlp_bias),
    ):
        yield f"{prefix}.{name}.weight", (rows, columns)
        if has_bias:
            yield f"{prefix}.{name}.bias", (rows,)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for name in norms:
        yield f"{prefix}.{name}.weight", (hidden,)
    if config.qk_norm:
        yield f"{prefix}.self_attn.q_norm.weight", (config.head_dim,)
        yield f"{prefix}.self_attn.k_norm.weight", (config.head_dim,)


def _gpt2_layer(prefix: str, config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    width = config.num_heads * config.head_dim
    for name, rows, columns in (
        ("attn.c_attn", 3 * width, hidden),
        ("attn.c_proj", hidden, width),
        ("mlp.c_fc", inner, hidden),
        ("mlp.c_proj", hidden, inner),
    ):
        yield f"{prefix}.{name}.weight", (rows, columns)
        yield f"{prefix}.{name}.bias", (rows,)
    for name in ("ln_1", "ln_2"):
        yield f"{prefix}.{name}.weight", (hidden,)
        yield f"{prefix}.{name}.bias", (hidden,)
