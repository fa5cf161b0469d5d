"""Learning rates in tensors, from which recorded and compiled optimiser steps read them, so that they may change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer


class Rates:
    """The learning rate of each parameter group of an optimiser in a scalar tensor, which is filled in place.

    A recorded step holds Python numbers fixed, and would have to be recorded anew whenever a learning rate changes.

    Args:
        dtype: of the tensors on a device; on a CPU they are float64. Fused optimisers of torch read float32 on CUDA.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.tensors: list[Tensor] = []
        self.known: list[float] = []
        self.is_exact = True

    def fill(self, optimizer: Optimizer) -> bool:
        """Copy the present learning rates to the tensors; whether they hold them without rounding."""
        now = [float(group["lr"]) for group in optimizer.param_groups]
        if now != self.known:
            if len(now) != len(self.tensors):
                device = optimizer.param_groups[0]["params"][0].device
                dtype = torch.float64 if device.type == "cpu" else self.dtype
                self.tensors = [torch.zeros((), dtype=dtype, device=device) for _ in now]
            for rate, value in zip(self.tensors, now, strict=True):
                rate.fill_(value)
            self.known = now
            self.is_exact = all(float(torch.tensor(value, dtype=self.tensors[0].dtype)) == value for value in now)
        return self.is_exact

    @contextmanager
    def read_by(self, optimizer: Optimizer) -> Iterator[None]:
        """Let the optimiser read its learning rates from the tensors within the block."""
        numbers = [group["lr"] for group in optimizer.param_groups]
        try:
            for group, rate in zip(optimizer.param_groups, self.tensors, strict=True):
                group["lr"] = rate
            yield
        finally:
            for group, number in zip(optimizer.param_groups, numbers, strict=True):
                group["lr"] = number
