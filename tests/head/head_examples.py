"""What every head of one target is tested with: its definition in arbitrary precision, scipy's own, and points."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra.utils
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from omegaconf import OmegaConf

from mlefw.head.base import Head

CONF = Path(__file__).parents[2] / "conf" / "head"

Row = list[float]


@dataclass(frozen=True)
class Example:
    """What a member is tested with; an `eta` here is complete: the shared columns follow the predicted ones."""

    nll: Callable[[list[mpmath.mpf], mpmath.mpf], mpmath.mpf]
    """The definition, in arbitrary precision."""
    frozen: Callable[[Row], Any]
    """The scipy distribution at an eta."""
    points: list[tuple[Row, float]]
    """Ordinary (eta, y)."""
    extremes: list[tuple[Row, float]]
    facts: dict[str, Any] = field(default_factory=dict)
    integer: bool = False
    location_scale: bool = False
    """Whether the columns are a location and a log scale."""
    inside: float = 0.0
    """Some value of the support."""
    outside: tuple[float, ...] = (math.nan,)
    smooth: bool = True
    log_link: bool = False
    set_units: tuple[Row, Row] | None = None
    """Center and gain after set_units(mean=3, spread=2)."""


def gaussian_nll(eta, y, scale=None):
    scale = mpmath.exp(eta[1]) if scale is None else scale
    return mpmath.log(mpmath.sqrt(2 * mpmath.pi) * scale) + ((y - eta[0]) / scale) ** 2 / 2


def laplace_nll(eta, y):
    scale = mpmath.exp(eta[1])
    return mpmath.log(2 * scale) + abs(y - eta[0]) / scale


def bernoulli_nll(eta, y):
    return mpmath.log1p(mpmath.exp(-eta[0] if y == 1 else eta[0]))


def categorical_nll(eta, y):
    others = [e - eta[int(y)] for k, e in enumerate(eta) if k != int(y)]
    return mpmath.log1p(mpmath.fsum(mpmath.exp(e) for e in others))


EDGES = [-1.0, 0.0, 1.5, 2.0, 4.0]
"""Of the histogram head."""


def histogram_nll(eta, y):
    k = sum(edge <= y for edge in EDGES[1:-1])
    return categorical_nll(eta, k) + mpmath.log(mpmath.mpf(EDGES[k + 1]) - EDGES[k])


def histogram(eta):
    mass = np.exp(np.array(eta) - max(eta))
    return scipy.stats.rv_histogram((mass / mass.sum(), EDGES), density=False)


def ordinal_nll(eta, y):
    """Of four classes, by the logistic distribution function at the thresholds 0, g1 and g1 + g2."""
    gaps = [mpmath.exp(e) for e in eta[1:]]
    thresholds = [mpmath.mpf(0), gaps[0], gaps[0] + gaps[1]]
    below = [mpmath.mpf(0), *(1 / (1 + mpmath.exp(eta[0] - t)) for t in thresholds), mpmath.mpf(1)]
    return -mpmath.log(below[int(y) + 1] - below[int(y)])


def poisson_nll(eta, y):
    return mpmath.exp(eta[0]) - y * eta[0] + mpmath.loggamma(y + 1)


def gamma_nll(eta, y):
    k, mean = mpmath.exp(-eta[1]), mpmath.exp(eta[0])
    return mpmath.loggamma(k) - k * mpmath.log(k) + k * eta[0] - (k - 1) * mpmath.log(y) + k * y / mean


def negative_binomial_nll(eta, y):
    size, t = mpmath.exp(-eta[1]), mpmath.exp(eta[0] + eta[1])
    ways = mpmath.loggamma(y + size) - mpmath.loggamma(size) - mpmath.loggamma(y + 1)
    return (y + size) * mpmath.log1p(t) - y * mpmath.log(t) - ways


def student_t_nll(eta, y):
    df, u = 1 + mpmath.exp(eta[2]), (y - eta[0]) / mpmath.exp(eta[1])
    ratio = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(mpmath.pi * df) / 2
    return eta[1] - ratio + (df + 1) / 2 * mpmath.log1p(u * u / df)


def huber_nll(eta, y, delta=None):
    delta = mpmath.mpf(1.345) if delta is None else delta
    u = abs(y - eta[0]) / mpmath.exp(eta[1])
    z = mpmath.sqrt(2 * mpmath.pi) * mpmath.erf(delta / mpmath.sqrt(2)) + 2 / delta * mpmath.exp(-delta * delta / 2)
    return mpmath.log(z) + eta[1] + (u * u / 2 if u <= delta else delta * u - delta * delta / 2)


def lognormal_nll(eta, y):
    return gaussian_nll([eta[0], eta[1]], mpmath.log(y)) + mpmath.log(y)


def inverse_gaussian_nll(eta, y):
    mean, dispersion = mpmath.exp(eta[0]), mpmath.exp(eta[1])
    return mpmath.log(2 * mpmath.pi * dispersion * y**3) / 2 + (y - mean) ** 2 / (2 * dispersion * mean**2 * y)


def generalised_gamma_nll(eta, y):
    """By Stacy's density of a power of a gamma variable."""
    scale, q = mpmath.exp(eta[1]), eta[2]
    w, k = (mpmath.log(y) - eta[0]) / scale, 1 / q**2
    return (
        mpmath.loggamma(k)
        - mpmath.log(abs(q))
        - k * mpmath.log(k)
        + mpmath.log(scale * y)
        - k * (q * w - mpmath.exp(q * w))
    )


