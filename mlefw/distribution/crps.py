"""The continuous ranked probability score (CRPS) of a distribution, in closed form or by quadrature, with gradients."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

from mlefw.distribution import quantile
from mlefw.distribution.awaited import awaited
from mlefw.distribution.cdf import cdf, is_discrete, survival
from mlefw.distribution.quadrature import half_line_heavy, segment
from mlefw.distribution.remembered import log_prob, pit_bounds


def row_crps(distribution: Distribution, y: Tensor) -> Tensor:
    """CRPS of each row, (n,), in the unit of y: by the distribution's own method `crps` if it has one."""
    own = getattr(distribution, "crps", None)
    found: Tensor = crps(distribution, y) if own is None else own(y)
    return found


@singledispatch
def crps(distribution: Distribution, y: Tensor) -> Tensor:
    """CRPS of each row, (n,), in the unit of y, by a formula for the distribution, a sum or quadrature."""
    return _by_sum(distribution, y) if is_discrete(distribution) else _by_quadrature(distribution, y)


def _by_quadrature(distribution: Distribution, y: Tensor) -> Tensor:
    """CRPS of a density, (n,): the score at the median, plus the integral of its derivative 2 F − 1 from there to y.

    Each integral then starts or ends where F changes, so that the nodes resolve F however far out y is. The nodes are
    held fixed in derivatives: the score does not depend on where the integral is split.
    """
    with torch.no_grad():
        median, quarters = quantile.median(distribution), [quantile.quantile(distribution, p) for p in (0.25, 0.75)]
    support = distribution.support
    total = torch.zeros_like(median)
    for above, quarter, bound in zip((False, True), quarters, ("lower_bound", "upper_bound"), strict=True):
        scale = (quarter - median).abs()
        sign, end = (1.0 if above else -1.0), getattr(support, bound, None)
        tail = survival if above else cdf

        def integral(start: Tensor, power: int) -> Tensor:
            if end is not None:  # noqa: B023
                length = torch.relu(sign * (end - start))  # noqa: B023
                return segment(lambda v: tail(distribution, v) ** power, sign * length, start)  # noqa: B023
            return half_line_heavy(lambda t: tail(distribution, start + sign * t) ** power, scale)  # noqa: B023

        beyond = torch.relu(sign * (y - median))
        outside = integral(median, 1) - integral(torch.where(beyond > 0, y, median), 1)
        total = total + integral(median, 2) + beyond - 2 * outside
    return total


def _by_sum(distribution: Distribution, y: Tensor) -> Tensor:
    """CRPS of a distribution on the integers, (n,), summed between the quantiles at 1e-13 and 1 − 1e-13."""
    with torch.no_grad():
        first = torch.minimum(quantile.quantile(distribution, 1e-13), y)
        last = torch.maximum(quantile.quantile(distribution, 1 - 1e-13), y)
    total = torch.zeros_like(last)
    for step in range(int(awaited((last - first).max())) + 1 if y.numel() else 0):
        k = first + step
        total = total + (cdf(distribution, k) - (y <= k).to(total.dtype)).square() * (k <= last)
    return total


