"""A decoder's hyperparameters and weights in one form, whatever file they came from.

Every reader hands out weights in this form, so that the model code knows no file format:

- matrices are `[out_features, in_features]`, GPT-2's too;
- query and key rows are in the order for rotation by halves (`rotate_half`);
- RMSNorm weights multiply as they are: Gemma's stored offset of 1 is added already;
- names are those of the architecture's `transformers` module, such as
  `model.layers.0.self_attn.q_proj.weight` or, for GPT-2, `transformer.h.0.attn.c_attn.weight`;
- a tied output head has no tensor of its own: `DecoderConfig.tie_embeddings` tells.

Engine thread, at load.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch


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

    def has(self, name: str) -> bool:
        """Whether the file holds a tensor."""
        ...
