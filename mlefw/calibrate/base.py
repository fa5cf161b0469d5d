"""What a recalibration is: a map of predictive distributions, fitted after training on rows held out from it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from mlefw.distribution.precision import promote
from mlefw.errors import UsageError
from mlefw.head.base import Head

RANGE = (0.05, 20.0)
"""Bounds of a factor on logits or scales: what a few rows may say beyond them is not believed."""


class Calibration(nn.Module, ABC):
    """Takes the distribution that a head predicts to one that is better calibrated; all its state is float64 buffers.

    A concrete one registers its buffers at values that change nothing.
    """

    takes: ClassVar[str]
    """The heads that it is for, in words."""

    min_rows: int = 1

    @abstractmethod
    def fits(self, distribution: Distribution) -> bool:
        """Whether it is for distributions of this kind."""

    @abstractmethod
    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Choose the map that minimises the NLL of rows: batch shape (n,), y (n,), weight (n,) as frequencies."""

    @abstractmethod
    def forward(self, distribution: Distribution) -> Distribution:
        """The recalibrated distribution, of the same batch shape."""

    def figures(self) -> dict[str, float]:
        """The map in a few numbers, by name."""
        return {name: float(value) for name, value in self.named_buffers() if value.ndim == 0}

    def floor(self, floor: Tensor) -> Tensor:
        """Where the lowest scale of a head comes to lie, a scalar."""
        return floor

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over buffers, which may be of another length than before.

        Raises:
            UsageError: they are not those of this map.
        """
        for name, value in self.named_buffers():
            new = state.get(name)
            if new is None or new.ndim != value.ndim or new.dtype != value.dtype or not bool(new.isfinite().all()):
                raise UsageError(
                    f"{type(self).__name__}: the stored {name!r} is not one: expected finite 64-bit floats"
                )
            setattr(self, name, new.detach().clone())


class CalibratedHead(Head):
    """A trained head and the recalibration of what it predicts; for evaluation, not for training."""

    def __init__(self, head: Head, calibration: Calibration) -> None:
        super().__init__(head.eta_names, head.shared_names, head.start)
        self.head, self.calibration = head, calibration
        self.center, self.gain, self.floor = head.center, head.gain, calibration.floor(head.floor)
        self.shared = head.shared
        self.support, self.event_shape = head.support, head.event_shape
        self.num_classes: int | None = getattr(head, "num_classes", None)

    @property
    def log_link(self) -> bool:
        """That of the head."""
        return self.head.log_link

    def distribution(self, eta: Tensor) -> Distribution:
        """The recalibrated distribution for a complete eta."""
        return self.calibration(self.head.distribution(eta))


def logit(distribution: Distribution) -> Tensor:
    """Log-odds of a Bernoulli distribution, (n,), in the widest float."""
    assert isinstance(distribution, Bernoulli)
    return promote(distribution.logits)


def scalar(value: float) -> Tensor:
    """A number as a buffer."""
    return torch.tensor(value, dtype=torch.float64)
