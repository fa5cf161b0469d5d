"""`StepScheduler`, the interface of a learning-rate scheduler that is stepped after each optimiser step."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StepScheduler(LRScheduler, ABC):
    """Multiplies the learning rate by a function of the number of optimiser steps.

    Any other scheduler of torch is stepped once an epoch.

    Args:
        optimizer: the optimiser whose learning rates are scaled.
        num_steps: number of optimiser steps of the whole training, by `trainer.max_epochs` or `trainer.max_steps`.
    """

    def __init__(self, optimizer: Optimizer, num_steps: int) -> None:
        self.num_steps = num_steps
        super().__init__(optimizer)

    @abstractmethod
    def factor(self, step: int) -> float:
        """The factor of the learning rate in a step, counted from 0; `num_steps` after the last one.

        It has to depend on its argument alone, so that a resumed run continues as an uninterrupted one.
        """

    def get_lr(self) -> list[Any]:
        """The learning rate of each parameter group in the next step.

        It is rounded to 32 bit: devices that read a changing rate from memory hold it so, and results must not depend
        on whether a step is recorded.
        """
        factor = self.factor(min(self.last_epoch, self.num_steps))
        return [float(np.float32(float(base) * factor)) for base in self.base_lrs]
