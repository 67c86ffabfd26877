"""All copies between host memory and the device that computes. Engine thread."""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of host memory on the device; itself where that is the processor."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """Return a tensor in host memory, once it is complete; itself where it lies there."""
    return tensor.cpu()


def integers(lists: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
    """Return each list as a tensor on the device, `[its length]` int64: one copy for all."""
    flat = torch.tensor([value for values in lists for value in values], dtype=torch.int64)
    return list(to_device(flat, device).split([len(values) for values in lists]))