def logistic_nll(eta, y):
    u = (y - eta[0]) / mpmath.exp(eta[1])
    return eta[1] + abs(u) + 2 * mpmath.log1p(mpmath.exp(-abs(u)))


def beta_nll(eta, y):
    mean, rest = 1 / (1 + mpmath.exp(-eta[0])), 1 / (1 + mpmath.exp(eta[0]))
    a, b = mean * mpmath.exp(eta[1]), rest * mpmath.exp(eta[1])
    ways = mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)
    return ways - (a - 1) * mpmath.log(y) - (b - 1) * mpmath.log1p(-y)


def exponential_nll(eta, y):
    return eta[0] + y * mpmath.exp(-eta[0])


def weibull_nll(eta, y):
    shape, ratio = mpmath.exp(eta[1]), y / mpmath.exp(eta[0])
    return ratio**shape - eta[1] + eta[0] - (shape - 1) * mpmath.log(ratio)


def binomial_nll(eta, y, trials=7):
    ways = mpmath.loggamma(trials + 1) - mpmath.loggamma(y + 1) - mpmath.loggamma(trials - y + 1)
    return y * mpmath.log1p(mpmath.exp(-eta[0])) + (trials - y) * mpmath.log1p(mpmath.exp(eta[0])) - ways


def beta_binomial_nll(eta, y, trials=7):
    mean, rest, g = 1 / (1 + mpmath.exp(-eta[0])), 1 / (1 + mpmath.exp(eta[0])), mpmath.exp(eta[1])
    ways = mpmath.loggamma(trials + 1) - mpmath.loggamma(y + 1) - mpmath.loggamma(trials - y + 1)
    ones = mpmath.fsum(mpmath.log(mean + g * j) for j in range(int(y)))
    others = mpmath.fsum(mpmath.log(rest + g * j) for j in range(trials - int(y)))
    return mpmath.fsum(mpmath.log1p(g * j) for j in range(trials)) - ones - others - ways


def zero_inflated_nll(counts, eta, y):
    share, rest = 1 / (1 + mpmath.exp(-eta[-1])), 1 / (1 + mpmath.exp(eta[-1]))
    return -mpmath.log((share if y == 0 else 0) + rest * mpmath.exp(-counts(eta[:-1], y)))


def zero_inflated(counts, eta: Row) -> Any:
    """The scipy distribution of the mixture, by its masses up to 2000."""
    share, y = 1 / (1 + math.exp(-eta[-1])), np.arange(2001)
    return scipy.stats.rv_discrete(values=(y, share * (y == 0) + (1 - share) * counts(eta[:-1]).pmf(y)))


def hurdle_nll(eta, y):
    if y == 0:
        return mpmath.log1p(mpmath.exp(eta[1]))
    return mpmath.log1p(mpmath.exp(-eta[1])) + EXAMPLES["truncated"].nll(eta[:1], y)


def given_positive(counts) -> Any:
    """The scipy distribution of a count above zero, by its masses up to 2000."""
    y = np.arange(1, 2001)
    mass = counts.pmf(y) / counts.sf(0)
    return scipy.stats.rv_discrete(values=(y, mass / mass.sum()))


def hurdle(eta: Row) -> Any:
    share, counts, y = 1 / (1 + math.exp(-eta[-1])), scipy.stats.poisson(math.exp(eta[0])), np.arange(2001)
    mass = np.where(y == 0, 1 - share, share * counts.pmf(y) / counts.sf(0))
    return scipy.stats.rv_discrete(values=(y, mass))


class FrozenHuber:
    """Huber's density with its cdf by adaptive quadrature and its quantiles by a search."""

    def __init__(self, eta: Row) -> None:
        self.eta = eta

    def logpdf(self, y: float) -> float:
        return -float(huber_nll([mpmath.mpf(e) for e in self.eta], mpmath.mpf(y)))

    def cdf(self, y: float) -> float:
        loc, scale = self.eta[0], math.exp(self.eta[1])
        u = min((y - loc) / scale, 1e3)
        knots = [-60.0, *(k for k in (-1.345, 0.0, 1.345) if k < u), u]
        density = np.vectorize(lambda v: math.exp(self.logpdf(loc + scale * v)) * scale)
        return sum(scipy.integrate.quad(density, a, b, epsabs=1e-15, epsrel=1e-12)[0] for a, b in pairwise(knots))

    def ppf(self, level: float) -> float:
        loc, scale = self.eta[0], math.exp(self.eta[1])
        return scipy.optimize.brentq(lambda y: self.cdf(y) - level, loc - 20 * scale, loc + 20 * scale, xtol=1e-10)


