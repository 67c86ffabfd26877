"""Whether torch's products give a row the same result in any company. Engine thread, at load.

Which tokens a sequence is given should not hang on what stands beside it. The layers are made so
that it does not, as far as the libraries below them keep to one order of summation. No document
promises that, so it is tried on the model's own layers. It takes milliseconds.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from hocket.server.model.linear import Linear
from hocket.server.model.transfer import to_device

_ROWS = 64
_COMPANIES = (4, 8, 12, 16, 24, 32, 48)  # the fewest rows that are ever computed at once, and more
_QUERIES = 16  # the same for attention over prompts


def is_row_invariant(
    linears: Iterable[Linear], *, head_dim: int, dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether rows come out bit by bit the same, however many are computed at once.

    Args:
        linears: Layers of a model, one of each shape.
        head_dim: Numbers in a head.
        dtype: Number type that it computes in.
        device: Where it computes.
    """
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return to_device(torch.randn(shape, generator=generator).to(dtype), device)

    for linear in linears:
        x = numbers(_ROWS, linear.in_features)
        together = linear(x)
        if not all(torch.equal(linear(x[:count]), together[:count]) for count in _COMPANIES):
            return False
    keys, queries = numbers(3, _ROWS, head_dim), numbers(3, _ROWS, head_dim)
    together = torch.bmm(queries, keys.transpose(1, 2))
    few = torch.bmm(queries[:, :_QUERIES], keys.transpose(1, 2))
    alone = torch.bmm(queries[:1], keys[:1].transpose(1, 2))
    return torch.equal(few, together[:, :_QUERIES]) and torch.equal(alone, together[:1])
