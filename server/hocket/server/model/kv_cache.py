"""Keys and values of computed tokens, in blocks. Engine thread.

Keys and values of each layer are `[blocks, kv_heads, block_size, head_dim]`, parts of one tensor,
allocated and zeroed once: what is masked is still multiplied by zero, and 0 times NaN is NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hocket.server.model.transfer import integers, to_device, to_host

_KEY_TILE, _VALUE_TILE = 16, 2  # tokens whose numbers alternate in the kernels' form


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
        is_tiled: bool = False,
    ) -> None:
        """Allocate the hot blocks.

        Args:
            num_layers: Layers of the model.
            num_blocks: Hot blocks.
            num_kv_heads: Key and value heads.
            block_size: Tokens of a block.
            head_dim: Numbers of a head's key or value.
            dtype: Their type.
            device: Where the hot blocks lie.
            is_tiled: The kernels lay out each head's part of a block, in the form that
                `native/source/attention.h` tells; without it rows are tokens.
        """
        shape = (2, num_layers, num_blocks, num_kv_heads, block_size, head_dim)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        self.keys, self.values = (list(part) for part in self.memory)
        self.num_blocks = num_blocks
        self.num_kv_heads = num_kv_heads
        self.block_size = block_size
        self.head_dim = head_dim
        self._device = device
        self._is_tiled = is_tiled
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
        return self.memory.nbytes

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
        for keys, values in zip(self.keys, self.values, strict=True):
            for block in blocks[first + 1 :]:
                keys[block] = 0
                values[block] = 0
            for block in blocks[first : first + 1]:
                self._clear_from(keys[block], offset, _KEY_TILE)
                self._clear_from(values[block], offset, _VALUE_TILE)

    def _clear_from(self, part: Tensor, offset: int, tile: int) -> None:
        """Zero the tokens of a block from one on, `[kv_heads, block_size, head_dim]`."""
        if not self._is_tiled:
            part[:, offset:] = 0
            return
        # Keys are `[S/16][D/2][16][2]`, values `[S/2][D][2]`: tokens of a tile lie side by side.
        numbers = 2 if tile == _KEY_TILE else 1  # of a token that lie together
        tiles = part.view(self.num_kv_heads, -1, self.head_dim // numbers, tile, numbers)
        index, place = divmod(offset, tile)
        tiles[:, index, :, place:] = 0
        tiles[:, index + 1 :] = 0