@crps.register
def _(distribution: Normal, y: Tensor) -> Tensor:
    u = (y - distribution.loc) / distribution.scale
    density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    return distribution.scale * (u * torch.erf(u / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


@crps.register
def _(distribution: Laplace, y: Tensor) -> Tensor:
    u = (y - distribution.loc).abs() / distribution.scale
    return distribution.scale * (u + torch.exp(-u) - 0.75)


@crps.register
def _(distribution: StudentT, y: Tensor) -> Tensor:
    df = distribution.df
    u = (y - distribution.loc) / distribution.scale
    density = (log_prob(distribution, y) + distribution.scale.log()).exp()
    ratio = torch.exp(_betaln(torch.full_like(df, 0.5), df - 0.5) - 2 * _betaln(torch.full_like(df, 0.5), df / 2))
    value = u * (2 * pit_bounds(distribution, y)[1] - 1) + (2 * density * (df + u * u) - 2 * df.sqrt() * ratio) / (
        df - 1
    )
    return torch.where(df > 1, distribution.scale * value, torch.full_like(value, math.inf))


@crps.register
def _(distribution: Gamma, y: Tensor) -> Tensor:
    a, mean = distribution.concentration, distribution.mean
    longer = cdf(Gamma(a + 1, distribution.rate, validate_args=False), y)
    spread = torch.exp(-_betaln(torch.full_like(a, 0.5), a)) / distribution.rate
    return y * (2 * pit_bounds(distribution, y)[1] - 1) - mean * (2 * longer - 1) - spread


@crps.register
def _(distribution: Exponential, y: Tensor) -> Tensor:
    inside = y.clamp(min=0)
    gained = 2 * torch.expm1(-distribution.rate * inside)
    return (y - inside).abs() + inside + (gained + 0.5) / distribution.rate


@crps.register
def _(distribution: Beta, y: Tensor) -> Tensor:
    a, b, inside = distribution.concentration1, distribution.concentration0, y.clamp(0, 1)
    longer = cdf(Beta(a + 1, b, validate_args=False), inside)
    spread = torch.exp(_betaln(2 * a, 2 * b) - 2 * _betaln(a, b)) * 2 / a
    value = inside * (2 * pit_bounds(distribution, y)[1] - 1) + distribution.mean * (1 - 2 * longer - spread)
    return value + (y - inside).abs()


@crps.register
def _(distribution: LogNormal, y: Tensor) -> Tensor:
    inside = y.clamp(min=0)
    standard = Normal(torch.zeros_like(distribution.loc), torch.ones_like(distribution.loc), validate_args=False)
    u = (inside.log() - distribution.loc) / distribution.scale
    shifted = cdf(standard, u - distribution.scale) - torch.special.erfc(0.5 * distribution.scale) / 2
    value = inside * (2 * cdf(standard, u) - 1) - 2 * distribution.mean * shifted
    return value + (y - inside).abs()


@crps.register
def _(distribution: Bernoulli, y: Tensor) -> Tensor:
    return torch.sigmoid((1 - 2 * y) * distribution.logits).square()


@crps.register
def _(distribution: Categorical, y: Tensor) -> Tensor:
    below = distribution.probs.cumsum(-1)
    k = torch.arange(below.shape[-1], device=below.device)
    return (below - (y.unsqueeze(-1) <= k).to(below.dtype)).square().sum(-1)


@crps.register
def _(distribution: Poisson, y: Tensor) -> Tensor:
    rate = distribution.rate
    bessel = torch.special.i0e(2 * rate) + torch.special.i1e(2 * rate)
    mass = log_prob(distribution, y).exp()
    return (y - rate) * (2 * pit_bounds(distribution, y)[1] - 1) + rate * (2 * mass - bessel)


@crps.register
def _(distribution: NegativeBinomial, y: Tensor) -> Tensor:
    size, odds = distribution.total_count, distribution.logits.exp()
    fail = torch.sigmoid(-distribution.logits)
    # E|Y − Y'| / 2 = mean / fail · 2F1(size + 1, ½; 2; −4 success / fail²), by Euler's integral with t / (1 − t) = v².
    steep = 4 * odds / fail

    def euler(v: Tensor) -> Tensor:
        above = 1 + v.square()
        return torch.exp(-(size + 1) * torch.log1p(steep * v.square() / above)) / above.square()

    spread = half_line_heavy(euler, (1 + steep * (size + 1)).rsqrt())
    longer = cdf(NegativeBinomial(size + 1, logits=distribution.logits, validate_args=False), y - 1)
    mean = size * odds
    value = y * (2 * pit_bounds(distribution, y)[1] - 1) - mean * (2 * longer - 1)
    return value - mean / fail * 4 / math.pi * spread


@crps.register
def _(distribution: MixtureSameFamily, y: Tensor) -> Tensor:
    each = distribution.component_distribution
    if not isinstance(each, Normal):
        return _by_sum(distribution, y) if is_discrete(distribution) else _by_quadrature(distribution, y)
    share = distribution.mixture_distribution.probs
    error = (share * _mean_distance(y.unsqueeze(-1) - each.loc, each.scale)).sum(-1)
    apart = each.loc.unsqueeze(-1) - each.loc.unsqueeze(-2)
    both = (each.scale.square().unsqueeze(-1) + each.scale.square().unsqueeze(-2)).sqrt()
    pairs = share.unsqueeze(-1) * share.unsqueeze(-2) * _mean_distance(apart, both)
    return error - pairs.sum((-1, -2)) / 2


def _mean_distance(loc: Tensor, scale: Tensor) -> Tensor:
    """E|X| for X ~ Normal(loc, scale)."""
    u = loc / scale
    return loc * torch.erf(u / math.sqrt(2)) + scale * math.sqrt(2 / math.pi) * torch.exp(-0.5 * u * u)


def _betaln(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
