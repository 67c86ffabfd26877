"""The same products through the libraries that torch can call: rows rounded or cast in the time.

zentorch is measured where it is installed beside the torch that it was made for; elsewhere it is
reported as absent.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def onednn_bfloat16(weight: Tensor) -> Product:
    """Return a product with a weight that oneDNN packed."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), 32)  # noqa: SLF001 - the only way to pack

    def product(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # noqa: SLF001 - reads the packed form
        return result

    return product


def onednn_int8(weight: Tensor) -> Product:
    """Return a product in oneDNN's int8: a scale for each output and one for each row.

    Activations are unsigned with zero at 128; signed ones run through a reference that is hundreds
    of times slower on processors without AMX.
    """
    whole, scales = _rounded(weight)
    packed = torch.ops.onednn.qlinear_prepack(whole, None)
    zeros = torch.zeros(len(weight), dtype=torch.int32)

    def product(x: Tensor) -> Tensor:
        size = x.abs().amax(1, keepdim=True).float().div_(127).clamp_(min=1e-12)
        rounded = torch.add(x / size, 128).round_().to(torch.uint8)
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return result.mul_(size)

    return product


def zentorch_int8(weight: Tensor) -> Product:
    """Return a product in zentorch's int8, which has the same scales.

    Raises:
        ImportError: zentorch is not installed, or not for this torch.
    """
    importlib.import_module("zentorch")
    whole, scales = _rounded(weight)
    ops: Any = torch.ops.zentorch
    packed = ops.zentorch_weight_prepack_for_dynamic_qlinear(whole)

    def product(x: Tensor) -> Tensor:
        result: Tensor = ops.zentorch_dynamic_qlinear(
            x, packed, scales, None, is_weight_prepacked=True
        )
        return result

    return product


LIBRARIES: dict[str, Callable[[Tensor], Product]] = {
    "bfloat16, oneDNN": onednn_bfloat16,
    "int8, oneDNN": onednn_int8,
    "int8, zentorch": zentorch_int8,
}


def rates(
    make: Callable[[Tensor], Product], outputs: int, inputs: int, rows: tuple[int, ...], size: int
) -> Iterator[tuple[int, float]]:
    """Yield billions of operations a second for each number of rows.

    Args:
        make: One of `LIBRARIES`.
        outputs: Of the layer.
        inputs: Of the layer.
        rows: Numbers of rows.
        size: Bytes of weights that are multiplied by turns.

    Raises:
        ImportError: The library is not there.
    """
    weight = torch.randn(outputs, inputs) / inputs**0.5
    layers = [make(weight) for _ in range(max(1, size // (outputs * inputs)))]
    for count in rows:
        x = torch.randn(count, inputs, dtype=torch.bfloat16)
        found = []
        for _ in range(_TURNS + 1):
            begun = time.perf_counter()
            for layer in layers:
                layer(x)
            found.append(time.perf_counter() - begun)
        operations = 2.0 * outputs * inputs * count * len(layers)
        yield count, operations / statistics.median(found[1:]) / 1e9


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1).float().div_(127).clamp_(min=1e-12)
    return (weight / scales[:, None]).round_().to(torch.int8), scales


_TURNS = 5
"""After one that warms up."""
