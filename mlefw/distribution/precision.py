"""Promotion of tensors to the widest float of their device."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

FEW_COLUMNS = 64
"""Number of eta columns up to which contiguous columns make elementwise work faster than contiguous rows."""


def widest(device: torch.device) -> torch.dtype:
    """The widest float type of a device: float64, but float32 on Apple's MPS."""
    return torch.float32 if device.type == "mps" else torch.float64


def promote(value: Tensor) -> Tensor:
    """`value` in the widest float of its device."""
    return value.to(widest(value.device))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switches autocast off on a device, if it has autocast at all."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def is_mixed_precision(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def by_column(eta: Tensor) -> Tensor:
    """A matrix (n, columns) in the widest float, with contiguous columns if they are few; other shapes unchanged."""
    if eta.ndim != 2:
        return eta
    if eta.shape[1] > FEW_COLUMNS:
        return promote(eta)
    # `to` with a memory format leaves a transposed tensor of the right type as it is.
    return promote(eta.mT).contiguous().mT
