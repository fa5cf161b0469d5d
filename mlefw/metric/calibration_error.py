"""Expected calibration error, with the value a perfectly calibrated model would show."""

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

from mlefw.metric.base import Metric, histogram


class CalibrationError(Metric):
    """`ece_15` over 15 bins of equal width and `ece_null`, its expectation for a calibrated model of that sharpness.

    Bernoulli: bins of P(y = 1). Categorical: bins of the largest probability against whether that class is right
    (Guo et al., 2017). Bins are [a, b), the last one closed. The null is Σ (n_b / n) √(2 v_b / (π n_b)), v_b being
    the mean of p (1 − p) in bin b: the error is biased upwards, so it means nothing without it.
    """

    num_bins = 15
    counts: Tensor
    predicted: Tensor
    observed: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("counts", "predicted", "observed", "variance"):
            self.add_sum(name, self.num_bins)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        confidence, hit = confidence_and_hit(distribution, y)
        index = (confidence * self.num_bins).long().clamp(max=self.num_bins - 1)
        self.counts += histogram(index, weight, self.num_bins)
        self.predicted += histogram(index, weight * confidence, self.num_bins)
        self.observed += histogram(index, weight * hit, self.num_bins)
        self.variance += histogram(index, weight * confidence * (1 - confidence), self.num_bins)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population = self.counts.sum()
        error = (self.predicted - self.observed).abs().sum() / population
        null = torch.sqrt(2 / math.pi * self.variance).sum() / population
        return {"ece_15": error, "ece_null": null}


def confidence_and_hit(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """The probability that is binned, and what it forecasts (0 or 1), each (n,).

    Raises:
        TypeError: the distribution has no class probabilities.
    """
    if isinstance(distribution, Bernoulli):
        return distribution.probs, y.to(distribution.probs.dtype)
    if isinstance(distribution, Categorical):
        confidence, label = distribution.probs.max(-1)
        return confidence, (label == y).to(confidence.dtype)
    raise TypeError(f"no class probabilities in {type(distribution).__name__}")
