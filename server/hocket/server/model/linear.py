"""Matrix products with constant weights. Engine thread.

A layer chooses its numeric path once, when it is made, and keeps it for every batch size: a row's
result must not depend on how many rows stand beside it. Rows are padded to a few sizes by
`inputs.py`, which bounds the number of kernels that oneDNN prepares and keeps results row by row
the same (below four rows float32 kernels differ in the last bit).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# oneDNN's names of what it can do with a product before it is rounded.
_FUSED = {"silu": ("swish", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


class Linear:
    """`x @ weight.T + bias`, with the weight packed for the processor where that is faster.

    What follows a product is computed with it where the packed form can, which saves rounding the
    product, writing it and reading it again.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None
    ) -> None:
        """Make a layer.

        Args:
            weight: `[out_features, in_features]`, in the number type and on the device that
                compute; may be dropped afterwards.
            bias: `[out_features]` or None.
            activation: What is applied to the product, by its name in `DecoderConfig`.
        """
        self.out_features, self.in_features = weight.shape
        self._bias = bias
        self._act = _ACTIVATIONS[activation] if activation else None
        self._fused = _FUSED[activation] if activation else ("none", "")
        self._is_packed = (
            weight.dtype is torch.bfloat16
            and weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
        )
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)  # noqa: SLF001 - the only way to pack
            if self._is_packed
            else weight.contiguous()
        )

    @property
    def is_packed(self) -> bool:
        """Whether the weight lies in the form that oneDNN reads fastest."""
        return self._is_packed

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[rows, out_features]` for `[rows, in_features]`."""
        if self._is_packed:
            name, algorithm = self._fused
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - reads the packed form
                x, self._weight, self._bias, name, [], algorithm
            )
            return packed
        product = functional.linear(x, self._weight, self._bias)
        return self._act(product) if self._act else product

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the product added to `other`, `[rows, out_features]`."""
        return self._with(x, other, "add") if self._is_packed else other + self(x)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the product times `other`, `[rows, out_features]`."""
        return self._with(x, other, "mul") if self._is_packed else other * self(x)

    def _with(self, x: Tensor, other: Tensor, operation: str) -> Tensor:
        if self._act:
            raise TypeError("a layer with an activation is combined. This is a bug.")
        combined: Tensor = torch.ops.mkldnn._linear_pointwise.binary(  # noqa: SLF001 - reads the packed form
            x, other, self._weight, self._bias, operation
        )
        return combined
