"""Reads a checkpoint's tensors as layers, in one number type on one device. Engine thread."""

import torch
from torch import Tensor

from hocket.server.model.checkpoint import Checkpoint
from hocket.server.model.layers import LayerNorm, RMSNorm
from hocket.server.model.linear import Linear
from hocket.server.model.transfer import to_device


class LayerReader:
    """Makes layers of named tensors and counts their numbers."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device
        self.parameters = 0

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the layers."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where the layers compute."""
        return self._device

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in the reader's type, on its device."""
        return self._placed(self.plain(name))

    def plain(self, name: str) -> Tensor:
        """Return a tensor as the checkpoint has it."""
        tensor = self._checkpoint.tensor(name)
        self.parameters += tensor.numel()
        return tensor

    def linear(
        self,
        *names: str,
        has_bias: bool,
        norm: Tensor | None = None,
        activation: str | None = None,
    ) -> Linear:
        """Return one layer that computes all of these side by side.

        Args:
            names: The layers, without `.weight`.
            has_bias: Whether they have biases.
            norm: Weight of a normalisation before them, as the checkpoint has it, which is folded
                into theirs before they are rounded.
            activation: What is applied to the product.
        """
        weight = torch.cat([self.plain(f"{name}.weight") for name in names])
        if norm is not None:
            weight = weight.float() * norm.float()
        bias = torch.cat([self.plain(f"{name}.bias") for name in names]) if has_bias else None
        return Linear(
            self._placed(weight),
            None if bias is None else self._placed(bias),
            activation=activation,
        )

    def rms_norm(self, name: str, size: int, epsilon: float) -> RMSNorm:
        """Return a root mean square normalisation of rows of `size` numbers."""
        return RMSNorm(size, epsilon, self.tensor(f"{name}.weight"))

    def layer_norm(self, name: str, epsilon: float) -> LayerNorm:
        """Return a layer normalisation."""
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), epsilon)

    def _placed(self, tensor: Tensor) -> Tensor:
        return to_device(tensor.to(self._dtype), self._device)
