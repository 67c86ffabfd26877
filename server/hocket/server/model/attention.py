"""Attention over the blocks of the KV cache. Engine thread.

Decodes: every used block is one entry of a batched product, whoever owns it, with a softmax of its
own; a sequence's blocks are then weighed by their sums and added up in its logical order, after
FlashAttention (Dao et al., 2022). So a row's result depends neither on its neighbours nor on where
its blocks lie.
Prefill chunks: the sequence's blocks are gathered once for each layer.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hocket.server.model.inputs import DecodeInputs, PrefillInputs, StepInputs
from hocket.server.model.kv_cache import KVCache


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
        output = torch.empty_like(queries, memory_format=torch.contiguous_format)
        output[inputs.num_rows :] = 0
        if inputs.decode is not None:
            rows = inputs.decode.rows
            self._decode(queries[:rows], inputs.decode, cache, layer, output[:rows])
        for chunk in inputs.prefills:
            own = slice(chunk.first_row, chunk.first_row + chunk.count)
            self._prefill(queries[own], chunk, cache, layer, output[own])
        return output.view(output.shape[0], -1)

    def _decode(
        self, queries: Tensor, plan: DecodeInputs, cache: KVCache, layer: int, output: Tensor
    ) -> None:
        heads, size, dim, group = self._num_kv_heads, cache.block_size, cache.head_dim, self._group
        keys, values = cache.keys[layer], cache.values[layer]
        if plan.blocks is None:
            keys, values = keys[: plan.num_used], values[: plan.num_used]
        else:
            keys, values = keys.index_select(0, plan.blocks), values.index_select(0, plan.blocks)
        by_entry = queries.reshape(plan.rows, -1).index_select(0, plan.owners)
        scores = torch.bmm(
            by_entry.view(-1, group, dim), keys.view(-1, size, dim).transpose(1, 2)
        ).view(-1, heads, group, size)
        bias = plan.bias if self._window is None or plan.sliding_bias is None else plan.sliding_bias
        scores = torch.add(bias, scores, alpha=self._scale)
        weights = scores.softmax(-1)
        parts = torch.bmm(
            weights.to(values.dtype).view(-1, group, size), values.view(-1, size, dim)
        ).view(-1, heads * group, dim)
        parts = parts.index_select(0, plan.order)
        if plan.width > 1:
            # The largest weight of a block is 1 / sum(exp(score - largest score)).
            logsumexps = scores.amax(-1).sub_(weights.amax(-1).log_())
            shares = logsumexps.index_select(0, plan.grid).view(plan.rows, plan.width, heads, group)
            shares = shares.add_(plan.grid_bias).softmax(1).view(-1, heads * group, 1)
            weighed = parts * shares.index_select(0, plan.order_places)
            total = weighed.new_zeros((plan.rows, *weighed.shape[1:]))
            parts = total.index_add_(0, plan.order_owners, weighed)
        output.copy_(parts)

    def _prefill(
        self, queries: Tensor, chunk: PrefillInputs, cache: KVCache, layer: int, output: Tensor
    ) -> None:
        heads, dim, group = self._num_kv_heads, cache.head_dim, self._group
        keys, values = (
            tensor[layer].view(-1, cache.block_size * dim).index_select(0, chunk.blocks)
            for tensor in (cache.keys, cache.values)
        )
        keys, values = keys.view(heads, -1, dim), values.view(heads, -1, dim)
        for tile in chunk.tiles:
            count, rows = tile.end - tile.begin, tile.rows
            asking = queries[tile.begin : tile.end]
            if count < rows:
                asking = functional.pad(asking, (0, 0, 0, 0, 0, rows - count))
            packed = asking.unflatten(1, (heads, group)).permute(1, 2, 0, 3)
            packed = packed.reshape(heads, -1, dim)
            scores = torch.bmm(packed, keys[:, : tile.seen].transpose(1, 2))
            bias = tile.bias
            if self._window is not None and tile.sliding_bias is not None:
                bias = tile.sliding_bias
            scores = scores.view(heads, group, rows, tile.seen)
            scores = torch.add(bias, scores, alpha=self._scale)
            weights = scores.softmax(-1).to(values.dtype).view(heads, -1, tile.seen)
            mixed = torch.bmm(weights, values[:, : tile.seen]).view(heads * group, rows, dim)
            output[tile.begin : tile.end] = mixed[:, :count].transpose(0, 1)
