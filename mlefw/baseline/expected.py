"""Expected information of any head with one target per row: its own closed form, or a numerical expectation."""

import math
from collections.abc import Callable

import torch
from scipy.special import ndtr
from torch import Tensor
from torch.distributions import Distribution

from mlefw.baseline.derivatives import row_derivatives, row_slopes
from mlefw.distribution.cdf import cdf
from mlefw.distribution.quantile import quantile
from mlefw.head.base import Head
from mlefw.head.negative_binomial import NegativeBinomialHead

_TAIL = 1e-13
"""Mass of counts in each tail that is left out of a sum."""
_MOST_COUNTS = 1024
"""Most counts over which a sum is taken; wider distributions are integrated over their quantiles."""
_FAR = 8
"""Normal scores between which quantiles are integrated: beyond them is a mass of 1e-15."""
_FINEST = 1 / 64
"""Least distance between two normal scores; smooth densities need ⅛."""
_AGREES = 1e-9
"""Change of an integral by half the step, relative to its size, below which it is accurate."""
_WRONG = 3e-3
"""Mean of the score, in its standard deviations, above which an expectation is not accurate: it is zero in truth."""

_Squares = Callable[[Tensor], Tensor]
"""The score s and its products s sᵀ at targets y (n,) of all rows, flattened to (n, K + K²)."""


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
    if head.event_shape:
        raise NotImplementedError(f"{name} states no expected information, and its targets are not single numbers")
    with torch.no_grad():
        distribution = head.distribution(eta)
        try:
            total = (_over_counts if head.support.is_discrete else _over_quantiles)(head, eta, distribution)
        except NotImplementedError:
            raise NotImplementedError(f"{name} states no expected information, and has no quantiles") from None
    num_columns = eta.shape[1]
    score, square = total[:, :num_columns], total[:, num_columns:].unflatten(1, (num_columns, num_columns))
    deviation = square.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    if not bool((score.abs() <= _WRONG * deviation + 1e-12).all()):
        raise NotImplementedError(f"the expected information of {name} was not found to three digits")
    return square


def bread_information(head: Head, eta: Tensor, y: Tensor) -> Tensor:
    """The information of each row for `standard_errors=expected`, (n, K, K).

    It is the expected one, but for a shared dispersion of a negative binomial the observed one, as in R's `glm.nb`,
    where mean and dispersion are orthogonal.

    Raises:
        NotImplementedError: as `expected_information`.
    """
    information = expected_information(head, eta)
    if isinstance(head, NegativeBinomialHead) and head.shared_names == ("dispersion",) and _is_nb2(head):
        information = information.clone()
        information[:, -1] = information[:, :, -1] = 0.0
        information[:, -1, -1] = row_derivatives(head, eta, y)[2][:, -1, -1]
    return information


def _is_nb2(head: Head) -> bool:
    return getattr(head, "variance", "nb2") in ("nb2", 2, 2.0)


def _products(head: Head, eta: Tensor) -> _Squares:
    def at(y: Tensor) -> Tensor:
        score = row_slopes(head, eta, y)[1]
        return torch.cat([score, (score.unsqueeze(2) * score.unsqueeze(1)).flatten(1)], 1)

    return at


def _over_counts(head: Head, eta: Tensor, distribution: Distribution) -> Tensor:
    """E of the score and its products over the whole numbers between two far quantiles, (n, K + K²)."""
    low, high = (quantile(distribution, level).double() for level in (_TAIL, 1 - _TAIL))
    total = eta.new_zeros(len(eta), eta.shape[1] * (eta.shape[1] + 1))
    is_wide = high - low > _MOST_COUNTS
    if bool(is_wide.any()):
        total[is_wide] = _over_wide_counts(head, eta[is_wide])
    dtype = torch.int64 if head.target in ("labels", "ordered") else torch.float64
    left, step = (~is_wide).nonzero().squeeze(1), 0
    while len(left):
        y, here = (low[left] + step).to(dtype), eta[left]
        mass = head.nll_complete(here, y).neg().exp().unsqueeze(1)
        total[left] += torch.where(mass > 0, mass * _products(head, here)(y), 0.0)
        step += 1
        left = left[low[left] + step <= high[left]]
    return total


def _over_wide_counts(head: Head, eta: Tensor) -> Tensor:
    """As `_over_counts`, from a few counts of each row, the mass of each spread evenly about it.

    Between two counts the products are interpolated, for an error of 1/8 of their second difference.
    """
    distribution, at = head.distribution(eta), _products(head, eta)

    def spread(level: float) -> Tensor:
        y = quantile(distribution, level).double()
        below, above = cdf(distribution, y - 1), cdf(distribution, y)
        away = ((level - below) / (above - below)).nan_to_num(0.5).clamp(0, 1).unsqueeze(1) - 0.5
        # A count below the least has no mass, and no likelihood.
        beside = torch.where(away.squeeze(1) > 0, y + 1, (y - 1).clamp(min=0))
        return at(y) * (1 - away.abs()) + at(beside) * away.abs()

    return _trapezoid(spread)


def _over_quantiles(head: Head, eta: Tensor, distribution: Distribution) -> Tensor:
    """E of the score and its products over the quantiles of a density, (n, K + K²)."""
    at = _products(head, eta)
    lowest = getattr(head.support, "lower_bound", None)
    atom = torch.zeros(len(eta), dtype=eta.dtype)
    if lowest is not None and math.isfinite(lowest) and bool(head.support.check(atom + lowest).all()):
        atom = cdf(distribution, atom + lowest)
    if not bool((atom > 0).any()):
        return _trapezoid(lambda level: at(quantile(distribution, level)))
    assert lowest is not None
    above = _trapezoid(lambda level: at(quantile(distribution, atom + (1 - atom) * level)))
    return atom.unsqueeze(1) * at(torch.full_like(atom, lowest)) + (1 - atom).unsqueeze(1) * above


def _trapezoid(function: Callable[[float], Tensor]) -> Tensor:
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
        if bool(((total - before).abs() <= _AGREES * (total.abs() + total.abs().amax(1, keepdim=True))).all()):
            break
    return total
