"""Copies of computed tokens, in chunks, for sequences that begin with the same. Engine thread.

One tensor `[slots, 2 * layers, kv_heads, chunk_tokens * head_dim]`, allocated once and never
cleared: memory is taken from the system as slots are first written. A chunk is a contiguous range
of a block of one head, in torch's layout of the cache as in the kernels', so that a few strided
copies move all of it.
"""

import math

import torch

from hocket.server.engine.batch import PrefixChunks
from hocket.server.model.kv_cache import KVCache

# Most tokens of a chunk: a prefix is found up to the last whole one.
_CHUNK_TOKENS = 32
# Numbers that torch copies without dividing the work among threads. A chunk is copied in less time
# than a thread may take to come by that is busy elsewhere.
_MOST_NUMBERS = 32_768


def chunk_tokens(block_size: int) -> int:
    """Return how many tokens a chunk has: a divisor of the block's size."""
    return math.gcd(block_size, _CHUNK_TOKENS)


class PrefixStore:
    """The slots of the prefix cache, beside the hot blocks of a KV cache."""

    def __init__(self, cache: KVCache, *, num_slots: int) -> None:
        """Allocate the slots.

        Args:
            cache: From and to whose blocks chunks are copied.
            num_slots: How many chunks there is room for.
        """
        tokens = chunk_tokens(cache.block_size)
        self._in_block = cache.block_size // tokens
        shape = (cache.num_blocks, cache.num_kv_heads, self._in_block, tokens * cache.head_dim)
        # Whatever the numbers are, they are moved eight bytes at a time.
        blocks = cache.memory.view(-1, *shape).view(torch.int64)
        layers, _, heads, _, width = blocks.shape
        self._slots = torch.empty(
            (num_slots, layers, heads, width), dtype=torch.int64, device=cache.device
        )
        rows = max(1, _MOST_NUMBERS // (heads * width))
        self._parts = list(zip(blocks.split(rows), self._slots.split(rows, dim=1), strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._slots.nbytes

    def keep(self, chunks: PrefixChunks) -> None:
        """Copy chunks out of blocks into slots."""
        for index, slot in enumerate(chunks.slots, start=chunks.first):
            block, place = divmod(index, self._in_block)
            for blocks, slots in self._parts:
                slots[slot].copy_(blocks[:, chunks.block_table[block], :, place])

    def load(self, chunks: PrefixChunks) -> None:
        """Copy chunks out of slots into blocks."""
        for index, slot in enumerate(chunks.slots, start=chunks.first):
            block, place = divmod(index, self._in_block)
            for blocks, slots in self._parts:
                blocks[:, chunks.block_table[block], :, place].copy_(slots[slot])
