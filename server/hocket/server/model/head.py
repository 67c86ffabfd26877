"""The output head: from hidden states to logits. Engine thread."""

import torch
from torch import Tensor

from hocket.server.model.linear import Linear

_RESCORED = 64  # likeliest tokens of a row whose logits are computed again in float32


class OutputHead:
    """Logits in float32.

    A product in bfloat16 rounds them to 8 bits, by which likely tokens often tie. So the likeliest
    are computed a second time, on the same weights in float32.
    """

    def __init__(self, weight: Tensor) -> None:
        """Make a head of `[vocabulary, hidden_size]` weights, which are kept."""
        self._weight = weight
        self._linear = Linear(weight)
        self._count = min(_RESCORED, weight.shape[0])

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `[rows, vocabulary]` float32 for `[rows, hidden_size]`."""
        logits = self._linear(hidden)
        if logits.dtype is torch.float32:
            return logits
        logits = logits.float()
        likeliest = logits.topk(self._count, dim=-1).indices
        weights = self._weight[likeliest].float()
        exact = torch.bmm(weights, hidden.float().unsqueeze(-1)).squeeze(-1)
        return logits.scatter_(1, likeliest, exact)

    def stretch(self, count: int) -> "OutputHead":
        """Return a head of the first `count` tokens of the vocabulary alone."""
        return OutputHead(self._weight[:count])
