"""A decoder on torch alone: runs everywhere, and is what the kernels are checked against.

Engine thread.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hocket.server.engine.batch import Batch
from hocket.server.model.checkpoint import Architecture, Checkpoint
from hocket.server.model.decoder import Decoder
from hocket.server.model.gpt2 import GPT2
from hocket.server.model.inputs import build_inputs, padded
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.layer_reader import LayerReader
from hocket.server.model.network import Forward
from hocket.server.model.probe import is_row_invariant
from hocket.server.model.transfer import integers, to_host

_CPU = torch.device("cpu")


class EagerNetwork:
    """One torch operation after the other.

    A pass leaves nothing behind in it but what it wrote to the cache, so that several threads may
    compute with it, each on a cache of its own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        *,
        max_positions: int,
        device: torch.device = _CPU,
    ) -> None:
        """Read the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        config = checkpoint.config
        self._window = config.sliding_window if config.sliding_layers else None
        self._num_heads = config.num_heads
        self._config = config
        self._dtype = dtype
        self._device = device
        reader = LayerReader(checkpoint, dtype, device)
        self._model = (
            GPT2(reader, config)
            if config.architecture is Architecture.GPT2
            else Decoder(reader, config, max_positions=max_positions)
        )

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return self._model.parameters

    def is_row_invariant(self, block_size: int) -> bool:
        """Whether a row is computed the same in any company, bit by bit, as far as is tried.

        Args:
            block_size: Tokens in a block of the caches that it will compute on.
        """
        return is_row_invariant(
            self._model.linears,
            self._model.head,
            self._config,
            block_size=block_size,
            dtype=self._dtype,
            device=self._device,
        )

    def set_threads(self, count: int) -> None:
        """Let so many threads compute from now on, for all who compute on this thread."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, cache: KVCache) -> Forward:
        """Compute hidden states and write keys and values."""
        inputs = build_inputs(batch, cache, num_heads=self._num_heads, sliding_window=self._window)
        return Forward(hidden=self._model.forward(inputs, cache), rows=inputs.rows)

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """Return float32 logits of rows, padded like the rows of a step, in host memory."""
        filled = [*rows, *[rows[0]] * (padded(len(rows)) - len(rows))]
        (index,) = integers([filled], self._device)
        return to_host(self._model.logits(hidden.index_select(0, index)))