def tweedie_nll(eta, y):
    """For a power of 1.5, by the sum over the number of gamma variables, whose shape is 1."""
    mean, dispersion = mpmath.exp(eta[0]), mpmath.exp(eta[1])
    rate, scale = 2 * mpmath.sqrt(mean) / dispersion, dispersion * mpmath.sqrt(mean) / 2
    if y == 0:
        return rate
    peak = 2 * mpmath.sqrt(y) / dispersion
    whole = range(max(1, int(peak - 12 * mpmath.sqrt(peak) - 30)), int(peak + 12 * mpmath.sqrt(peak) + 60))
    with mpmath.workdps(60):
        # No terms cancel, so that few digits do.
        log = mpmath.log(rate * y / scale)
        total = mpmath.fsum(mpmath.exp(j * log - mpmath.loggamma(j + 1) - mpmath.loggamma(j)) for j in whole)
    return rate + y / scale + mpmath.log(y) - mpmath.log(total)


class FrozenTweedie:
    """A Tweedie distribution with power 1.5, by sums over the number of gamma variables."""

    def __init__(self, eta: Row) -> None:
        self.eta, self.j = eta, np.arange(1, 4000)
        mean, dispersion = math.exp(eta[0]), math.exp(eta[1])
        self.rate, self.scale = 2 * math.sqrt(mean) / dispersion, dispersion * math.sqrt(mean) / 2

    def logpdf(self, y: float) -> float:
        return -float(tweedie_nll([mpmath.mpf(e) for e in self.eta], mpmath.mpf(y)))

    def cdf(self, y: float) -> float:
        share = scipy.stats.poisson(self.rate).pmf(self.j)
        return math.exp(-self.rate) + float(share @ scipy.stats.gamma(self.j, scale=self.scale).cdf(y))

    def ppf(self, level: float) -> float:
        mean = self.rate * self.scale
        return scipy.optimize.brentq(lambda y: self.cdf(y) - level, 0, 50 * mean, xtol=1e-14, rtol=1e-13)


def quantiles_nll(eta, y):
    """The mean over the levels 0.1, 0.5 and 0.9 of an asymmetric Laplace NLL."""
    total = mpmath.mpf(0)
    for k, level in enumerate((mpmath.mpf(0.1), mpmath.mpf(0.5), mpmath.mpf(0.9))):
        u = (y - eta[k]) / mpmath.exp(eta[3 + k])
        total += eta[3 + k] - mpmath.log(level * (1 - level)) + u * (level - (1 if u < 0 else 0))
    return total / 3


class FrozenQuantiles:
    """A distribution with quantiles at 0.1, 0.5 and 0.9, by linear interpolation and exponential tails."""

    def __init__(self, eta: Row) -> None:
        self.eta, self.q, self.p = eta, np.sort(eta[:3]), np.array([0.1, 0.5, 0.9])
        self.tails = (self.q[1] - self.q[0]) / 4, (self.q[2] - self.q[1]) / 4

    def logpdf(self, y: float) -> float:
        return -float(quantiles_nll([mpmath.mpf(e) for e in self.eta], mpmath.mpf(y)))

    def cdf(self, y: float) -> float:
        if y < self.q[0]:
            return 0.1 * math.exp((y - self.q[0]) / self.tails[0])
        if y > self.q[2]:
            return 1 - 0.1 * math.exp((self.q[2] - y) / self.tails[1])
        return float(np.interp(y, self.q, self.p))

    def ppf(self, level: float) -> float:
        if level < 0.1:
            return float(self.q[0] + self.tails[0] * math.log(level / 0.1))
        if level > 0.9:
            return float(self.q[2] - self.tails[1] * math.log((1 - level) / 0.1))
        return float(np.interp(level, self.p, self.q))


def bernstein(eta, y):
    """The transformation of degree 3 on [−1, 3] and its derivative, by the coefficients themselves."""
    coefficients = [mpmath.mpf(0)]
    for gap in eta[1:]:
        coefficients.append(coefficients[-1] + mpmath.exp(gap))
    t = (mpmath.mpf(y) + 1) / 4
    s = min(max(t, mpmath.mpf(0)), mpmath.mpf(1))
    value = mpmath.fsum(c * mpmath.binomial(3, k) * s**k * (1 - s) ** (3 - k) for k, c in enumerate(coefficients))
    steps = [right - left for left, right in pairwise(coefficients)]
    slope = 3 * mpmath.fsum(c * mpmath.binomial(2, k) * s**k * (1 - s) ** (2 - k) for k, c in enumerate(steps))
    return value + slope * (t - s), slope / 4


