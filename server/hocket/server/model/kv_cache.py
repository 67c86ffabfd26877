"""Keys and values of computed tokens, in blocks. Engine thread.

One tensor of keys and one of values for each layer, `[blocks, kv_heads, block_size, head_dim]`,
allocated and zeroed once: what is masked is still multiplied by zero, and 0 times NaN is NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hocket.server.model.transfer import integers, to_device, to_host


class KVCache:
    """Hot blocks on the device that computes, and a store of saved ones in host memory."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        block_size: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_blocks, num_kv_heads, block_size, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.num_blocks = num_blocks
        self.num_kv_heads = num_kv_heads
        self.block_size = block_size
        self.head_dim = head_dim
        self._device = device
        self._saved: dict[int, list[Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where the hot blocks lie."""
        return self._device

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All hot tensors."""
        return (*self.keys, *self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of all hot blocks."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def rows(self, blocks: Tensor, offsets: Tensor) -> Tensor:
        """Return where tokens are written, in a layer's flat view, as `[tokens * kv_heads]`.

        Args:
            blocks: `[tokens]`, the block of each token.
            offsets: `[tokens]`, its place in the block.
        """
        heads = torch.arange(self.num_kv_heads, device=self._device)
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
        (index,) = integers([blocks], self._device)
        self._saved[key] = [to_host(tensor.index_select(0, index)) for tensor in self.tensors]

    def load(self, key: int, blocks: Sequence[int]) -> None:
        """Copy what was kept under a key into blocks and forget it."""
        (index,) = integers([blocks], self._device)
        for tensor, saved in zip(self.tensors, self._saved.pop(key), strict=True):
            tensor.index_copy_(0, index, to_device(saved, self._device))

    def drop(self, key: int) -> None:
        """Forget what was kept under a key."""
        del self._saved[key]

    def clear(self, blocks: Sequence[int], start: int) -> None:
        """Zero what lies from a position on in blocks, so that no NaN stays behind in them."""
        first, offset = divmod(start, self.block_size)
        for tensor in self.tensors:
            for index, block in enumerate(blocks[first:]):
                tensor[block, :, offset if index == 0 else 0 :] = 0
