"""Numbers of a loss, such as the amount of label smoothing, that differ within a group: tensors in a step of all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mlefw.loss.base import Loss


def differing(losses: Sequence[Loss], device: torch.device) -> dict[str, Tensor]:
    """The numbers in which M losses of one kind differ, (M,) each, by the names of their attributes."""
    found = {}
    for name, value in vars(losses[0]).items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            values = [float(getattr(loss, name)) for loss in losses]
            if len({*values}) > 1:
                found[name] = torch.tensor(values, dtype=torch.float64, device=device)
    return found


@contextmanager
def set_to(loss: Loss, numbers: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a loss compute with these numbers, scalars, while the block runs."""
    usual = {name: getattr(loss, name) for name in numbers}
    try:
        for name, number in numbers.items():
            setattr(loss, name, number)
        yield
    finally:
        for name, value in usual.items():
            setattr(loss, name, value)