def transformation_nll(eta, y):
    h, slope = bernstein(eta, y)
    z = abs(h - eta[0])
    return z + 2 * mpmath.log1p(mpmath.exp(-z)) - mpmath.log(slope)


class FrozenTransformation:
    """The distribution whose transform is standard logistic, with its quantiles by a search."""

    def __init__(self, eta: Row) -> None:
        self.eta = eta

    def logpdf(self, y: float) -> float:
        return -float(transformation_nll([mpmath.mpf(e) for e in self.eta], mpmath.mpf(y)))

    def cdf(self, y: float) -> float:
        return float(scipy.special.expit(float(bernstein([mpmath.mpf(e) for e in self.eta], y)[0]) - self.eta[0]))

    def ppf(self, level: float) -> float:
        return scipy.optimize.brentq(lambda y: self.cdf(y) - level, -200, 200, xtol=1e-10, rtol=1e-14)


LOCATION_SCALE_POINTS = [([0.3, 0.2], 1.1), ([-2.0, -1.5], -2.4), ([50.0, 3.0], -10.0), ([0.0, 0.0], 0.01)]
LOCATION_SCALE_EXTREMES = [
    ([0.0, -700.0], 0.0),
    ([0.0, 700.0], 1e300),
    ([0.0, -300.0], 1e-130),
    ([1e200, 600.0], -1e200),
    ([1e-300, -690.0], 2e-300),
    ([5.0, 0.0], 1e150),
    ([0.0, -100.0], 1e90),
    ([1e12, 0.0], 1e12 + 3.0),
    ([0.0, 0.0], 1e-300),
]

