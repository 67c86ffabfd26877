"""From a batch to the tensors of one forward pass. Engine thread.

Rows are the tokens to compute: first those of decodes, one each, then those of prefill chunks, then
padding. Padding rows compute on token 0 at position 0, are written nowhere and read by nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hocket.server.engine.batch import Batch, SequenceSlice
from hocket.server.model.kv_cache import KVCache

MASKED = -1e30  # finite, so that a block that is masked as a whole makes no NaN
_PADDED_ROWS = (4, 8, 12, 16, 24, 32, 48, 64)


def padded(rows: int) -> int:
    """Return the number of rows to compute for so many: one of few sizes, at least 4."""
    for size in _PADDED_ROWS:
        if rows <= size:
            return size
    return -(-rows // 32) * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeInputs:
    """The decodes of a step, by blocks.

    Attributes:
        rows: How many decodes; they are the first rows.
        num_used: All used blocks are below it.
        blocks: `[n]`, the decodes' blocks, sequence after sequence, in logical order.
        owners: `[n]`, the row that each of them belongs to.
        owners_by_block: `[num_used]`, the same by physical block; 0 for other sequences' blocks.
        bias: `[n, 1, 1, block_size]` float32, 0 where a token is seen and `MASKED` elsewhere.
        sliding_bias: The same for layers with a sliding window; None without such layers.
    """

    rows: int
    num_used: int
    blocks: Tensor
    owners: Tensor
    owners_by_block: Tensor
    bias: Tensor
    sliding_bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillInputs:
    """One chunk of a prefill.

    Attributes:
        first_row: Its first row.
        count: How many rows.
        start: Position of the first one.
        blocks: `[ceil((start + count) / block_size)]`, the sequence's blocks in logical order.
    """

    first_row: int
    count: int
    start: int
    blocks: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """The tensors of one forward pass.

    Attributes:
        token_ids: `[padded rows]`.
        positions: `[padded rows]`.
        num_rows: Rows that are not padding.
        cache_rows: Where their keys and values are written.
        decode: The decodes, if any.
        prefills: The chunks of prefills.
        last_rows: For each slice of the batch, in its order, the row of its last token.
    """

    token_ids: Tensor
    positions: Tensor
    num_rows: int
    cache_rows: Tensor
    decode: DecodeInputs | None
    prefills: tuple[PrefillInputs, ...]
    last_rows: tuple[int, ...]


def build_inputs(batch: Batch, cache: KVCache, *, sliding_window: int | None) -> StepInputs:
    """Lay out a batch.

    Raises:
        ValueError: A slice does not fit its blocks, or has no token.
    """
    decodes = [piece for piece in batch.slices if len(piece.token_ids) == 1]
    prefills = [piece for piece in batch.slices if len(piece.token_ids) != 1]
    token_ids: list[int] = []
    positions: list[int] = []
    blocks: list[int] = []
    last_rows: dict[int, int] = {}
    chunks: list[PrefillInputs] = []
    for piece in (*decodes, *prefills):
        count, end = len(piece.token_ids), piece.start + len(piece.token_ids)
        used = -(-end // cache.block_size)
        if count == 0 or used > len(piece.block_table):
            raise ValueError("a slice does not fit its blocks. This is a bug.")
        if count > 1:
            table = torch.tensor(list(piece.block_table[:used]))
            chunks.append(
                PrefillInputs(
                    first_row=len(token_ids), count=count, start=piece.start, blocks=table
                )
            )
        token_ids += piece.token_ids
        positions += range(piece.start, end)
        blocks += [piece.block_table[at // cache.block_size] for at in range(piece.start, end)]
        last_rows[piece.sequence_id] = len(token_ids) - 1
    num_rows = len(token_ids)
    padding = [0] * (padded(num_rows) - num_rows)
    offsets = torch.tensor(positions) % cache.block_size
    return StepInputs(
        token_ids=torch.tensor(token_ids + padding),
        positions=torch.tensor(positions + padding),
        num_rows=num_rows,
        cache_rows=cache.rows(torch.tensor(blocks), offsets),
        decode=_decode_inputs(decodes, cache, sliding_window) if decodes else None,
        prefills=tuple(chunks),
        last_rows=tuple(last_rows[piece.sequence_id] for piece in batch.slices),
    )


def _decode_inputs(
    decodes: Sequence[SequenceSlice], cache: KVCache, sliding_window: int | None
) -> DecodeInputs:
    size = cache.block_size
    blocks: list[int] = []
    owners: list[int] = []
    logical: list[int] = []
    positions: list[int] = []
    for row, piece in enumerate(decodes):
        used = piece.start // size + 1
        blocks += piece.block_table[:used]
        owners += [row] * used
        logical += range(used)
        positions += [piece.start] * used
    by_block = [0] * (max(blocks) + 1)
    for block, owner in zip(blocks, owners, strict=True):
        by_block[block] = owner
    seen_at = torch.tensor(logical)[:, None] * size + torch.arange(size)
    own_at = torch.tensor(positions)[:, None]
    is_seen = seen_at <= own_at
    sliding = None
    if sliding_window is not None:
        sliding = _bias(is_seen & (seen_at > own_at - sliding_window))
    return DecodeInputs(
        rows=len(decodes),
        num_used=len(by_block),
        blocks=torch.tensor(blocks),
        owners=torch.tensor(owners),
        owners_by_block=torch.tensor(by_block),
        bias=_bias(is_seen),
        sliding_bias=sliding,
    )


def _bias(is_seen: Tensor) -> Tensor:
    bias = torch.zeros(is_seen.shape, dtype=torch.float32)
    return bias.masked_fill_(~is_seen, MASKED)[:, None, None, :]
