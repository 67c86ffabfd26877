"""The small layers between the linear ones. Engine thread."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]


def activation(name: str) -> Activation:
    """Return an activation by its name in `DecoderConfig`."""
    activations: dict[str, Activation] = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    }
    return activations[name]


class RMSNorm:
    """Root mean square normalisation (Zhang and Sennrich, 2019) over the last dimension."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight = weight
        self._shape = tuple(weight.shape)
        self._epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` normalised, in its own type; the sum is taken in float32."""
        return functional.rms_norm(x, self._shape, self._weight, self._epsilon)


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
