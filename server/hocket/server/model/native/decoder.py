"""The Llama family through the kernels. Engine thread."""

import ctypes
from collections.abc import Sequence
from ctypes import c_int32

import torch
from torch import Tensor

from hocket.server.engine.batch import Batch
from hocket.server.model.checkpoint import Architecture, Checkpoint, DecoderConfig
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.native.arena import Arena
from hocket.server.model.native.library import (
    LayerStruct,
    Library,
    ModelStruct,
    SliceStruct,
    StepStruct,
)
from hocket.server.model.native.packing import GROUP, LANES, PackedLinear
from hocket.server.model.network import Forward
from hocket.server.model.rope import inverse_frequencies

_ACTIVATIONS = {"silu": 2, "gelu_tanh": 3}
_MOST_HIDDEN, _MOST_HEAD = 16_384, 256
_HEAD_MULTIPLE = 32


def is_supported(config: DecoderConfig, block_size: int) -> bool:
    """Whether the kernels can compute a model of these hyperparameters."""
    widths = (config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim)
    return (
        config.architecture is not Architecture.GPT2
        and config.activation in _ACTIVATIONS
        and all(width % GROUP == 0 for width in widths)
        and max(widths[0], config.head_dim * config.num_heads) <= _MOST_HIDDEN
        and config.head_dim % _HEAD_MULTIPLE == 0
        and config.head_dim <= _MOST_HEAD
        and block_size % LANES == 0
    )


