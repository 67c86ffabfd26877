"""Rotary position embedding by halves (Su et al., RoFormer, 2021). Engine thread."""

import math

import torch
from torch import Tensor

from hocket.server.model.checkpoint import RopeScaling
from hocket.server.model.transfer import to_device


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Return the `head_dim / 2` angular frequencies, in radians for each position, as float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (theta**exponents)
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    return _llama3(frequencies, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Stretch low frequencies, keep high ones, blend between (Llama 3.1 model code)."""
    wavelengths = 2 * math.pi / frequencies
    context = scaling.original_context_tokens
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    blend = (context / wavelengths - low) / (high - low)
    between = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    stretched = torch.where(wavelengths > context / low, frequencies / scaling.factor, frequencies)
    is_between = (wavelengths <= context / low) & (wavelengths >= context / high)
    return torch.where(is_between, between, stretched)


class Rope:
    """Rotates queries and keys, by tables for all positions that a sequence can reach."""

    def __init__(
        self,
        frequencies: Tensor,
        *,
        max_positions: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        positions = torch.arange(max_positions, dtype=torch.float32)
        angles = torch.outer(positions, frequencies)
        sine = angles.sin()
        cosine = torch.cat((angles.cos(), angles.cos()), dim=-1).to(dtype)
        # The first half is rotated with a minus: folding the sign in saves an operation a layer.
        sine = torch.cat((-sine, sine), dim=-1).to(dtype)
        self._cosine, self._sine = to_device(cosine, device), to_device(sine, device)
        self._half = frequencies.shape[0]

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and signed sines, `[rows, 1, head_dim]`, for `[rows]` positions."""
        cosine = self._cosine.index_select(0, positions).unsqueeze(1)
        sine = self._sine.index_select(0, positions).unsqueeze(1)
        return cosine, sine

    def rotate(self, heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return `[rows, heads, head_dim]` rotated to its positions."""
        return torch.addcmul(heads * cosine, heads.roll(self._half, -1), sine)
