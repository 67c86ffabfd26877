"""Tiny models with random weights, as transformers makes them and as hocket reads them."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from hocket.server.model.checkpoint import Architecture, DecoderConfig, RopeScaling

VOCABULARY = 260
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


# Widths that the kernels can compute: whole vectors of inputs and of each head.
_WIDE = _SHAPE | {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4}

Shape = dict[str, Any]


def _llama(shape: Shape, **changes: Any) -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**shape, **changes}))


def _gemma3(shape: Shape) -> PreTrainedModel:
    config = transformers.Gemma3TextConfig(
        **{**shape, "tie_word_embeddings": True, "num_hidden_layers": 7},
        head_dim=shape["hidden_size"] // 2 if shape is _WIDE else 16,
        sliding_window=24,
        query_pre_attn_scalar=20,
    )
    return transformers.Gemma3ForCausalLM(config)


def _gpt2(_shape: Shape) -> PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=4, n_positions=512,
        bos_token_id=None, eos_token_id=None, attn_implementation="eager",
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


BUILDERS = {
    "llama": _llama,
    "llama-tied": lambda shape: _llama(
        shape, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama3-rope": lambda shape: _llama(
        shape,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }
    ),
    "linear-rope": lambda shape: _llama(
        shape,
        rope_parameters={"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
    ),
    "mistral": lambda shape: transformers.MistralForCausalLM(
        transformers.MistralConfig(**shape, sliding_window=24)
    ),
    "qwen2": lambda shape: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shape)),
    "qwen3": lambda shape: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**shape, head_dim=64 if shape is _WIDE else 16)
    ),
    "gemma3": _gemma3,
    "gpt2": _gpt2,
}  # fmt: skip


def make_model(
    name: str, seed: int = 0, *, is_wide: bool = False, head_dim: int | None = None
) -> PreTrainedModel:
    """Return a float32 model whose weights a seed fixes, large enough to tell tokens apart."""
    torch.manual_seed(seed)
    shape = _WIDE if is_wide else _SHAPE
    if head_dim is not None:
        shape = shape | {"head_dim": head_dim}
    model = BUILDERS[name](shape).eval().float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.15)
            elif "norm" not in parameter_name and "ln_" not in parameter_name:
                parameter.normal_(0.0, 0.1)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def config_of(model: PreTrainedModel) -> DecoderConfig:
    """Return a model's hyperparameters in hocket's form."""
    c = model.config
    if c.model_type == "gpt2":
        return DecoderConfig(
            architecture=Architecture.GPT2, vocabulary_size=c.vocab_size, hidden_size=c.n_embd,
            intermediate_size=4 * c.n_embd, num_layers=c.n_layer, num_heads=c.n_head,
            num_kv_heads=c.n_head, head_dim=c.n_embd // c.n_head,
            norm_epsilon=c.layer_norm_epsilon, max_context_tokens=c.n_positions,
            tie_embeddings=True, activation="gelu_tanh", attention_bias=True, output_bias=True,
            mlp_bias=True, query_scale=(c.n_embd // c.n_head) ** -0.5, rope_theta=0.0,
        )  # fmt: skip
    rope = c.rope_parameters
    is_gemma = c.model_type == "gemma3_text"
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    full = rope["full_attention"] if is_gemma else rope
    kinds = getattr(c, "layer_types", None)
    window = getattr(c, "sliding_window", None)
    sliding = (
        {i for i, kind in enumerate(kinds) if kind == "sliding_attention"}
        if kinds
        else set(range(c.num_hidden_layers) if window else ())
    )
    scaling = None
    if full["rope_type"] != "default":
        scaling = RopeScaling(
            kind=full["rope_type"], factor=full["factor"],
            low_frequency_factor=full.get("low_freq_factor", 1.0),
            high_frequency_factor=full.get("high_freq_factor", 4.0),
            original_context_tokens=full.get("original_max_position_embeddings", 8192),
        )  # fmt: skip
    return DecoderConfig(
        architecture=Architecture(c.model_type), vocabulary_size=c.vocab_size,
        hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_layers=c.num_hidden_layers, num_heads=c.num_attention_heads,
        num_kv_heads=c.num_key_value_heads, head_dim=head_dim, norm_epsilon=c.rms_norm_eps,
        max_context_tokens=c.max_position_embeddings, tie_embeddings=c.tie_word_embeddings,
        activation="gelu_tanh" if is_gemma else "silu",
        attention_bias=c.model_type == "qwen2" or getattr(c, "attention_bias", False),
        output_bias=c.model_type == "llama" and c.attention_bias,
        mlp_bias=getattr(c, "mlp_bias", False),
        qk_norm=c.model_type in {"qwen3", "gemma3_text"}, post_norms=is_gemma,
        embedding_scale=c.hidden_size**0.5 if is_gemma else 1.0,
        query_scale=c.query_pre_attn_scalar**-0.5 if is_gemma else head_dim**-0.5,
        rope_theta=full["rope_theta"], rope_scaling=scaling,
        rope_local_theta=rope["sliding_attention"]["rope_theta"] if is_gemma else None,
        sliding_window=window if sliding else None, sliding_layers=frozenset(sliding),
    )  # fmt: skip


@dataclass
class StateDictCheckpoint:
    """A model's weights in hocket's form, without a file."""

    model: PreTrainedModel

    @property
    def config(self) -> DecoderConfig:
        return config_of(self.model)

    def tensor(self, name: str) -> Tensor:
        tensor = self.model.state_dict()[name].clone()
        kind = self.model.config.model_type
        if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            return tensor.T.contiguous()
        if kind == "gemma3_text" and "norm" in name:
            return tensor + 1.0
        return tensor
