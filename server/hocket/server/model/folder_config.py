"""Reads the `config.json` of a Hugging Face folder. Engine thread, at load."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import (
    MOST_CONTEXT_TOKENS,
    MOST_COUNT,
    MOST_LAYERS,
    Architecture,
    DecoderConfig,
    RopeScaling,
    check_config,
)

_T = TypeVar("_T", int, float, bool, str)

_ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_LAYER_KINDS = ("full_attention", "sliding_attention")
_GEMMA_PERIOD = 6
_MOST_BITS = 63  # of an integer; what is longer fits nowhere
_SHOWN = 64  # characters of a text that an error repeats


class _Fields:
    """Typed reading of a JSON object."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self.values = values
        self._name = name

    def get(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.broken(f"lacks {key}")
        if type(value) is int and value.bit_length() > _MOST_BITS:
            raise self.broken(f"has too large a number as {key}")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.broken(f"has no {kind.__name__} as {key}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise self.broken(f"has {value} as {key}")
        return value

    def count(self, key: str, default: int | None = None, *, most: int = MOST_COUNT) -> int:
        value = self.get(key, int, default)
        if not 0 < value <= most:
            raise self.broken(f"has {value} as {key}, which must be from 1 to {most}")
        return value

    def table(self, key: str) -> Mapping[str, Any] | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.broken(f"has no object as {key}")
        return value

    def inside(self, table: Mapping[str, Any]) -> "_Fields":
        return _Fields(table, self._name)

    def broken(self, what: str) -> StartupError:
        return StartupError(f"{self._name} {what}")


def decoder_config(values: Mapping[str, Any], name: str) -> DecoderConfig:
    """Return the hyperparameters that a `config.json` declares.

    Args:
        values: Its content.
        name: How to call it in an error.

    Raises:
        StartupError: A value is missing or broken, or the model is not supported.
    """
    inner = values.get("text_config")
    if values.get("model_type") == "gemma3" and isinstance(inner, dict):
        values = {**inner, "model_type": "gemma3_text"}
    fields = _Fields(values, name)
    kind = fields.get("model_type", str)
    if kind not in set(Architecture):
        supported = ", ".join(Architecture)
        raise fields.broken(f"is of the model type {_shown(kind)}; supported are {supported}")
    architecture = Architecture(kind)
    is_gpt2 = architecture is Architecture.GPT2
    config = _gpt2(fields) if is_gpt2 else _llama_family(fields, architecture)
    check_config(config, name)
    return config


def _shown(value: object) -> str:
    """Return a value from the file as it may stand in an error: short, and on one line."""
    return repr(value[:_SHOWN] if isinstance(value, str) else type(value).__name__)


def _activation(fields: _Fields, key: str, default: str) -> str:
    name = fields.get(key, str, default)
    if name not in _ACTIVATIONS:
        raise fields.broken(f"has the activation {_shown(name)}, which is not supported")
    return _ACTIVATIONS[name]


def _ends(fields: _Fields) -> frozenset[int]:
    declared = fields.values.get("eos_token_id")
    ends = declared if isinstance(declared, list) else [declared]
    return frozenset(end for end in ends if type(end) is int)


def _gpt2(fields: _Fields) -> DecoderConfig:
    hidden, heads = fields.count("n_embd"), fields.count("n_head")
    if hidden % heads:
        raise fields.broken(f"has a width of {hidden} for {heads} heads")
    unscaled = fields.get("scale_attn_weights", bool, True) is False
    if unscaled or fields.get("scale_attn_by_inverse_layer_idx", bool, False):
        raise fields.broken("scales its attention in a way that is not supported")
    begin = fields.values.get("bos_token_id")
    return DecoderConfig(
        architecture=Architecture.GPT2,
        vocabulary_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("n_inner", 4 * hidden),
        num_layers=fields.count("n_layer", most=MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        norm_epsilon=fields.get("layer_norm_epsilon", float, 1e-5),
        max_context_tokens=fields.count("n_positions", most=MOST_CONTEXT_TOKENS),
        tie_embeddings=fields.get("tie_word_embeddings", bool, True),
        activation=_activation(fields, "activation_function", "gelu_new"),
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        query_scale=(hidden // heads) ** -0.5,
        rope_theta=0.0,
        bos_token_id=begin if type(begin) is int else None,
        eos_token_ids=_ends(fields),
    )


def _llama_family(fields: _Fields, architecture: Architecture) -> DecoderConfig:
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    is_gemma, is_qwen2 = architecture is Architecture.GEMMA3, architecture is Architecture.QWEN2
    head_dim = fields.count("head_dim", 256 if is_gemma else hidden // heads)
    layers = fields.count("num_hidden_layers", most=MOST_LAYERS)
    bias = is_qwen2 or fields.get("attention_bias", bool, False)
    scale = fields.get("query_pre_attn_scalar", float, 256.0) if is_gemma else float(head_dim)
    if scale <= 0:
        raise fields.broken(f"has {scale} as query_pre_attn_scalar")
    theta, scaling, local = _rope(fields, is_gemma=is_gemma)
    window, sliding = _sliding(fields, architecture, layers)
    begin = fields.values.get("bos_token_id")
    return DecoderConfig(
        architecture=architecture,
        vocabulary_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        norm_epsilon=fields.get("rms_norm_eps", float, 1e-6),
        max_context_tokens=fields.count(
            "max_position_embeddings", 131_072 if is_gemma else None, most=MOST_CONTEXT_TOKENS
        ),
        tie_embeddings=fields.get("tie_word_embeddings", bool, is_gemma),
        activation=_activation(
            fields,
            "hidden_activation" if is_gemma else "hidden_act",
            "gelu_pytorch_tanh" if is_gemma else "silu",
        ),
        attention_bias=bias,
        output_bias=bias and not is_qwen2,
        mlp_bias=fields.get("mlp_bias", bool, False),
        qk_norm=architecture in {Architecture.QWEN3, Architecture.GEMMA3},
        post_norms=is_gemma,
        embedding_scale=hidden**0.5 if is_gemma else 1.0,
        query_scale=scale**-0.5,
        rope_theta=theta,
        rope_scaling=scaling,
        rope_local_theta=local,
        sliding_window=window,
        sliding_layers=sliding,
        bos_token_id=begin if type(begin) is int else None,
        eos_token_ids=_ends(fields),
    )


def _rope(fields: _Fields, *, is_gemma: bool) -> tuple[float, RopeScaling | None, float | None]:
    """Return base, scaling and local base, from the old layout of the keys or the new one."""
    parameters = fields.table("rope_parameters")
    for table in (fields.values, parameters or {}):
        share = table.get("partial_rotary_factor", 1.0)
        if share != 1.0:
            raise fields.broken("rotates only a part of each head, which is not supported")
    default = 1_000_000.0 if is_gemma else 10_000.0
    if parameters is None:
        theta = fields.get("rope_theta", float, default)
        local = fields.get("rope_local_base_freq", float, 10_000.0) if is_gemma else None
        return theta, _scaling(fields, fields.table("rope_scaling")), local
    local = None
    if is_gemma:
        nested = fields.inside(parameters)
        inner = nested.table("sliding_attention") or {}
        local = fields.inside(inner).get("rope_theta", float, 10_000.0)
        parameters = nested.table("full_attention") or {}
    theta = fields.inside(parameters).get("rope_theta", float, default)
    return theta, _scaling(fields, parameters), local


def _scaling(fields: _Fields, table: Mapping[str, Any] | None) -> RopeScaling | None:
    if table is None:
        return None
    inner = fields.inside(table)
    kind = table.get("rope_type", table.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=inner.get("factor", float))
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=inner.get("factor", float),
            low_frequency_factor=inner.get("low_freq_factor", float),
            high_frequency_factor=inner.get("high_freq_factor", float),
            original_context_tokens=inner.count("original_max_position_embeddings"),
        )
    raise fields.broken(f"stretches its positions by {_shown(kind)}, which is not supported")


def _sliding(
    fields: _Fields, architecture: Architecture, layers: int
) -> tuple[int | None, frozenset[int]]:
    """Return the window and the layers that have it."""
    if fields.values.get("sliding_window") is None:
        return None, frozenset()
    is_qwen = architecture in {Architecture.QWEN2, Architecture.QWEN3}
    if is_qwen and not fields.get("use_sliding_window", bool, False):
        return None, frozenset()
    if architecture is Architecture.LLAMA:
        return None, frozenset()
    window = fields.count("sliding_window")
    kinds = fields.values.get("layer_types")
    if kinds is not None:
        return window, _named_sliding(fields, kinds, layers)
    if architecture is Architecture.GEMMA3:
        period = fields.count("sliding_window_pattern", _GEMMA_PERIOD)
        return window, frozenset(i for i in range(layers) if (i + 1) % period)
    first = fields.get("max_window_layers", int, layers) if is_qwen else 0
    return window, frozenset(range(first, layers))


def _named_sliding(fields: _Fields, kinds: object, layers: int) -> frozenset[int]:
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise fields.broken(f"has no list of {layers} as layer_types")
    for kind in kinds:
        if kind not in _LAYER_KINDS:
            raise fields.broken(f"has a layer of the type {_shown(kind)}, which is not supported")
    return frozenset(index for index, kind in enumerate(kinds) if kind == "sliding_attention")
