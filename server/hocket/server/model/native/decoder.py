"""The Llama family through the kernels. Engine thread."""

import ctypes
from collections.abc import Sequence
from ctypes import c_int32

import torch
from torch import Tensor

from hocket.server.engine.batch import Batch
from hocket.server.model.checkpoint import Architecture, DecoderConfig
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.native.library import (
    LayerStruct,
    Library,
    ModelStruct,
    SliceStruct,
    StepStruct,
)
from hocket.server.model.native.packing import GROUP, LANES
from hocket.server.model.native.weights import NativeWeights
from hocket.server.model.network import Forward

_ACTIVATIONS = {"silu": 2, "gelu_tanh": 3}
_MOST_HIDDEN, _MOST_HEAD = 16_384, 256  # what the kernels have room for
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
    """Computes with weights that others may share, on one cache and in memory of its own."""

    def __init__(
        self, weights: NativeWeights, library: Library, cache: KVCache, *, num_threads: int
    ) -> None:
        config = weights.config
        layers = (LayerStruct * config.num_layers)()
        ctypes.memmove(layers, weights.layers, ctypes.sizeof(layers))
        for layer, keys, values in zip(layers, cache.keys, cache.values, strict=True):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        self._config = config
        self._library = library
        self._kept = (weights, cache, layers)
        self.parameters = weights.parameters
        self._model = ModelStruct(
            layers=ctypes.addressof(layers),
            embedding=weights.embedding,
            norm=weights.norm,
            head=weights.head,
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
            embedding_scale=torch.tensor(config.embedding_scale, dtype=torch.bfloat16).item(),
            num_threads=num_threads,
        )
        self._step = StepStruct()
        self._room: dict[str, Tensor] = {}

    def set_threads(self, count: int) -> None:
        """Let so many threads compute from now on."""
        self._model.num_threads = count

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
        step.slices, step.rows = ctypes.addressof(slices), len(tokens)
        self._library.forward(self._model, step)
        return Forward(hidden=self._room["x"][: len(tokens)], rows=tuple(rows))

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """Return `[rows, vocabulary]` float32 for rows of the newest `forward`."""
        out = torch.empty((len(rows), self._model.head.out_features))
        self._library.logits(self._model, self._step, hidden, list(rows), out)
        return out[:, : self._config.vocabulary_size]

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
