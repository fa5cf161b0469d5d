"""Dispersion of counts, and their share of zeros, against what the model predicts."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Binomial, Distribution, Poisson

from mlefw.distribution.precision import promote
from mlefw.distribution.truncated import Truncated
from mlefw.head.hurdle import Hurdle
from mlefw.head.negative_binomial import NegativeBinomial
from mlefw.head.zero_inflated import ZeroInflated
from mlefw.metric.base import Metric, sums


class Dispersion(Metric):
    """`dispersion`, and the share of zeros `zeros_observed` against its prediction `zeros_expected`.

    - `dispersion` = Σ w (y − mean)² / variance / Σ w (Pearson): 1 for a true model, above 1 where counts vary more
      than predicted. It divides by n rather than n − p, because on held-out rows no parameter was fitted.
    - `dispersion_se`: its standard error, estimated from the rows.
    - `dispersion_z`, `zeros_z`: deviation of the dispersion from 1, and of the share of zeros from its prediction, in
      standard errors of a true model, under which they are about standard normal.
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


def kurtosis(distribution: Distribution) -> Tensor:
    """Fourth central moment of a count over its squared variance, (n,); NaN where there is no formula for it."""
    known = moments(distribution)
    if known is None:
        return torch.full_like(distribution.mean, float("nan"))
    mean, second, third, fourth = known
    central = fourth - 4 * third * mean + 6 * second * mean.square() - 3 * mean**4
    return central / (second - mean.square()).square()


Moments = tuple[Tensor, Tensor, Tensor, Tensor]
"""The first four moments about zero of each row, each (n,)."""


@singledispatch
def moments(distribution: Distribution) -> Moments | None:
    """The first four moments about zero of a count; None where there is no formula for them."""
    return None


@moments.register(Poisson)
@moments.register(Binomial)
@moments.register(NegativeBinomial)
def _(distribution: Distribution) -> Moments:
    """From the cumulants of the negative binomial distribution, whose formulas hold for the other two as well."""
    mean, variance = promote(distribution.mean), promote(distribution.variance)
    ratio = variance / mean
    k3, k4 = variance * (2 * ratio - 1), variance * (1 + 6 * (ratio - 1) * ratio)
    second, third = variance + mean.square(), k3 + 3 * variance * mean + mean**3
    fourth = k4 + 4 * k3 * mean + 3 * variance.square() + 6 * variance * mean.square() + mean**4
    return mean, second, third, fourth


@moments.register
def _(distribution: Hurdle) -> Moments | None:
    if (known := moments(distribution.positive)) is None:
        return None
    first, second, third, fourth = (distribution.logits.sigmoid() * moment for moment in known)
    return first, second, third, fourth


@moments.register
def _(distribution: Truncated) -> Moments | None:
    """Only without zeros, which add nothing to the moments about zero."""
    known = moments(distribution.whole) if distribution.lower == 1 and distribution.upper is None else None
    if known is None:
        return None
    first, second, third, fourth = (moment / distribution.log_mass.exp() for moment in known)
    return first, second, third, fourth


@moments.register
def _(distribution: ZeroInflated) -> Moments | None:
    if (known := moments(distribution.counts)) is None:
        return None
    share = (-distribution.logits).sigmoid()
    first, second, third, fourth = known
    return share * first, share * second, share * third, share * fourth
