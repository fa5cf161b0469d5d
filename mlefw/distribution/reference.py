"""Tails and quantiles of the distributions that tests refer to.

They are those of scipy.stats, whose import takes as long as a small training.
"""

from typing import Any

import numpy as np
import torch
from scipy import special

from mlefw.distribution.special import gammainc, gammaincc, gammaincinv

_Numbers = Any
"""A number or an array; the result has its shape."""


def normal_quantile(p: _Numbers) -> _Numbers:
    """Of the standard normal distribution."""
    return special.ndtri(p)


def normal_tail(z: _Numbers) -> _Numbers:
    """P(Z > z)."""
    return special.ndtr(-z)


def t_quantile(p: _Numbers, df: float | None) -> _Numbers:
    """Of Student's t; where `df` is None of the standard normal distribution."""
    return normal_quantile(p) if df is None else special.stdtrit(df, p)


def t_tail(t: _Numbers, df: float | None) -> _Numbers:
    """P(T > t), under the same."""
    return normal_tail(t) if df is None else special.stdtr(df, -t)


def chi2_quantile(p: float, df: int) -> float:
    """Of χ²."""
    return 2 * float(gammaincinv(_number(df / 2), _number(p)))


def chi2_tail(x: float, df: int) -> float:
    """P(X > x)."""
    return float(gammaincc(_number(df / 2), _number(x / 2)))


def beta_quantile(p: float, a: _Numbers, b: _Numbers) -> _Numbers:
    """Of a beta distribution with shapes a and b."""
    return special.betaincinv(a, b, p)


def poisson_tail(count: int, mean: float) -> float:
    """P(N ≥ count)."""
    return float(gammainc(_number(count), _number(mean))) if count > 0 else 1.0


def _number(value: float) -> torch.Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def binomial_quantile(p: float, n: int, share: np.ndarray) -> np.ndarray:
    """The smallest number of n, each with probability `share`, that is not exceeded with probability p."""
    above = np.ceil(np.where(share < 1, special.bdtrik(p, n, share), n))
    # It is none where already zero is likely enough, and rounding may have lifted what is a whole number.
    below = np.maximum(np.nan_to_num(above) - 1, 0)
    return np.asarray(np.where(special.bdtr(below, n, share) >= p, below, above))
