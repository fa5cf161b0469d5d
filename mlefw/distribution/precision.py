"""Where 64-bit floats exist, and the promotion to them."""

import torch
from torch import Tensor

FEW_COLUMNS = 64
"""Up to which it pays to have each of them contiguous."""


def widest(device: torch.device) -> torch.dtype:
    """The widest float of a device: 64 bit everywhere but on Apple's MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def promote(value: Tensor) -> Tensor:
    """`value` in the widest float of its device."""
    return value.to(widest(value.device))


def by_column(eta: Tensor) -> Tensor:
    """A matrix (n, columns) in the widest float, each of a few columns contiguous; anything else as it is."""
    if eta.ndim != 2:
        return eta
    if eta.shape[1] > FEW_COLUMNS:
        return promote(eta)
    # `to` with a memory format leaves a transposed tensor of the right type as it is.
    return promote(eta.mT).contiguous().mT
