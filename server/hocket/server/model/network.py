"""A decoder as the runner sees it, whoever computes it. Engine thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hocket.server.engine.batch import Batch
from hocket.server.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What a forward pass brought.

    Attributes:
        hidden: `[rows or more, hidden_size]`, valid until the next pass.
        rows: For each slice of the batch, in its order, the rows of its tokens.
    """

    hidden: Tensor
    rows: tuple[Sequence[int], ...]


class Network(Protocol):
    """A decoder's weights and arithmetic; a row's result depends on its own sequence alone.

    Several threads may compute at once, each on a cache of its own, if each got its network from
    `Choice.network`.
    """

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        ...

    def set_threads(self, count: int) -> None:
        """Let so many threads compute from now on; called by the thread that computes."""
        ...

    def forward(self, batch: Batch, cache: KVCache) -> Forward:
        """Compute hidden states and write keys and values."""
        ...

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """Return `[rows or more, vocabulary or more]` float32 for rows of the newest pass."""
        ...