EXAMPLES = {
    "gaussian": Example(
        gaussian_nll,
        lambda eta: scipy.stats.norm(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        LOCATION_SCALE_EXTREMES,
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "gaussian_fixed": Example(
        lambda eta, y: gaussian_nll(eta, y, mpmath.mpf(1)),
        lambda eta: scipy.stats.norm(eta[0], 1),
        [([0.3], 1.1), ([-2.0], 3.0), ([10.0], 10.5)],
        [([0.0], 1e150), ([1e12], 1e12 + 3.0), ([1e-300], -1e-300), ([-700.0], 700.0)],
        set_units=([3.0], [2.0]),
    ),
    "heteroscedastic": Example(
        gaussian_nll,
        lambda eta: scipy.stats.norm(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        LOCATION_SCALE_EXTREMES,
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "laplace": Example(
        laplace_nll,
        lambda eta: scipy.stats.laplace(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        location_scale=True,
        smooth=False,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "quantile": Example(
        lambda eta, y: eta[1] + mpmath.log(4) + abs(y - eta[0]) / mpmath.exp(eta[1]) / 2,
        lambda eta: scipy.stats.laplace(eta[0], 2 * math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        location_scale=True,
        smooth=False,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "generalised_gamma": Example(
        generalised_gamma_nll,
        lambda eta: scipy.stats.gengamma(
            eta[2] ** -2.0,
            eta[2] / math.exp(eta[1]),
            scale=math.exp(eta[0] + math.exp(eta[1]) / eta[2] * math.log(eta[2] ** 2)),
        ),
        [([0.3, -0.2, 0.5], 1.7), ([0.3, -1.2, -0.7], 1.7), ([-2.0, -0.5, 1.0], 0.3), ([5.0, -1.0, 0.1], 130.0)],
        [
            *(
                ([e, s, q], y)
                for e in (-30.0, 0.3)
                for s in (-1.0, 5.0)
                for q in (-2.0, 1e-9, 3.0)
                for y in (1e-20, 2.0)
            ),
            *(([0.3, -0.2, q], 1.7) for q in (1e-3, -1e-5, 1e-8, 0.2499, 0.2501)),
        ],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=(
            [math.log(3) - math.log(13 / 9) / 2, math.log(math.sqrt(math.log(13 / 9))), 0.0],
            [math.sqrt(math.log(13 / 9)), 1.0, 1.0],
        ),
    ),
    "logistic": Example(
        logistic_nll,
        lambda eta: scipy.stats.logistic(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "quantiles": Example(
        quantiles_nll,
        FrozenQuantiles,
        [
            ([-1.0, 0.5, 2.0, 0.2, 0.4, -0.3], 1.1),
            ([3.0, -2.0, 2.5, 0.0, 1.0, 0.5], -1.9),
            ([50.0, 51.0, 60.0, 1.0, 2.0, 1.5], 40.0),
            ([0.0, 0.1, 0.3, 0.0, -1.0, 0.0], 9.0),
        ],
        [
            *(([0.0, 1.0, 2.0, s, 0.0, s], y) for s in (-600.0, -30.0, 30.0, 600.0) for y in (-3.0, 1.0, 1.7)),
            ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1e140),
            ([1e12, 1e12, 1e12, 0.0, 0.0, 0.0], 1e12 + 3.0),
            ([-1e-300, 0.0, 1e-300, 0.0, 0.0, 0.0], 1e-300),
        ],
        smooth=False,
        set_units=([3.0] * 3 + [math.log(2)] * 3, [2.0] * 3 + [1.0] * 3),
    ),
    "bernoulli": Example(
        bernoulli_nll,
        lambda eta: scipy.stats.bernoulli(1 / (1 + math.exp(-eta[0]))),
        [([0.3], 1.0), ([0.3], 0.0), ([-2.0], 1.0), ([4.0], 0.0)],
        [([e], y) for e in (-700.0, -40.0, -20.0, -1e-8, 1e-8, 20.0, 40.0, 700.0) for y in (0.0, 1.0)],
        outside=(0.5, 2.0, -1.0),
        set_units=([0.0], [1.0]),
    ),
    "categorical": Example(
        categorical_nll,
        lambda eta: scipy.stats.rv_discrete(values=(range(4), np.exp(eta) / np.exp(eta).sum())),
        [([0.3, -1.0, 0.5, 2.0], y) for y in (0, 1, 2, 3)],
        [
            (eta, y)
            for eta in (
                [800.0, 0.0, 0.0, 0.0],
                [-800.0, 0.0, 1.0, 2.0],
                [700.0, -700.0, 0.0, 690.0],
                [0.0, 0.0, 0.0, 40.0],
                [5.0, 5.0, 5.0, 5.0],
                [1e15, 1e15, 1e15 - 30, 0.0],
            )
            for y in (0, 1, 2, 3)
        ],
        facts={"num_classes": 4},
        integer=True,
        outside=(4, -1),
        set_units=([0.0] * 4, [1.0] * 4),
    ),
    "ordinal": Example(
        ordinal_nll,
        lambda eta: scipy.stats.rv_discrete(
            values=(range(4), [math.exp(-float(ordinal_nll([mpmath.mpf(e) for e in eta], y))) for y in range(4)])
        ),
        [([0.3, -1.0, 0.5], y) for y in (0, 1, 2, 3)] + [([-2.0, 0.7, -0.4], y) for y in (0, 1, 2, 3)],
        [
            (eta, y)
            for eta in (
                [300.0, 0.0, 0.0],
                [-300.0, 0.0, 1.0],
                [40.0, 3.0, 4.0],
                [-40.0, 2.0, -300.0],
                [0.0, -500.0, 5.0],
                [1e-8, -30.0, -30.0],
            )
            for y in (0, 1, 2, 3)
        ],
        facts={"num_classes": 4},
        integer=True,
        outside=(4, -1),
        set_units=([0.0] * 3, [1.0] * 3),
    ),
    "histogram": Example(
        histogram_nll,
        histogram,
        [([0.3, 0.2, -1.0, 0.9], 1.1), ([0.0, 2.0, 1.0, -1.0], 0.0), ([3.0, 0.5, 1.0, 2.0], -0.9)],
        [
            *(([e, 0.0, -e, 1.0], y) for e in (-700.0, -30.0, 0.0, 20.0, 700.0) for y in (-1.0, 0.0, 1.4, 2.0, 4.0)),
            ([0.0, 0.0, 0.0, 0.0], 1.5),
        ],
        facts={"edges": EDGES, "tails": "none"},
        outside=(-1.1, 4.1, math.nan, math.inf),
        set_units=([0.0] * 4, [1.0] * 4),
    ),
    "transformation": Example(
        transformation_nll,
        FrozenTransformation,
        [([0.3, 0.2, -1.0, 0.9], 1.1), ([1.0, 1.0, 0.5, 0.0], -1.0), ([4.0, 0.5, 1.0, 1.0], 5.0), ([0, 1, 0, 1], -3.0)],
        [
            *(
                ([e, g, 0.0, 1.0], y)
                for e in (-700.0, 0.0, 700.0)
                for g in (-30.0, 0.0, 20.0)
                for y in (-1.0, 0.3, 3.0)
            ),
            *(([0.0, 0.0, g, 0.0], y) for g in (-700.0, -30.0, 30.0) for y in (-1e6, 1.0, 1e6)),
        ],
        facts={"order": 3, "range": [-1.0, 3.0]},
        set_units=([0.0] * 4, [1.0] * 4),
    ),
    "poisson": Example(
        poisson_nll,
        lambda eta: scipy.stats.poisson(math.exp(eta[0])),
        [
            ([0.3], 2.0),
            ([-2.0], 0.0),
            ([2.0], 8.0),
            ([2.0], 12.0),
            ([3.4], 29.0),
            ([3.4], 30.0),
            ([3.4], 31.0),
            ([5.0], 120.0),
        ],
        [
            *(([e], y) for e in (-700.0, -40.0, 0.0, 40.0, 700.0) for y in (0.0, 1.0, 29.0, 30.0, 170.0, 1e6, 1e12)),
            *(([27.631021115928547], 1e12 + z * 1e6) for z in (-30.0, -5.0, 0.0, 0.5, 5.0, 30.0)),
            ([13.815510557964274], 1e6 + 2.0),
            ([3.4011973816621555], 30.0),
        ],
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0], [1.0]),
    ),
    "gamma": Example(
        gamma_nll,
        lambda eta: scipy.stats.gamma(math.exp(-eta[1]), scale=math.exp(eta[0] + eta[1])),
        [([0.3, 0.2], 1.1), ([-2.0, -1.5], 0.1), ([5.0, 1.0], 3.0), ([0.0, -4.0], 1.2), ([0.0, -4.0], 0.9)],
        [
            *(([e, s], y) for e in (-600.0, 0.0, 600.0) for s in (-30.0, -3.0, 0.1, 5.0, 300.0) for y in (1e-250, 1.0)),
            *(([27.631021115928547, -27.6], 1e12 + z * 1e6) for z in (-30.0, 0.5, 5.0, 30.0)),
            ([0.0, 0.0], 700.0),
            ([-3.0, 2.0], 1e-300),
        ],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "inverse_gaussian": Example(
        inverse_gaussian_nll,
        lambda eta: scipy.stats.invgauss(math.exp(eta[0] + eta[1]), scale=math.exp(-eta[1])),
        [([0.3, 0.2], 1.1), ([-2.0, 0.5], 0.1), ([3.0, -2.0], 6.0), ([0.0, -3.0], 1.2), ([0.69, -1.2], 1.7)],
        [
            *(([e, s], y) for e in (-100.0, 0.0, 200.0) for s in (-30.0, -3.0, 0.1, 5.0, 200.0) for y in (1e-90, 1.0)),
            *(([13.8, -40.0], 1e6 + z) for z in (-30.0, 0.5, 5.0)),
        ],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=([0.0, math.log(4 / 27)], [1.0, 1.0]),
    ),
    "tweedie": Example(
        tweedie_nll,
        FrozenTweedie,
        [([0.3, -3.0], 1.1), ([0.3, -3.0], 0.4), ([0.3, -3.0], 2.5)],
        [
            *(([e, s], y) for e, s in ((-30.0, 0.1), (5.0, 60.0), (0.0, -4.0)) for y in (0.0, 1e-90, 1.0)),
            ([0.7, -2.0], 30.0),
        ],
        inside=1.0,
        outside=(-1.0, math.nan),
        log_link=True,
        set_units=([0.0, math.log(4 / 9 * 3**0.5)], [1.0, 1.0]),
    ),
    "negative_binomial": Example(
        negative_binomial_nll,
        lambda eta: scipy.stats.nbinom(math.exp(-eta[1]), 1 / (1 + math.exp(eta[0] + eta[1]))),
        [
            ([0.3, -1.0], 2.0),
            ([-2.0, 0.0], 0.0),
            ([2.0, -3.0], 8.0),
            ([2.0, -3.0], 40.0),
            ([3.0, -6.0], 19.0),
            ([1.0, 0.7], 0.0),
            ([1.0, 0.7], 30.0),
        ],
        [
            *(
                ([e, s], y)
                for e in (-600.0, -40.0, 0.0, 40.0, 600.0)
                for s in (-300.0, -27.0, -3.0, 0.0, 5.0, 300.0)
                for y in (0.0, 1.0, 29.0, 170.0, 1e6, 1e12)
            ),
            *(
                ([27.631021115928547, s], 1e12 + z * 1e6)
                for s in (-300.0, -27.6, -20.0, 0.0, 3.0)
                for z in (-30.0, -5.0, 0.0, 0.5, 5.0, 30.0, 1e6)
            ),
            *(
                ([4.605170185988092, s], y)
                for s in (-36.0, -23.0, -12.0, 1.0)
                for y in (99.0, 100.0, 101.0, 37.0, 271.0)
            ),
        ],
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "student_t": Example(
        student_t_nll,
        lambda eta: scipy.stats.t(1 + math.exp(eta[2]), eta[0], math.exp(eta[1])),
        [([0.3, 0.2, 1.0], 1.1), ([-2.0, -1.5, 2.0], -2.4), ([50.0, 3.0, 3.5], -10.0), ([0.0, 0.0, 0.8], 0.01)],
        [
            *(([*eta, df], y) for eta, y in LOCATION_SCALE_EXTREMES for df in (-30.0, 0.0, 1.5, 20.0, 40.0)),
            *(
                ([0.0, 0.0, df], y)
                for df in (-1.0, 3.0, 5.0, 10.0, 18.0, 30.0, 300.0)
                for y in (0.0, 0.1, 2.0, 30.0, 1e5)
            ),
        ],
        set_units=([3.0, math.log(2), 0.0], [2.0, 1.0, 1.0]),
    ),
    "huber": Example(
        huber_nll,
        FrozenHuber,
        [([0.3, 0.2], 1.1), ([-2.0, -1.5], -2.4), ([50.0, 3.0], -10.0), ([0.0, 0.0], 0.01), ([0.0, 0.0], -4.0)],
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "lognormal": Example(
        lognormal_nll,
        lambda eta: scipy.stats.lognorm(math.exp(eta[1]), scale=math.exp(eta[0])),
        [([0.3, 0.2], 1.1), ([-2.0, -1.5], 0.1), ([5.0, -1.0], 3.0), ([0.0, 0.0], 0.5)],
        [
            *(([e, s], y) for e in (-700.0, 0.0) for s in (-300.0, -20.0, 0.0, 600.0) for y in (1e-300, 1.5, 1e300)),
            *(([1e100, s], y) for s in (0.0, 600.0) for y in (1e-300, 1e300)),
        ],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=(
            [math.log(3) - math.log(13 / 9) / 2, math.log(math.sqrt(math.log(13 / 9)))],
            [math.sqrt(math.log(13 / 9)), 1.0],
        ),
    ),
    "loglogistic": Example(
        lambda eta, y: logistic_nll(eta, mpmath.log(y)) + mpmath.log(y),
        lambda eta: scipy.stats.fisk(math.exp(-eta[1]), scale=math.exp(eta[0])),
        [([0.3, -1.2], 1.1), ([-2.0, -1.5], 0.1), ([5.0, -1.0], 3.0), ([0.0, -2.0], 0.5)],
        [
            *(([e, s], y) for e in (-700.0, 0.0) for s in (-300.0, -20.0, 0.5, 600.0) for y in (1e-300, 1.5, 1e300)),
            *(([1e100, s], y) for s in (0.0, 600.0) for y in (1e-300, 1e300)),
        ],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=(
            [math.log(3) - math.log(13 / 9) / 2, math.log(math.sqrt(math.log(13 / 9)))],
            [math.sqrt(math.log(13 / 9)), 1.0],
        ),
    ),
    "beta": Example(
        beta_nll,
        lambda eta: scipy.stats.beta(
            math.exp(eta[1]) / (1 + math.exp(-eta[0])), math.exp(eta[1]) / (1 + math.exp(eta[0]))
        ),
        [([0.3, 1.5], 0.4), ([-1.0, 3.0], 0.1), ([2.0, 5.0], 0.9), ([0.0, 1.1], 0.99)],
        [
            *(([e, s], y) for e in (-300.0, -20.0, 0.0, 20.0) for s in (-300.0, 0.0, 5.0, 20.0) for y in (1e-300, 0.3)),
            *(([0.0, s], 1 - 2.0**-53) for s in (-5.0, 0.0, 5.0, 25.0)),
            *(([0.0, 27.6], 0.5 + z * 5e-7) for z in (-30.0, 0.5, 5.0, 30.0)),
            *(([e, s], 0.3) for e in (-790.0, 790.0) for s in (-5.0, 3.0)),
        ],
        inside=0.25,
        outside=(0.0, 1.0, -1.0, 2.0, math.nan),
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "exponential": Example(
        exponential_nll,
        lambda eta: scipy.stats.expon(scale=math.exp(eta[0])),
        [([0.3], 1.1), ([-2.0], 0.5), ([5.0], 3.0)],
        [([e], y) for e in (-600.0, -30.0, 0.5, 600.0) for y in (1e-300, 1e-3, 1.0, 1e30)],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=([0.0], [1.0]),
    ),
    "weibull": Example(
        weibull_nll,
        lambda eta: scipy.stats.weibull_min(math.exp(eta[1]), scale=math.exp(eta[0])),
        [([0.3, 0.2], 1.1), ([-2.0, -0.5], 0.5), ([5.0, 1.5], 130.0)],
        [([e, s], y) for e in (-300.0, 0.5, 300.0) for s in (-30.0, -3.0, 0.1) for y in (1e-200, 1e-3, 1.0, 1e30)],
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "binomial": Example(
        binomial_nll,
        lambda eta: scipy.stats.binom(7, 1 / (1 + math.exp(-eta[0]))),
        [([0.3], 4.0), ([0.3], 0.0), ([-2.0], 1.0), ([4.0], 7.0), ([-1.0], 6.0)],
        [([e], y) for e in (-700.0, -40.0, -1e-8, 20.0, 700.0) for y in (0.0, 1.0, 6.0, 7.0)],
        facts={"trials": 7},
        outside=(-1.0, 0.5, 8.0),
        set_units=([0.0], [1.0]),
    ),
    "beta_binomial": Example(
        beta_binomial_nll,
        lambda eta: scipy.stats.betabinom(
            7, math.exp(-eta[1]) / (1 + math.exp(-eta[0])), math.exp(-eta[1]) / (1 + math.exp(eta[0]))
        ),
        [([0.3, -1.0], 4.0), ([0.3, -1.0], 0.0), ([-2.0, 0.5], 1.0), ([2.0, -3.0], 7.0), ([-1.0, 1.0], 6.0)],
        [
            ([e, g], y)
            for e in (-300.0, -20.0, 0.0, 20.0)
            for g in (-700.0, -40.0, -12.0, 3.0, 40.0)
            for y in (1.0, 3.0, 6.0)
        ],
        facts={"trials": 7},
        outside=(-1.0, 0.5, 8.0),
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "zero_inflated_poisson": Example(
        lambda eta, y: zero_inflated_nll(poisson_nll, eta, y),
        lambda eta: zero_inflated(EXAMPLES["poisson"].frozen, eta),
        [([0.3, -1.0], 2.0), ([-2.0, 0.0], 0.0), ([2.0, 1.0], 8.0), ([2.0, -3.0], 0.0)],
        [
            ([e, s], y)
            for e in (-600.0, -40.0, 0.0, 5.0)
            for s in (-600.0, -40.0, 0.0, 40.0, 600.0)
            for y in (0.0, 1.0, 29.0, 1e6)
        ],
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "zero_inflated_negative_binomial": Example(
        lambda eta, y: zero_inflated_nll(negative_binomial_nll, eta, y),
        lambda eta: zero_inflated(EXAMPLES["negative_binomial"].frozen, eta),
        [([0.3, -1.0, -1.0], 2.0), ([-2.0, 0.0, 0.0], 0.0), ([2.0, -3.0, 1.0], 8.0), ([2.0, -0.5, -3.0], 0.0)],
        [
            ([e, a, s], y)
            for e in (-600.0, 0.0, 5.0)
            for a in (-30.0, 0.0, 5.0)
            for s in (-600.0, -40.0, 0.0, 600.0)
            for y in (0.0, 1.0, 1e6)
        ],
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    ),
}

EXAMPLES |= {
    "truncated": Example(
        lambda eta, y: poisson_nll(eta, y) + mpmath.log(-mpmath.expm1(-mpmath.exp(eta[0]))),
        lambda eta: given_positive(scipy.stats.poisson(math.exp(eta[0]))),
        [([0.3], 2.0), ([-2.0], 1.0), ([2.0], 8.0), ([2.0], 12.0), ([3.4], 31.0)],
        [([e], y) for e in (-30.0, -5.0, 0.0, 40.0, 300.0) for y in (2.0, 29.0, 170.0, 1e6)],
        facts={"component": {"_target_": "mlefw.head.poisson.PoissonHead"}},
        inside=1.0,
        outside=(0.0, -1.0, 1.5),
        log_link=True,
        set_units=([0.0], [1.0]),
    ),
    "hurdle": Example(
        lambda eta, y: hurdle_nll(eta, y),
        lambda eta: hurdle(eta),
        [([0.3, 0.5], 2.0), ([-2.0, -1.0], 0.0), ([2.0, 2.0], 8.0), ([-2.0, 0.0], 1.0)],
        [
            ([e, p], y)
            for e in (-30.0, 0.0, 40.0)
            for p in (-600.0, -40.0, 0.0, 40.0, 600.0)
            for y in (0.0, 2.0, 29.0, 1e6)
        ],
        facts={"component": {"_target_": "mlefw.head.poisson.PoissonHead"}},
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
}

SEVERAL = {"multitask", "multivariate_gaussian", "mixture", "censored"}
"""Heads of several targets and of several heads: test_joint_heads.py, test_mixture_head.py, test_censored_head.py."""
MEMBERS = sorted({path.stem for path in CONF.glob("*.yaml")} - SEVERAL)
KNOWN = [name for name in MEMBERS if name in EXAMPLES]


def node(name: str) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {key: value for key, value in config.items() if key != "defaults"}


def make(name: str, **settings: Any) -> Head:
    head = hydra.utils.instantiate(node(name) | EXAMPLES[name].facts | settings, _convert_="all")
    return head.double()


def tensors(name: str, points: list[tuple[Row, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Complete eta (n, columns) and y (n,)."""
    dtype = torch.int64 if EXAMPLES[name].integer else torch.float64
    eta = torch.tensor([eta for eta, _ in points], dtype=torch.float64)
    return eta, torch.tensor([y for _, y in points], dtype=dtype)


def exact(name: str, points: list[tuple[Row, float]]) -> np.ndarray:
    """The definition, with digits enough for exp(−700) beside 1."""
    with mpmath.workdps(800):
        values = [EXAMPLES[name].nll([mpmath.mpf(e) for e in eta], mpmath.mpf(y)) for eta, y in points]
        return np.array([float(value) for value in values])


def distinct_etas(name: str) -> list[Row]:
    etas = []
    for eta, _ in EXAMPLES[name].points:
        if eta not in etas:
            etas.append(eta)
    return etas


each = pytest.mark.parametrize("name", KNOWN)
location_scale = pytest.mark.parametrize("name", [name for name in KNOWN if EXAMPLES[name].location_scale])
