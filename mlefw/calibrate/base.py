"""`Calibration`, the interface of a recalibration, and the head that applies one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from mlefw.distribution.precision import promote
from mlefw.errors import UsageError
from mlefw.head.base import Head

RANGE = (0.05, 20.0)
"""Bounds of a factor on logits or scales, so that a few rows cannot lead to an extreme one."""


class Calibration(nn.Module, ABC):
    """A map from the distribution that a head predicts to a better calibrated one, fitted on held-out rows.

    Its whole state is float64 buffers, which a concrete class registers with the values of the identity map.
    """

    takes: ClassVar[str]
    """The heads that the recalibration is for, in words, for messages."""

    changes_density: ClassVar[bool] = True
    """Whether the map changes the density, and so the NLL, and not only intervals and quantiles."""

    min_rows: int = 1
    """Least number of validation rows to fit the map on."""

    @abstractmethod
    def fits(self, distribution: Distribution) -> bool:
        """Whether the recalibration applies to distributions of this kind."""

    def check_rows(self, weight: Tensor) -> None:
        """Check the weights of the validation rows, (n, *positions), before training; by default all are taken.

        Raises:
            UsageError: the map cannot be fitted on such rows.
        """

    def check_mixture(self, out_of_fold: bool) -> None:
        """Check that recalibrated models may be mixed; by default they may, each by its own map.

        Args:
            out_of_fold: whether all rows are shared out, each as a validation row of one of the models.

        Raises:
            UsageError: the mixture would not be what the recalibration says.
        """

    def warn_of(self, levels: Sequence[float], quantiles: Sequence[float]) -> None:
        """Warn of levels of intervals and probabilities of quantiles that are asked for and for which the map has too
        few rows; by default of none.
        """

    @abstractmethod
    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit the map that minimises the NLL of the rows: batch shape (n,), y (n,), weight (n,) as frequencies."""

    @abstractmethod
    def forward(self, distribution: Distribution) -> Distribution:
        """The recalibrated distribution, with the batch shape of the given one."""

    def figures(self) -> dict[str, float]:
        """Figures that describe the map, by name, for `summary.json`."""
        return {name: float(value) for name, value in self.named_buffers() if value.ndim == 0}

    def floor(self, floor: Tensor) -> Tensor:
        """The least scale after recalibration, a scalar, from the floor of the head."""
        return floor

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the buffers from a stored state; their lengths may differ from the present ones.

        Raises:
            UsageError: a buffer is missing, or has another number of dimensions or type, or is not finite.
        """
        for name, value in self.named_buffers():
            new = state.get(name)
            if new is None or new.ndim != value.ndim or new.dtype != value.dtype or not bool(new.isfinite().all()):
                raise UsageError(
                    f"{type(self).__name__}: the stored {name!r} is damaged: expected finite 64-bit floats"
                )
            setattr(self, name, new.detach().clone())


class CalibratedHead(Head):
    """A trained head followed by a recalibration of its distribution; for evaluation, not for training."""

    def __init__(self, head: Head, calibration: Calibration) -> None:
        super().__init__(head.eta_names, head.shared_names, head.start)
        self.head, self.calibration = head, calibration
        self.center, self.gain, self.floor = head.center, head.gain, calibration.floor(head.floor)
        self.shared = head.shared
        self.support, self.event_shape = head.support, head.event_shape
        self.num_classes: int | None = getattr(head, "num_classes", None)
        self.takes_trials = head.takes_trials
        if hasattr(head, "levels"):
            self.levels = head.levels

    @property
    def log_link(self) -> bool:
        """Whether the first eta of the head is a logarithm."""
        return self.head.log_link

    def as_target(self, y: Tensor) -> Tensor:
        """A target as the likelihood of the trained head takes it."""
        return self.head.as_target(y)

    def distribution(self, eta: Tensor) -> Distribution:
        """The recalibrated distribution for a complete eta."""
        return self.calibration(self.head.distribution(eta))


def logit(distribution: Distribution) -> Tensor:
    """Log-odds of a Bernoulli distribution, (n,), in the widest float."""
    assert isinstance(distribution, Bernoulli)
    return promote(distribution.logits)


def scalar(value: float) -> Tensor:
    """A float64 scalar, for a buffer."""
    return torch.tensor(value, dtype=torch.float64)
