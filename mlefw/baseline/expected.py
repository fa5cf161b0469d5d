"""Expected information of any head with one target per row: its own closed form, or a numerical expectation."""

import math
from collections.abc import Callable

import torch
from scipy.special import ndtr
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from mlefw.baseline.derivatives import row_slopes
from mlefw.distribution.cdf import cdf
from mlefw.distribution.quantile import quantile
from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead

_TAIL = 1e-13
"""Mass of counts in each tail that is left out of a sum."""
_MOST_COUNTS, _FIRST = 2**15, 2**10
"""Most counts over which a sum is taken; of wider distributions the first ones, where they may be steep."""
_AT_ONCE = 2**16
"""Likelihoods that are computed at a time."""
_FAR = 8
"""Normal scores between which quantiles are integrated: beyond them is a mass of 1e-15."""
_FINEST = 1 / 64
"""Least distance between two normal scores; smooth densities need ⅛."""
_AGREES = 1e-9
"""Change of an integral by half the step, relative to its size, below which it is accurate."""
_WRONG = 3e-3
"""Mean of the score, in its standard deviations, above which an expectation is not accurate: it is zero in truth."""


class NotAccurateError(Exception):
    """An integral is not accurate, as where the score jumps."""


def expected_information(head: Head, eta: Tensor) -> Tensor:
    """The expected Hessian of the NLL in a complete eta (n, K), (n, K, K).

    Where the head states no closed form it is E s sᵀ, s being the score: a sum over the support of counts and labels,
    or an integral over the quantiles of a density, by the trapezoidal rule in normal scores, whose error falls
    exponentially for smooth densities (Trefethen & Weideman, 2014). An atom at the lower end of the support, as of
    amounts that may be zero, is added apart.

    Raises:
        NotImplementedError: the distribution has no quantiles, a target is no single number, or the expectation is not
            accurate; the message is a clause.
    """
    known = head.information(eta)
    if known is not None:
        return known
    name = type(head).__name__
    if isinstance(head, CensoredHead):
        raise NotImplementedError("censored numbers have no expected information: bounds of exact ones are not known")
    if head.event_shape:
        raise NotImplementedError(f"{name} states no expected information, and its targets are not single numbers")
    with torch.no_grad():
        distribution = head.distribution(eta)
        try:
            total = (_over_counts if head.support.is_discrete else _over_quantiles)(head, eta, distribution)
        except NotImplementedError:
            raise NotImplementedError(f"{name} states no expected information, and has no quantiles") from None
        except NotAccurateError:
            raise NotImplementedError(f"the expected information of {name} was not found to three digits") from None
    num_columns = eta.shape[1]
    score, square = total[:, :num_columns], total[:, num_columns:].unflatten(1, (num_columns, num_columns))
    deviation = square.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    if not bool((score.abs() <= _WRONG * deviation + 1e-12).all()):
        raise NotImplementedError(f"the expected information of {name} was not found to three digits")
    return square


