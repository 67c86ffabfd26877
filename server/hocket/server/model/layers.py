"""The small layers between the linear ones. Engine thread."""

import torch
from torch import Tensor
from torch.nn import functional


class RMSNorm:
    """Root mean square normalisation (Zhang and Sennrich, 2019) over the last dimension.

    Written out: torch's own is a composition of more operations.
    """

    def __init__(self, size: int, epsilon: float, weight: Tensor | None) -> None:
        """Make one.

        Args:
            size: Numbers in a row.
            epsilon: Added to the mean of the squares.
            weight: `[size]`; None where the layer that reads the result has it in its own weight.
        """
        self._share = 1.0 / size
        self._epsilon = epsilon
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` normalised, in its own type; computed in float32."""
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        factor = length.square_().mul_(self._share).add_(self._epsilon).rsqrt_()
        # The first product may not be in place where `wide` is `x` itself.
        normal = (wide * factor if wide is x else wide.mul_(factor)).to(x.dtype)
        return normal if self._weight is None else normal * self._weight


class LayerNorm:
    """Layer normalisation (Ba et al., 2016) over the last dimension."""

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._weight = weight
        self._bias = bias
        self._shape = tuple(weight.shape)
        self._epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` normalised, in its own type."""
        return functional.layer_norm(x, self._shape, self._weight, self._bias, self._epsilon)
