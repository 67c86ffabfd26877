"""Matrix products with constant weights. Engine thread.

A layer chooses its numeric path once, when it is made, and keeps it for every batch size: a row's
result must not depend on how many rows stand beside it. Rows are padded to a few sizes by
`inputs.py`, which bounds the number of kernels that oneDNN prepares and keeps results row by row
the same (below four rows float32 kernels differ in the last bit).
"""

import torch
from torch import Tensor
from torch.nn import functional


class Linear:
    """`x @ weight.T + bias`, with the weight packed for the processor where that is faster."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Make a layer.

        Args:
            weight: `[out_features, in_features]`, float32 or bfloat16; may be dropped afterwards.
            bias: `[out_features]` or None.
        """
        self.out_features, self.in_features = weight.shape
        self._bias = bias
        self._is_packed = weight.dtype is torch.bfloat16 and torch.backends.mkldnn.is_available()
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)  # noqa: SLF001 - the only way to pack
            if self._is_packed
            else weight.contiguous()
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[rows, out_features]` for `[rows, in_features]`."""
        if self._is_packed:
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - reads the packed form
                x, self._weight, self._bias, "none", [], ""
            )
            return packed
        return functional.linear(x, self._weight, self._bias)
