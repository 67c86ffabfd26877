"""Weights in the form that the kernels read; see `source/dot.h`. Engine thread, at load."""

import torch
from torch import Tensor
from torch.nn import functional

from hocket.server.model.native.arena import Arena
from hocket.server.model.native.library import LinearStruct

LANES = 16  # output channels of a tile
_PANEL = 4  # tiles that lie side by side
GROUP = 64  # inputs that share a scale in int8
_INT8_MOST = 127
_INT8_OFFSET = 128


class PackedLinear:
    """A linear layer as the kernels read it.

    Attributes:
        struct: Points to the tensors that this object keeps alive.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        arena: Arena,
        is_int8: bool,
        is_gated: bool = False,
    ) -> None:
        """Pack weights.

        Args:
            weight: `[out_features, in_features]`; `in_features` a multiple of 64.
            bias: `[out_features]` or None.
            arena: Where they are put.
            is_int8: Round weights to int8, with a scale for each `GROUP` inputs of an output.
            is_gated: The first half of the outputs gates the second: their tiles alternate.
        """
        weight = weight.float()
        columns = [weight] if bias is None else [weight, bias.float()[:, None]]
        padded = [functional.pad(part, (0, 0, 0, -part.shape[0] % LANES)) for part in columns]
        if is_gated:
            padded = [_alternate(part) for part in padded]
        weight = padded[0]
        rows, inputs = weight.shape
        self._scales: Tensor | None = None
        self._bias = padded[1].flatten().contiguous() if bias is not None else None
        if is_int8:
            groups = weight.view(rows, -1, GROUP)
            scales = (groups.abs().amax(-1) / _INT8_MOST).clamp_min(1e-12).to(torch.bfloat16)
            whole = (groups / scales.float()[..., None]).round_().clamp_(-_INT8_MOST, _INT8_MOST)
            whole = (whole + _INT8_OFFSET).to(torch.uint8).view(rows, inputs)
            self._weight = arena.place(_panels(whole, inputs_together=4))
            self._scales = arena.place(_panels(scales, inputs_together=1))
        else:
            self._weight = arena.place(_panels(weight.to(torch.bfloat16), inputs_together=2))
        self.struct = LinearStruct(
            in_features=inputs,
            out_features=rows,
            is_int8=is_int8,
            weights=self._weight.data_ptr(),
            scales=None if self._scales is None else self._scales.data_ptr(),
            bias=None if self._bias is None else self._bias.data_ptr(),
        )


def _alternate(part: Tensor) -> Tensor:
    """Let the tiles of the first and of the second half of the rows alternate."""
    halves = part.view(2, -1, LANES, part.shape[1])
    return halves.transpose(0, 1).reshape(part.shape)


def _panels(weight: Tensor, *, inputs_together: int) -> Tensor:
    """Return `[out, in]` as panels one after the other, each `[in/n, tiles, 16, n]`, flat.

    A panel has `_PANEL` tiles; the last one may have fewer.
    """
    tiles = weight.view(-1, LANES, weight.shape[1] // inputs_together, inputs_together)
    panels = [panel.permute(2, 0, 1, 3).flatten() for panel in tiles.split(_PANEL)]
    return torch.cat(panels)
