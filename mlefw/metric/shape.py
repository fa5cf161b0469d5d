"""Moments of the residuals of continuous targets, which show a wrong shape of the predictive distribution."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.cdf import cdf, survival
from mlefw.distribution.rank_correlation import rank_correlation
from mlefw.metric.base import Metric, normal_scores, sums

_MAX_SCORE = 4.0
"""Bound of the normal scores, so that no single row decides a moment; a true model exceeds it once in 16 000 rows."""


class Shape(Metric):
    """Moments of the normal scores u = Φ⁻¹(F(y)), clamped to ± 4: standard normal if true (Dunn & Smyth, 1996).

    - `residual_mean`: mean of u; positive where observations are higher than predicted.
    - `residual_skewness`, `residual_kurtosis`: third standardised moment of u, and fourth minus 3; positive for a
      longer upper tail, and for heavier tails, than predicted.
    - `spread_trend`: Spearman's correlation of |u| with the predicted mean; positive where the spread grows with the
      mean more than predicted. Computed from sums it is Pearson's correlation; 0 where |u| or the mean is constant.

    At the end of a run, from all rows at once:

    - `mass_below_zero`: mean predicted probability of y < 0, if every observation is positive.
    - `mass_above_one`: mean predicted probability of y > 1, if every observation lies between 0 and 1.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 9)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        u = normal_scores(distribution, y).clamp(-_MAX_SCORE, _MAX_SCORE)
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
        # The variance of a constant mean is not exactly zero after rounding.
        varies = spread > 1e-12 * second * mean_2
        trend = torch.where(varies, (both - size * mean) / torch.where(varies, spread, 1.0).sqrt(), 0.0)
        moments = {"residual_mean": first, "residual_skewness": skewness, "residual_kurtosis": kurtosis}
        return moments | {"spread_trend": trend}

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The trend by ranks, and the probabilities below zero and above one."""
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