def _products(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The log-likelihood of rows, (n, 1), and their score s with its products s sᵀ, flattened to (n, K + K²)."""
    nll, score = row_slopes(head, eta, y)
    return -nll.unsqueeze(1), torch.cat([score, (score.unsqueeze(2) * score.unsqueeze(1)).flatten(1)], 1)


def _over_counts(head: Head, eta: Tensor, distribution: Distribution) -> Tensor:
    """E of the score and its products over the whole numbers between two far quantiles, (n, K + K²)."""
    low, high = (quantile(distribution, level).double() for level in (_TAIL, 1 - _TAIL))
    is_wide = high - low > _MOST_COUNTS
    total = _sum(head, eta, low, torch.where(is_wide, low + _FIRST, high))
    if bool(is_wide.any()):
        total[is_wide] += _over_wide_counts(head, eta[is_wide], low[is_wide] + _FIRST)
    return total


def _sum(head: Head, eta: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Σ mass · (s, s sᵀ) over the whole numbers from low to high, each (n,), (n, K + K²)."""
    total = eta.new_zeros(len(eta), eta.shape[1] * (eta.shape[1] + 1))
    dtype = torch.int64 if head.target in ("labels", "ordered") else torch.float64
    left, start = torch.arange(len(eta)), 0
    while len(left):
        several = torch.arange(start, start + max(1, _AT_ONCE // len(left)))
        y = low[left].unsqueeze(1) + several
        inside = y <= high[left].unsqueeze(1)
        row = left.unsqueeze(1).expand_as(y)[inside]
        log_mass, products = _products(head, eta[row], y[inside].to(dtype))
        total.index_add_(0, row, torch.where(log_mass > -math.inf, log_mass.exp() * products, 0.0))
        start += len(several)
        left = left[low[left] + start <= high[left]]
    return total


def _over_wide_counts(head: Head, eta: Tensor, low: Tensor) -> Tensor:
    """∫ (s, s sᵀ) over the counts above low (n,), from some of them, the mass of each spread evenly about it.

    Between two counts the products are interpolated, for an error of 1/8 of their second difference.
    """
    distribution = head.distribution(eta)
    below_all = cdf(distribution, low)

    def spread(level: float) -> Tensor:
        u = below_all + (1 - below_all) * level
        y = quantile(distribution, u).double()
        below, above = cdf(distribution, y - 1), cdf(distribution, y)
        away = ((u - below) / (above - below)).nan_to_num(0.5).clamp(0, 1).unsqueeze(1) - 0.5
        beside = torch.where(away.squeeze(1) > 0, y + 1, y - 1)
        return _products(head, eta, y)[1] * (1 - away.abs()) + _products(head, eta, beside)[1] * away.abs()

    # Rounding to whole numbers limits what can be reached.
    return (1 - below_all).unsqueeze(1) * _trapezoid(spread, 1e-6)


def _over_quantiles(head: Head, eta: Tensor, distribution: Distribution) -> Tensor:
    """E of the score and its products over the quantiles of a density, (n, K + K²)."""
    if isinstance(distribution, MixtureSameFamily):
        # By components, since quantiles jump between modes that are far apart.
        part, shares = distribution.component_distribution, distribution.mixture_distribution.probs

        def of_components(level: float) -> Tensor:
            places = zip(shares.unbind(-1), quantile(part, level).unbind(-1), strict=True)
            return torch.stack([share.unsqueeze(1) * _products(head, eta, y)[1] for share, y in places]).sum(0)

        return _trapezoid(of_components)
    lowest = getattr(head.support, "lower_bound", None)
    atom = torch.zeros(len(eta), dtype=eta.dtype)
    if lowest is not None and math.isfinite(lowest) and bool(head.support.check(atom + lowest).all()):
        atom = cdf(distribution, atom + lowest)
    if not bool((atom > 0).any()):
        return _trapezoid(lambda level: _products(head, eta, quantile(distribution, level))[1])
    assert lowest is not None
    above = _trapezoid(lambda level: _products(head, eta, quantile(distribution, atom + (1 - atom) * level))[1])
    at_atom = _products(head, eta, torch.full_like(atom, lowest))[1]
    return atom.unsqueeze(1) * at_atom + (1 - atom).unsqueeze(1) * above


def _trapezoid(function: Callable[[float], Tensor], agrees: float = _AGREES) -> Tensor:
    """∫ function(u) du over 0 < u < 1 by the trapezoidal rule in normal scores, its step halved until it agrees."""

    def weighted(t: float) -> Tensor:
        value = function(float(ndtr(t)))
        # A quantile that underflows to the end of the support has no finite likelihood, and next to no mass.
        return torch.where(value.isfinite(), value, 0.0) * (math.exp(-t * t / 2) / math.sqrt(2 * math.pi))

    step = 1.0
    total = torch.stack([weighted(float(t)) for t in range(-_FAR, _FAR + 1)]).sum(0)
    while step > _FINEST:
        step /= 2
        nodes = int(_FAR / step)
        finer = step * sum((weighted(k * step) for k in range(1 - nodes, nodes, 2)), torch.zeros_like(total))
        total, before = total / 2 + finer, total
        change = (total - before).abs() / total.abs().amax(1, keepdim=True).clamp(min=torch.finfo(total.dtype).tiny)
        if bool((change <= agrees).all()):
            return total
    if not bool((change <= _WRONG).all()):
        raise NotAccurateError
    return total
