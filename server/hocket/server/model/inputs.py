"""From a batch to the tensors of one forward pass. Engine thread.

Rows are the tokens to compute: first the decoded ones, then those of prefill chunks, then padding.
Padding rows compute on token 0 at position 0, are written nowhere and read by nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
        blocks: `[n]`, the decodes' blocks, row after row, in logical order.
        owners: `[n]`, the row that each of them belongs to.
        owners_by_block: `[num_used]`, the same by physical block, 0 for other sequences' blocks;
            None where blocks have several owners, or few of the used ones are wanted.
        bias: `[n, 1, 1, block_size]` float32, 0 where a token is seen and `MASKED` elsewhere.
        sliding_bias: The same for layers with a sliding window; None without such layers.
    """

    rows: int
    num_used: int
    blocks: Tensor
    owners: Tensor
    owners_by_block: Tensor | None
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


def build_inputs(batch: Batch, cache: KVCache, *, sliding_window: int | None) -> StepInputs:
    """Lay out a batch.

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
        decode = _decode_inputs(owners, layout.positions, size, sliding_window)
    chunks: list[PrefillInputs] = []
    all_rows: list[tuple[int, ...]] = []
    for piece, rows in zip(batch.slices, decoded, strict=True):
        end = max(piece.start, min(piece.start + len(piece.token_ids), piece.prompt_length))
        prefilled = layout.add(piece, piece.start, end, size)
        if prefilled:
            table = torch.tensor(list(piece.block_table[: -(-end // size)]))
            chunks.append(
                PrefillInputs(
                    first_row=prefilled[0], count=len(prefilled), start=piece.start, blocks=table
                )
            )
        all_rows.append(prefilled + rows)
    num_rows = len(layout.token_ids)
    padding = [0] * (padded(num_rows) - num_rows)
    return StepInputs(
        token_ids=torch.tensor(layout.token_ids + padding),
        positions=torch.tensor(layout.positions + padding),
        num_rows=num_rows,
        cache_rows=cache.rows(
            torch.tensor(layout.blocks), torch.tensor(layout.positions) % cache.block_size
        ),
        decode=decode,
        prefills=tuple(chunks),
        rows=tuple(all_rows),
    )


def _decode_inputs(
    pieces: Sequence[SequenceSlice], positions: Sequence[int], size: int, sliding_window: int | None
) -> DecodeInputs:
    blocks: list[int] = []
    owners: list[int] = []
    logical: list[int] = []
    own: list[int] = []
    for row, (piece, position) in enumerate(zip(pieces, positions, strict=True)):
        used = position // size + 1
        blocks += piece.block_table[:used]
        owners += [row] * used
        logical += range(used)
        own += [position] * used
    num_used = max(blocks) + 1
    by_block: list[int] | None = None
    # Used blocks lie together, so most steps need no copy of them; a few decodes beside a long
    # prompt gather theirs instead of scoring everyone's.
    if len(blocks) * 2 >= num_used and len(set(blocks)) == len(blocks):
        by_block = [0] * num_used
        for block, owner in zip(blocks, owners, strict=True):
            by_block[block] = owner
    seen_at = torch.tensor(logical)[:, None] * size + torch.arange(size)
    own_at = torch.tensor(own)[:, None]
    is_seen = seen_at <= own_at
    sliding = None
    if sliding_window is not None:
        sliding = _bias(is_seen & (seen_at > own_at - sliding_window))
    return DecodeInputs(
        rows=len(pieces),
        num_used=num_used,
        blocks=torch.tensor(blocks),
        owners=torch.tensor(owners),
        owners_by_block=None if by_block is None else torch.tensor(by_block),
        bias=_bias(is_seen),
        sliding_bias=sliding,
    )


def _bias(is_seen: Tensor) -> Tensor:
    bias = torch.zeros(is_seen.shape, dtype=torch.float32)
    return bias.masked_fill_(~is_seen, MASKED)[:, None, None, :]
