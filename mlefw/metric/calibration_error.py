"""Expected calibration error (ECE), and its expectation for a calibrated model."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, class_probabilities, confidence_and_hit, histogram

NUM_BINS = 15


class CalibrationError(Metric):
    """`ece_15` over 15 bins of equal width, its expectation `ece_null` if calibrated, and an unbiased `ece_debiased`.

    Bernoulli: bins of P(y = 1). Categorical: bins of the largest probability, t being whether that class is the label
    (Guo et al., 2017). Bins are [a, b), the last one closed; p̄ and t̄ are means in bin b, n_b is Σ w in it.

    - `ece_15` = Σ (n_b / n) |p̄ − t̄|, which is biased upwards: compare it with `ece_null`.
    - `ece_null` = Σ (n_b / n) √(2 v_b / (π n_b)), v_b the mean of p (1 − p): the expectation of `ece_15` for a
      calibrated model with these probabilities.
    - `ece_debiased` = Σ (n_b / n) [(p̄ − t̄)² − t̄ (1 − t̄) / (n_b − 1)], the *squared* l2 error without its bias
      (Kumar et al., 2019): zero on average for a calibrated model, hence negative half of the time.
    """

    num_bins = NUM_BINS
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
        weight = promote(weight)
        index = (confidence * self.num_bins).long().clamp(max=self.num_bins - 1)
        share = weight * confidence
        self.counts = self.counts + histogram(index, weight, self.num_bins)
        self.predicted = self.predicted + histogram(index, share, self.num_bins)
        self.observed = self.observed + histogram(index, weight * hit, self.num_bins)
        self.variance = self.variance + histogram(index, share * (1 - confidence), self.num_bins)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population = self.counts.sum()
        gap = self.predicted - self.observed
        count = self.counts.clamp(min=torch.finfo(self.counts.dtype).tiny)
        spread = torch.where(self.counts > 1, self.observed * (1 - self.observed / count) / (count - 1), 0.0)
        return {
            "ece_15": gap.abs().sum() / population,
            "ece_null": expected_error(self.variance).sum() / population,
            "ece_debiased": (gap.square() / count - spread).sum() / population,
        }


class ClasswiseError(Metric):
    """`ece_classwise_15`: mean over classes of the calibration error of P(y = k); `ece_classwise_null` its expectation.

    Σ_k Σ_b (n_kb / n) |p̄_kb − t̄_kb| / K over 15 bins of equal width (Kull et al., 2019); `ece_classwise_null` is its
    expectation for a calibrated model.

    Args:
        num_classes: K.
    """

    predicted: Tensor
    observed: Tensor
    square: Tensor
    population: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("predicted", "observed", "square"):
            self.add_sum(name, num_classes * NUM_BINS)
        self.add_sum("population")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        probs, weight, size = class_probabilities(distribution, y), promote(weight), self.num_classes * NUM_BINS
        first = NUM_BINS * torch.arange(self.num_classes, device=probs.device)
        index = (probs * NUM_BINS).long().clamp(max=NUM_BINS - 1).add_(first)
        place, share = _in_memory_order(index), weight.unsqueeze(-1) * probs
        self.predicted = self.predicted + histogram(place, _in_memory_order(share), size)
        self.square = self.square + histogram(place, _in_memory_order(share.mul_(probs)), size)
        self.observed = self.observed + histogram(index.gather(-1, y.unsqueeze(-1)).squeeze(-1), weight, size)
        self.population = self.population + weight.sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        total = self.population * self.num_classes
        error = (self.predicted - self.observed).abs().sum() / total
        null = expected_error((self.predicted - self.square).clamp(min=0)).sum() / total
        return {"ece_classwise_15": error, "ece_classwise_null": null}


def _in_memory_order(table: Tensor) -> Tensor:
    """The numbers of a table in memory order: with few classes, the columns are contiguous."""
    return (table.mT if table.mT.is_contiguous() else table).flatten()


def expected_error(variance: Tensor) -> Tensor:
    """E|Σ w (t − p)| of each bin for a calibrated model, from the bin's Σ w p (1 − p), in the normal limit."""
    return torch.sqrt(2 / math.pi * variance)
