"""From a batch to the tensors of one forward pass. Engine thread.

Rows are the tokens to compute: first the decoded ones, then those of prefill chunks, then padding.
Padding rows compute on token 0 at position 0, are written nowhere and read by nobody.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hocket.server.engine.batch import Batch, SequenceSlice
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.transfer import integers

MASKED = -1e30  # finite, so that a block that is masked as a whole makes no NaN
_PADDED_ROWS = (4, 8, 12, 16, 24, 32, 48, 64)
# Queries of a chunk that are scored at once: so many that the scores stay near the processor. Their
# number is a multiple, since oneDNN prepares a kernel for each shape that it meets, which takes
# longer than the product.
_TILE, _TILE_SCORES, _ROWS = 128, 1 << 20, 16


def padded(rows: int) -> int:
    """Return the number of rows to compute for so many: one of few sizes, at least 4."""
    for size in _PADDED_ROWS:
        if rows <= size:
            return size
    return -(-rows // 32) * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeInputs:
    """The decodes of a step, by entries: pairs of a row and one of its blocks.

    Attributes:
        rows: How many decodes; they are the first rows.
        width: Blocks of the row that has most.
        num_used: All used blocks are below it.
        blocks: `[entries]`, the block of each entry; None where they are all used blocks, in the
            order in which they lie, and those of other sequences stand among them unread.
        owners: `[entries]`, the row of each; 0 for other sequences' blocks.
        bias: `[entries, 1, 1, block_size]` float32, 0 where a token is seen and `MASKED` elsewhere.
        sliding_bias: The same for layers with a sliding window; None without such layers.
        grid: `[rows * width]`, each row's entries in logical order, filled up with its first.
        grid_bias: `[rows, width, 1, 1]` float32, `MASKED` where it is filled up.
        order: `[n]`, the entries of all rows, row after row, in logical order.
        order_owners: `[n]`, the row of each.
        order_places: `[n]`, the place of each in `grid`.
    """

    rows: int
    width: int
    num_used: int
    blocks: Tensor | None
    owners: Tensor
    bias: Tensor
    sliding_bias: Tensor | None
    grid: Tensor
    grid_bias: Tensor
    order: Tensor
    order_owners: Tensor
    order_places: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Queries of a chunk that are scored at once.

    Attributes:
        begin: The first, counted from the chunk's first row.
        end: Past the last.
        rows: How many are computed: one of few numbers.
        seen: How many keys: whole blocks.
        bias: `[rows, seen]` float32, 0 where a token is seen and `MASKED` elsewhere.
        sliding_bias: The same for layers with a sliding window; None without such layers.
    """

    begin: int
    end: int
    rows: int
    seen: int
    bias: Tensor
    sliding_bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillInputs:
    """One chunk of a prefill.

    Attributes:
        first_row: Its first row.
        count: How many rows.
        blocks: `[kv_heads * n]`, for each head the sequence's blocks in logical order, counted in
            blocks of one head.
        tiles: Its queries.
    """

    first_row: int
    count: int
    blocks: Tensor
    tiles: tuple[Tile, ...]


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
        rows: For each slice of the batch, in its order, the rows of its tokens.
    """

    token_ids: Tensor
    positions: Tensor
    num_rows: int
    cache_rows: Tensor
    decode: DecodeInputs | None
    prefills: tuple[PrefillInputs, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Layout:
    """Rows as they are laid out, one after the other."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def add(self, piece: SequenceSlice, begin: int, end: int, block_size: int) -> tuple[int, ...]:
        """Lay out the tokens at positions `[begin, end)` of a sequence; return their rows."""
        first = len(self.token_ids)
        self.token_ids += piece.token_ids[begin - piece.start : end - piece.start]
        self.positions += range(begin, end)
        self.blocks += [piece.block_table[at // block_size] for at in range(begin, end)]
        return tuple(range(first, len(self.token_ids)))


def build_inputs(
    batch: Batch, cache: KVCache, *, num_heads: int, sliding_window: int | None
) -> StepInputs:
    """Lay out a batch.

    Args:
        batch: What is computed.
        cache: Holds its blocks; the tensors are made on its device.
        num_heads: Query heads.
        sliding_window: Tokens back that a layer with a window sees; None without such layers.

    Raises:
        ValueError: A slice does not fit its blocks, or has no token.
    """
    size, layout = cache.block_size, _Layout()
    decoded: list[tuple[int, ...]] = []
    owners: list[SequenceSlice] = []
    for piece in batch.slices:
        end = piece.start + len(piece.token_ids)
        if not piece.token_ids or -(-end // size) > len(piece.block_table):
            raise ValueError("a slice does not fit its blocks. This is a bug.")
        rows = layout.add(piece, max(piece.start, piece.prompt_length), end, size)
        decoded.append(rows)
        owners += [piece] * len(rows)
    decode = None
    if owners:
        decode = _decode_inputs(owners, layout.positions, cache, sliding_window)
    chunks: list[PrefillInputs] = []
    all_rows: list[tuple[int, ...]] = []
    for piece, rows in zip(batch.slices, decoded, strict=True):
        end = max(piece.start, min(piece.start + len(piece.token_ids), piece.prompt_length))
        prefilled = layout.add(piece, piece.start, end, size)
        if prefilled:
            chunks.append(_prefill_inputs(piece, prefilled, end, cache, num_heads, sliding_window))
        all_rows.append(prefilled + rows)
    num_rows = len(layout.token_ids)
    padding = [0] * (padded(num_rows) - num_rows)
    token_ids, positions, blocks, offsets = integers(
        [
            layout.token_ids + padding,
            layout.positions + padding,
            layout.blocks,
            [position % size for position in layout.positions],
        ],
        cache.device,
    )
    return StepInputs(
        token_ids=token_ids,
        positions=positions,
        num_rows=num_rows,
        cache_rows=cache.rows(blocks, offsets),
        decode=decode,
        prefills=tuple(chunks),
        rows=tuple(all_rows),
    )


def _decode_inputs(
    pieces: Sequence[SequenceSlice],
    positions: Sequence[int],
    cache: KVCache,
    sliding_window: int | None,
) -> DecodeInputs:
    size, rows = cache.block_size, len(pieces)
    counts = [position // size + 1 for position in positions[:rows]]
    blocks = [
        block
        for piece, count in zip(pieces, counts, strict=True)
        for block in piece.block_table[:count]
    ]
    order_owners = [row for row, count in enumerate(counts) for _ in range(count)]
    logical = [index for count in counts for index in range(count)]
    width, num_used = max(counts), max(blocks) + 1
    # Used blocks lie together, so most steps need no copy of them; a few decodes beside a long
    # prompt gather theirs instead of scoring everyone's.
    is_gathered = len(blocks) * 2 < num_used or len(set(blocks)) < len(blocks)
    order = list(range(len(blocks))) if is_gathered else blocks
    entries = len(blocks) if is_gathered else num_used
    owners, begins, own = [0] * entries, [0] * entries, [-1] * entries
    for entry, row, index in zip(order, order_owners, logical, strict=True):
        owners[entry], begins[entry], own[entry] = row, index * size, positions[row]
    firsts = [0, *itertools.accumulate(counts)]
    grid = [
        order[firsts[row] + (index if index < count else 0)]
        for row, count in enumerate(counts)
        for index in range(width)
    ]
    places = [row * width + index for row, index in zip(order_owners, logical, strict=True)]
    lists = [owners, begins, own, grid, counts, order, order_owners, places, blocks]
    on_device = integers(lists, cache.device)
    bias, sliding = _biases(
        on_device[1][:, None] + torch.arange(size, device=cache.device),
        on_device[2][:, None],
        sliding_window,
    )
    is_filled_up = torch.arange(width, device=cache.device) >= on_device[4][:, None]
    return DecodeInputs(
        rows=rows,
        width=width,
        num_used=num_used,
        blocks=on_device[8] if is_gathered else None,
        owners=on_device[0],
        bias=bias[:, None, None],
        sliding_bias=None if sliding is None else sliding[:, None, None],
        grid=on_device[3],
        grid_bias=_bias(~is_filled_up)[:, :, None, None],
        order=on_device[5],
        order_owners=on_device[6],
        order_places=on_device[7],
    )


def _prefill_inputs(
    piece: SequenceSlice,
    rows: Sequence[int],
    end: int,
    cache: KVCache,
    num_heads: int,
    sliding_window: int | None,
) -> PrefillInputs:
    size, heads, count = cache.block_size, cache.num_kv_heads, len(rows)
    table = piece.block_table[: -(-end // size)]
    (blocks,) = integers(
        [[block * heads + head for head in range(heads) for block in table]], cache.device
    )
    most = max(_ROWS, min(_TILE, _TILE_SCORES // (num_heads * end)) // _ROWS * _ROWS)
    tiles = []
    for first in range(0, count, most):
        last = min(first + most, count)
        computed = -(-(last - first) // _ROWS) * _ROWS
        seen = -(-(piece.start + last) // size) * size
        begin = piece.start + first
        bias, sliding = _biases(
            torch.arange(seen, device=cache.device),
            torch.arange(begin, begin + computed, device=cache.device)[:, None],
            sliding_window,
        )
        tiles.append(
            Tile(begin=first, end=last, rows=computed, seen=seen, bias=bias, sliding_bias=sliding)
        )
    return PrefillInputs(first_row=rows[0], count=count, blocks=blocks, tiles=tuple(tiles))


def _biases(other: Tensor, own: Tensor, sliding_window: int | None) -> tuple[Tensor, Tensor | None]:
    """Return what is added to scores, for positions of keys and of queries that look at them."""
    is_seen = other <= own
    if sliding_window is None:
        return _bias(is_seen), None
    return _bias(is_seen), _bias(is_seen & (other > own - sliding_window))


def _bias(is_seen: Tensor) -> Tensor:
    bias = torch.zeros(is_seen.shape, dtype=torch.float32, device=is_seen.device)
    return bias.masked_fill_(~is_seen, MASKED)