class NativeDecoder:
    """A model of the Llama family in the kernels' form, bound to one cache."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        library: Library,
        cache: KVCache,
        *,
        max_positions: int,
        num_threads: int,
        is_int8: bool,
    ) -> None:
        """Read and pack the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        config = checkpoint.config
        self._config = config
        self._library = library
        self._checkpoint = checkpoint
        self._is_int8 = is_int8
        self._kept: list[object] = [cache]
        self._arena = Arena()
        self.parameters = 0
        rotations = {
            is_local: self._keep(_rotation(config, max_positions, is_local=is_local))
            for is_local in {index in config.sliding_layers for index in range(config.num_layers)}
        }
        layers = (LayerStruct * config.num_layers)()
        for index in range(config.num_layers):
            self._fill(layers[index], index)
            layers[index].rotation = rotations[index in config.sliding_layers]
            layers[index].keys = cache.keys[index].data_ptr()
            layers[index].values = cache.values[index].data_ptr()
        embedding = self._tensor("model.embed_tokens.weight")
        head = embedding if config.tie_embeddings else self._tensor("lm_head.weight")
        scale = torch.tensor(config.embedding_scale, dtype=torch.bfloat16).item()
        self._model = ModelStruct(
            layers=ctypes.addressof(layers),
            embedding=self._keep(embedding.to(torch.bfloat16)),
            norm=self._keep(self._tensor("model.norm.weight").float()),
            head=self._linear_of(head),
            num_layers=config.num_layers,
            hidden=config.hidden_size,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate=config.intermediate_size,
            block_size=cache.block_size,
            activation=_ACTIVATIONS[config.activation],
            epsilon=config.norm_epsilon,
            scale=config.query_scale,
            embedding_scale=scale,
            num_threads=num_threads,
        )
        self._kept.append(layers)
        self._step = StepStruct()
        self._room: dict[str, Tensor] = {}

    def forward(self, batch: Batch, cache: KVCache) -> Forward:
        """Return the hidden states of a batch, before the last norm, in float32."""
        slices = (SliceStruct * len(batch.slices))()
        tokens: list[int] = []
        owners: list[int] = []
        rows: list[Sequence[int]] = []
        tables = []  # kept alive until the call has ended
        for index, piece in enumerate(batch.slices):
            end = piece.start + len(piece.token_ids)
            used = -(-end // cache.block_size)
            if not piece.token_ids or used > len(piece.block_table):
                raise ValueError("a slice does not fit its blocks. This is a bug.")
            table = (c_int32 * used)(*piece.block_table[:used])
            tables.append(table)
            slices[index] = SliceStruct(
                ctypes.addressof(table), len(tokens), len(piece.token_ids), piece.start
            )
            rows.append(range(len(tokens), len(tokens) + len(piece.token_ids)))
            tokens += piece.token_ids
            owners += [index] * len(piece.token_ids)
        self._make_room(len(tokens))
        step = self._step
        token_array = (c_int32 * len(tokens))(*tokens)
        owner_array = (c_int32 * len(owners))(*owners)
        step.tokens, step.slice_of = ctypes.addressof(token_array), ctypes.addressof(owner_array)
        step.slices, step.num_slices = ctypes.addressof(slices), len(slices)
        step.rows = len(tokens)
        self._library.forward(self._model, step)
        return Forward(hidden=self._room["x"][: len(tokens)], rows=tuple(rows))

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """Return `[rows, vocabulary]` float32 for rows of the newest `forward`."""
        out = torch.empty((len(rows), self._model.head.out_features))
        self._library.logits(self._model, self._step, hidden, list(rows), out)
        return out

    def _fill(self, layer: LayerStruct, index: int) -> None:
        config = self._config
        prefix = f"model.layers.{index}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        layer.qkv = self._linear(
            *(f"{attention}.{letter}_proj" for letter in "qkv"), has_bias=config.attention_bias
        )
        layer.output = self._linear(f"{attention}.o_proj", has_bias=config.output_bias)
        layer.gate_up = self._linear(
            f"{mlp}.gate_proj", f"{mlp}.up_proj", has_bias=config.mlp_bias, is_gated=True
        )
        layer.down = self._linear(f"{mlp}.down_proj", has_bias=config.mlp_bias)
        layer.before_attention = self._norm(f"{prefix}.input_layernorm")
        if config.post_norms:
            layer.after_attention = self._norm(f"{prefix}.post_attention_layernorm")
            layer.before_mlp = self._norm(f"{prefix}.pre_feedforward_layernorm")
            layer.after_mlp = self._norm(f"{prefix}.post_feedforward_layernorm")
        else:
            layer.before_mlp = self._norm(f"{prefix}.post_attention_layernorm")
        if config.qk_norm:
            layer.q_norm = self._norm(f"{attention}.q_norm")
            layer.k_norm = self._norm(f"{attention}.k_norm")
        if index in config.sliding_layers:
            layer.window = config.sliding_window or 0

    def _tensor(self, name: str) -> Tensor:
        tensor = self._checkpoint.tensor(name)
        self.parameters += tensor.numel()
        return tensor

    def _norm(self, name: str) -> int:
        return self._keep(self._tensor(f"{name}.weight").float())

    def _linear(self, *names: str, has_bias: bool, is_gated: bool = False) -> ctypes.Structure:
        weight = torch.cat([self._tensor(f"{name}.weight") for name in names])
        bias = torch.cat([self._tensor(f"{name}.bias") for name in names]) if has_bias else None
        return self._linear_of(weight, bias, is_gated=is_gated)

    def _linear_of(
        self, weight: Tensor, bias: Tensor | None = None, *, is_gated: bool = False
    ) -> ctypes.Structure:
        packed = PackedLinear(
            weight, bias, arena=self._arena, is_int8=self._is_int8, is_gated=is_gated
        )
        self._kept.append(packed)
        return packed.struct

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _make_room(self, rows: int) -> None:
        """Let the memory of a step hold so many rows."""
        if self._room and self._room["x"].shape[0] >= rows:
            return
        config = self._config
        heads = config.num_heads * config.head_dim
        qkv = heads + 2 * config.num_kv_heads * config.head_dim
        widest = max(heads, config.hidden_size, config.intermediate_size)
        self._room = {
            "x": torch.empty((rows, config.hidden_size)),
            "wide": torch.empty((rows, max(qkv, config.intermediate_size))),
            "mixed": torch.empty((rows, max(heads, config.hidden_size))),
            "queries": torch.empty((rows, heads), dtype=torch.bfloat16),
            "values": torch.empty((rows, widest), dtype=torch.bfloat16),
            "scales": torch.empty((rows, widest // GROUP)),
            "offsets": torch.empty((rows, widest // GROUP), dtype=torch.int32),
        }
        for name, tensor in self._room.items():
            setattr(self._step, name, tensor.data_ptr())


def _rotation(config: DecoderConfig, positions: int, *, is_local: bool) -> Tensor:
    """Return `[positions, head_dim]`: cosines, then sines, of each half."""
    theta, scaling = config.rope_theta, config.rope_scaling
    if is_local and config.rope_local_theta is not None:
        theta, scaling = config.rope_local_theta, None
    frequencies = inverse_frequencies(config.head_dim, theta, scaling)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
