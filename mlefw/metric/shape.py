"""In which way continuous predictive distributions have the wrong shape."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.cdf import cdf, survival
from mlefw.distribution.rank_correlation import rank_correlation
from mlefw.metric.base import Metric, normal_scores, sums

_FARTHEST = 4.0
"""Where scores are cut, so that no single row decides a moment: beyond it lies one row in 16 000 of a true model."""


class Shape(Metric):
    """Moments of the normal scores u = Φ⁻¹(F(y)), standard normal under a true model (Dunn & Smyth, 1996), cut at ± 4.

    - `residual_mean`: mean of u; above zero observations lie higher than predicted.
    - `residual_skewness`, `residual_kurtosis`: third standardised moment of u, and fourth minus 3; above zero for a
      longer upper tail, and for heavier tails, than predicted.
    - `spread_trend`: Spearman's correlation of |u| with the predicted mean; above zero where the spread grows with the
      mean more than predicted. From sums it is Pearson's; 0 where one of the two does not vary.

    At the end of a run, from all rows at once:

    - `mass_below_zero`: mean predicted probability of less than zero, where every observation is above zero;
      `mass_above_one`: of more than one, where every observation is below one, too.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 9)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        u = normal_scores(distribution, y).clamp(-_FARTHEST, _FARTHEST)
        square, size, mean = u.square(), u.abs(), distribution.mean
        columns = (u, square, u * square, square.square(), size, mean, mean.square(), size * mean)
        self.totals = self.totals + sums(weight, *columns)

    def compute(self) -> dict[str, Tensor]:
        """The moments, and the trend."""
        first, second, third, fourth, size, mean, mean_2, both = self.totals[1:] / self.totals[0]
        variance = second - first.square()
        skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
        kurtosis = (fourth - 4 * first * third + 6 * first.square() * second - 3 * first**4) / variance.square() - 3
        spread = (second - size.square()) * (mean_2 - mean.square())
        # Rounding leaves something of the variance of a mean that does not vary.
        varies = spread > 1e-12 * second * mean_2
        trend = torch.where(varies, (both - size * mean) / torch.where(varies, spread, 1.0).sqrt(), 0.0)
        moments = {"residual_mean": first, "residual_skewness": skewness, "residual_kurtosis": kurtosis}
        return moments | {"spread_trend": trend}

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The trend by ranks, and what is of interest at the end alone."""
        size, mean, share = (_array(part) for part in (normal_scores(distribution, y).abs(), distribution.mean, weight))
        figures = {"spread_trend": rank_correlation(size, mean, share)}
        if bool((y > 0).all()):
            below = _array(cdf(distribution, torch.zeros_like(y)))
            figures["mass_below_zero"] = float(share @ below / share.sum())
        if "mass_below_zero" in figures and bool((y < 1).all()):
            above = _array(survival(distribution, torch.ones_like(y)))
            figures["mass_above_one"] = float(share @ above / share.sum())
        return {name: self.totals.new_tensor(value) for name, value in figures.items()}


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu().numpy())
