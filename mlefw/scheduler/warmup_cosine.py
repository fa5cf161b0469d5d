"""A learning rate that rises over some steps, and falls to zero along a cosine."""

import math

from torch.optim import Optimizer

from mlefw.errors import UsageError
from mlefw.scheduler.base import StepScheduler


class WarmupCosine(StepScheduler):
    """The learning rate rises linearly over the first steps, and then falls to zero along half a cosine.

    In step k, counted from 0, of n steps with w of warm-up its factor is (k + 1) / w for k < w, and then
    (1 + cos(π (k − w) / (n − w))) / 2 (Loshchilov & Hutter, 2017). Warm-up takes at most half of all steps.

    Args:
        optimizer: the optimiser whose learning rates are scaled.
        num_steps: number of optimiser steps of the whole training.
        warmup: number of steps of warm-up.

    Raises:
        UsageError: the warm-up is negative.
    """

    def __init__(self, optimizer: Optimizer, num_steps: int, warmup: int = 100) -> None:
        if warmup < 0:
            raise UsageError(f"scheduler.warmup={warmup}: expected a whole number of steps of at least 0")
        self.warmup = min(warmup, num_steps // 2)
        super().__init__(optimizer, num_steps)

    def factor(self, step: int) -> float:
        """The factor of the learning rate in a step, from 0 to 1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.num_steps - self.warmup))) / 2
