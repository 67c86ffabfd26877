"""Keys and values of computed tokens, in blocks. Engine thread.

Keys and values of each layer are `[blocks, kv_heads, block_size, head_dim]`, parts of one tensor,
allocated and zeroed once: what is masked is still multiplied by zero, and 0 times NaN is NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Hot blocks, and a store of saved ones beside them."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        block_size: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> None:
        shape = (2, num_layers, num_blocks, num_kv_heads, block_size, head_dim)
        self.memory = torch.zeros(shape, dtype=dtype)
        self.keys, self.values = (list(part) for part in self.memory)
        self.num_blocks = num_blocks
        self.num_kv_heads = num_kv_heads
        self.block_size = block_size
        self.head_dim = head_dim
        self._saved: dict[int, list[Tensor]] = {}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All hot tensors."""
        return (*self.keys, *self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of all hot blocks."""
        return self.memory.nbytes

    def rows(self, blocks: Tensor, offsets: Tensor) -> Tensor:
        """Return where tokens are written, in a layer's flat view, as `[tokens * kv_heads]`.

        Args:
            blocks: `[tokens]`, the block of each token.
            offsets: `[tokens]`, its place in the block.
        """
        heads = torch.arange(self.num_kv_heads)
        return (
            (blocks[:, None] * self.num_kv_heads + heads) * self.block_size + offsets[:, None]
        ).view(-1)

    def write(self, layer: int, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write `[tokens, kv_heads, head_dim]` keys and values of one layer."""
        flat = (-1, self.head_dim)
        self.keys[layer].view(flat).index_copy_(0, rows, keys.reshape(flat))
        self.values[layer].view(flat).index_copy_(0, rows, values.reshape(flat))

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy blocks from the first of each pair to the second, in order."""
        for tensor in self.tensors:
            for source, target in moves:
                tensor[target].copy_(tensor[source])

    def save(self, key: int, blocks: Sequence[int]) -> None:
        """Keep a copy of blocks under a key."""
        index = torch.tensor(list(blocks))
        self._saved[key] = [tensor.index_select(0, index) for tensor in self.tensors]

    def load(self, key: int, blocks: Sequence[int]) -> None:
        """Copy what was kept under a key into blocks and forget it."""
        index = torch.tensor(list(blocks))
        for tensor, saved in zip(self.tensors, self._saved.pop(key), strict=True):
            tensor.index_copy_(0, index, saved)

    def drop(self, key: int) -> None:
        """Forget what was kept under a key."""
        del self._saved[key]

    def clear(self, blocks: Sequence[int], start: int) -> None:
        """Zero what lies from a position on in blocks, so that no NaN stays behind in them."""
        first, offset = divmod(start, self.block_size)
        for tensor in self.tensors:
            for index, block in enumerate(blocks[first:]):
                tensor[block, :, offset if index == 0 else 0 :] = 0
