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
from hocket.server.model.network import Forward


class EagerNetwork:
    """One torch operation after the other.

    A pass leaves nothing behind in it but what it wrote to the cache, so that several threads may
    compute with it, each on a cache of its own.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, *, max_positions: int) -> None:
        """Read the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        config = checkpoint.config
        self._window = config.sliding_window if config.sliding_layers else None
        self._model = (
            GPT2(checkpoint, dtype)
            if config.architecture is Architecture.GPT2
            else Decoder(checkpoint, dtype, max_positions=max_positions)
        )

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return self._model.parameters

    def forward(self, batch: Batch, cache: KVCache) -> Forward:
        """Compute hidden states and write keys and values."""
        inputs = build_inputs(batch, cache, sliding_window=self._window)
        return Forward(hidden=self._model.forward(inputs, cache), rows=inputs.rows)

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """Return float32 logits of rows, padded like the rows of a step."""
        filled = [*rows, *[rows[0]] * (padded(len(rows)) - len(rows))]
        return self._model.logits(hidden.index_select(0, torch.tensor(filled)))
