"""Attention over the blocks of the KV cache. Engine thread.

Decodes: every used block is one entry of a batched product, whoever owns it; partial results are
combined for each sequence in its logical order by the running-maximum identity of FlashAttention
(Dao et al., 2022). So a row's result depends neither on its neighbours nor on where its blocks lie.
Prefill chunks: the sequence's blocks are gathered once for each layer.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hocket.server.model.inputs import MASKED, DecodeInputs, PrefillInputs, StepInputs
from hocket.server.model.kv_cache import KVCache

# Queries of a chunk that are scored at once: so many that the scores stay near the processor, and
# enough that float32 products are the same row by row.
_TILE, _TILE_SCORES, _LEAST_ROWS = 128, 1 << 20, 8


class Attention:
    """Scaled dot-product attention with grouped heads, for one kind of layer."""

    def __init__(
        self, *, num_heads: int, num_kv_heads: int, scale: float, sliding_window: int | None
    ) -> None:
        """Make it.

        Args:
            num_heads: Query heads; those of one group are adjacent.
            num_kv_heads: Key and value heads.
            scale: Multiplies the scores.
            sliding_window: Tokens back, itself included, that a query sees; None for all.
        """
        self._num_heads = num_heads
        self._num_kv_heads = num_kv_heads
        self._group = num_heads // num_kv_heads
        self._scale = scale
        self._window = sliding_window

    def __call__(self, queries: Tensor, inputs: StepInputs, cache: KVCache, layer: int) -> Tensor:
        """Return `[rows, heads * head_dim]` for queries `[rows, heads, head_dim]`; padding gets 0.

        The keys and values of all rows are in the cache already.
        """
        output = queries.new_zeros(queries.shape)
        if inputs.decode is not None:
            rows = inputs.decode.rows
            output[:rows] = self._decode(queries[:rows], inputs.decode, cache, layer)
        for chunk in inputs.prefills:
            end = chunk.first_row + chunk.count
            output[chunk.first_row : end] = self._prefill(
                queries[chunk.first_row : end], chunk, cache, layer
            )
        return output.view(output.shape[0], -1)

    def _decode(self, queries: Tensor, plan: DecodeInputs, cache: KVCache, layer: int) -> Tensor:
        heads, size, dim = self._num_kv_heads, cache.block_size, cache.head_dim
        count = plan.blocks.shape[0]
        keys, values = cache.keys[layer], cache.values[layer]
        is_gathered = plan.owners_by_block is None
        if plan.owners_by_block is None:
            keys, values = keys.index_select(0, plan.blocks), values.index_select(0, plan.blocks)
            owners, used = plan.owners, count
        else:
            keys, values = keys[: plan.num_used], values[: plan.num_used]
            owners, used = plan.owners_by_block, plan.num_used
        grouped = queries.reshape(plan.rows, heads, self._group, dim)
        by_block = grouped.index_select(0, owners).view(used * heads, self._group, dim)
        scores = torch.bmm(by_block, keys.view(used * heads, size, dim).transpose(1, 2))
        scores = scores.view(used, heads, self._group, size)
        if not is_gathered:
            scores = scores.index_select(0, plan.blocks)
        bias = plan.bias if self._window is None or plan.sliding_bias is None else plan.sliding_bias
        scores = torch.add(bias, scores, alpha=self._scale)
        maxima = scores.amax(-1)
        highest = maxima.new_full((plan.rows, *maxima.shape[1:]), MASKED)
        owners_of_maxima = plan.owners.view(-1, *[1] * (maxima.dim() - 1)).expand_as(maxima)
        highest.scatter_reduce_(0, owners_of_maxima, maxima, "amax")
        weights = (scores - highest.index_select(0, plan.owners).unsqueeze(-1)).exp_()
        sums = maxima.new_zeros(highest.shape).index_add_(0, plan.owners, weights.sum(-1))
        weights = weights.to(values.dtype)
        if not is_gathered:
            spread = weights.new_zeros((used, *weights.shape[1:]))
            weights = spread.index_copy_(0, plan.blocks, weights)
        parts = torch.bmm(
            weights.view(used * heads, self._group, size), values.view(used * heads, size, dim)
        ).view(used, heads, self._group, dim)
        if not is_gathered:
            parts = parts.index_select(0, plan.blocks)
        total = sums.new_zeros((*sums.shape, dim)).index_add_(0, plan.owners, parts.float())
        return (total / sums.unsqueeze(-1)).view(plan.rows, self._num_heads, dim).to(queries.dtype)

    def _prefill(self, queries: Tensor, chunk: PrefillInputs, cache: KVCache, layer: int) -> Tensor:
        heads, dim = self._num_kv_heads, cache.head_dim
        keys, values = (
            tensor[layer].index_select(0, chunk.blocks).transpose(0, 1).reshape(heads, -1, dim)
            for tensor in (cache.keys, cache.values)
        )
        output = torch.empty_like(queries)
        most = _TILE_SCORES // (self._num_heads * (chunk.start + chunk.count))
        tile_rows = max(_LEAST_ROWS, min(_TILE, most))
        for begin in range(0, chunk.count, tile_rows):
            end = min(begin + tile_rows, chunk.count)
            seen = chunk.start + end
            tile = queries[begin:end]
            if end - begin < _LEAST_ROWS:
                tile = functional.pad(tile, (0, 0, 0, 0, 0, _LEAST_ROWS - (end - begin)))
            rows = tile.shape[0]
            packed = tile.view(rows, heads, self._group, dim).permute(1, 2, 0, 3)
            packed = packed.reshape(heads, -1, dim)
            scores = torch.bmm(packed, keys[:, :seen].transpose(1, 2))
            scores = scores.view(heads, self._group, rows, seen)
            scores = torch.add(
                self._mask(chunk.start + begin, rows, seen), scores, alpha=self._scale
            )
            weights = scores.softmax(-1).to(values.dtype).view(heads, -1, seen)
            mixed = torch.bmm(weights, values[:, :seen]).view(heads, self._group, rows, dim)
            mixed = mixed.permute(2, 0, 1, 3).reshape(rows, -1, dim)
            output[begin:end] = mixed[: end - begin]
        return output

    def _mask(self, start: int, count: int, seen: int) -> Tensor:
        own = torch.arange(start, start + count)[:, None]
        other = torch.arange(seen)
        is_seen = other <= own
        if self._window is not None:
            is_seen &= other > own - self._window
        return torch.zeros((count, seen)).masked_fill_(~is_seen, MASKED)
