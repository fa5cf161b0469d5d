"""Tails and quantiles of the reference distributions of statistical tests.

They equal those of scipy.stats, which is not used because its import takes as long as a small training run.
"""

from typing import Any

import numpy as np
import torch
from scipy import special

from mlefw.distribution.special import gammainc, gammaincc, gammaincinv

_Numbers = Any
"""A number or an array; the result has its shape."""


def normal_quantile(p: _Numbers) -> _Numbers:
    """Quantiles of the standard normal distribution."""
    return special.ndtri(p)


def normal_tail(z: _Numbers) -> _Numbers:
    """P(Z > z) for a standard normal Z."""
    return special.ndtr(-z)


def t_quantile(p: _Numbers, df: float | None) -> _Numbers:
    """Quantiles of Student's t distribution, or of the standard normal distribution where `df` is None."""
    return normal_quantile(p) if df is None else special.stdtrit(df, p)


def t_tail(t: _Numbers, df: float | None) -> _Numbers:
    """P(T > t) for Student's t distribution, or for the standard normal distribution where `df` is None."""
    return normal_tail(t) if df is None else special.stdtr(df, -t)


def chi2_quantile(p: float, df: int) -> float:
    """A quantile of the χ² distribution with `df` degrees of freedom."""
    return 2 * float(gammaincinv(_number(df / 2), _number(p)))


def chi2_tail(x: float, df: int) -> float:
    """P(X > x) for the χ² distribution with `df` degrees of freedom."""
    return float(gammaincc(_number(df / 2), _number(x / 2)))


def f_tail(f: float, df: int, df_resid: float) -> float:
    """P(X > f) for the F distribution with `df` and `df_resid` degrees of freedom."""
    return float(special.fdtrc(df, df_resid, f))


def beta_quantile(p: float, a: _Numbers, b: _Numbers) -> _Numbers:
    """Quantiles of the beta distribution with shapes a and b."""
    return special.betaincinv(a, b, p)


def poisson_tail(count: int, mean: float) -> float:
    """P(N >= count) for a Poisson N with this mean."""
    return float(gammainc(_number(count), _number(mean))) if count > 0 else 1.0


def _number(value: float) -> torch.Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def binomial_quantile(p: float, n: int, share: np.ndarray) -> np.ndarray:
    """Quantiles of the binomial distribution of n trials: the smallest k with P(N <= k) >= p, shaped like `share`."""
    above = np.ceil(np.where(share < 1, special.bdtrik(p, n, share), n))
    # bdtrik is NaN where P(N <= 0) >= p already, and may lie just above a whole number by rounding.
    below = np.maximum(np.nan_to_num(above) - 1, 0)
    return np.asarray(np.where(special.bdtr(below, n, share) >= p, below, above))
