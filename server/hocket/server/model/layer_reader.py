"""Reads a checkpoint's tensors as layers, in one number type. Engine thread, at load."""

import torch
from torch import Tensor

from hocket.server.model.checkpoint import Checkpoint
from hocket.server.model.layers import LayerNorm, RMSNorm
from hocket.server.model.linear import Linear


class LayerReader:
    """Makes layers of named tensors and counts their numbers."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self.parameters = 0

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in the reader's type."""
        tensor = self._checkpoint.tensor(name)
        self.parameters += tensor.numel()
        return tensor.to(self._dtype)

    def linear(self, *names: str, has_bias: bool) -> Linear:
        """Return one layer that computes all of these side by side."""
        weight = torch.cat([self.tensor(f"{name}.weight") for name in names])
        bias = torch.cat([self.tensor(f"{name}.bias") for name in names]) if has_bias else None
        return Linear(weight, bias)

    def rms_norm(self, name: str, epsilon: float) -> RMSNorm:
        """Return a root mean square normalisation."""
        return RMSNorm(self.tensor(f"{name}.weight"), epsilon)

    def layer_norm(self, name: str, epsilon: float) -> LayerNorm:
        """Return a layer normalisation."""
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), epsilon)
