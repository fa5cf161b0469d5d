"""Whether counts vary as much, and are as often zero, as predicted."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Poisson

from mlefw.distribution.precision import promote
from mlefw.head.negative_binomial import NegativeBinomial
from mlefw.head.zero_inflated import ZeroInflated
from mlefw.metric.base import Metric, sums


class Dispersion(Metric):
    """`dispersion`, and the share of zeros: `zeros_observed`, and `zeros_expected` by the predictions.

    The dispersion is Pearson's Σ w (y − mean)² / variance / Σ w. It divides by n, not n − p: a metric does not know
    the number of parameters, and on rows that were not trained on none were fitted. One is right; above it the counts
    vary more than predicted.

    `dispersion_se` is its standard error as the rows have it. `dispersion_z` and `zeros_z` are the excess of the
    dispersion and of the share of zeros in the standard errors that a true model has: about standard normal then.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 7)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        pearson = (y - distribution.mean).square() / distribution.variance
        none = promote(distribution.log_prob(torch.zeros_like(y))).exp()
        spread = kurtosis(distribution) - 1
        columns = (pearson, y == 0, none, pearson.square(), spread, none * (1 - none))
        self.totals = self.totals + sums(weight, *columns)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population = self.totals[0]
        pearson, observed, expected, square, spread, none = self.totals[1:] / population
        figures = {"dispersion": pearson, "zeros_observed": observed, "zeros_expected": expected}
        figures["dispersion_se"] = ((square - pearson.square()).clamp(min=0) / population).sqrt()
        figures["dispersion_z"] = (pearson - 1) / (spread / population).sqrt()
        figures["zeros_z"] = (observed - expected) / (none / population).sqrt()
        return figures


@singledispatch
def kurtosis(distribution: Distribution) -> Tensor:
    """Fourth central moment of a count over its squared variance, (n,); not a number where it is not known here."""
    return torch.full_like(distribution.mean, float("nan"))


@kurtosis.register(Poisson)
@kurtosis.register(NegativeBinomial)
@kurtosis.register(ZeroInflated)
def _(distribution: Distribution) -> Tensor:
    mean, second, third, fourth = _moments(distribution)
    central = fourth - 4 * third * mean + 6 * second * mean.square() - 3 * mean**4
    return central / (second - mean.square()).square()


def _moments(distribution: Distribution) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first four moments about zero, by the cumulants of a negative binomial: a Poisson has no dispersion."""
    if isinstance(distribution, ZeroInflated):
        share = (-distribution.logits).sigmoid()
        first, second, third, fourth = _moments(distribution.counts)
        return share * first, share * second, share * third, share * fourth
    mean, variance = promote(distribution.mean), promote(distribution.variance)
    ratio = variance / mean
    k3, k4 = variance * (2 * ratio - 1), variance * (1 + 6 * (ratio - 1) * ratio)
    second, third = variance + mean.square(), k3 + 3 * variance * mean + mean**3
    fourth = k4 + 4 * k3 * mean + 3 * variance.square() + 6 * variance * mean.square() + mean**4
    return mean, second, third, fourth
