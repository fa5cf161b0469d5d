"""What every head must do: one table of examples, every test over all of them."""

import math
import pkgutil
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
import scipy.stats
import torch
from omegaconf import OmegaConf
from torch.func import functional_call, grad, jacrev, vmap

import mlefw.head
from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf as cumulative
from mlefw.distribution.cdf import is_discrete
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead

# Importing torch's own vmap decompositions warns, whatever is mapped.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

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
    grid: Callable[[Row], tuple[np.ndarray, np.ndarray]]
    """Nodes and weights that integrate (or sum) over y at an eta."""
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


def zero_inflated_nll(counts, eta, y):
    share, rest = 1 / (1 + mpmath.exp(-eta[-1])), 1 / (1 + mpmath.exp(eta[-1]))
    return -mpmath.log((share if y == 0 else 0) + rest * mpmath.exp(-counts(eta[:-1], y)))


def zero_inflated(counts, eta: Row) -> Any:
    """The scipy distribution of the mixture, by its masses up to 2000."""
    share, y = 1 / (1 + math.exp(-eta[-1])), np.arange(2001)
    return scipy.stats.rv_discrete(values=(y, share * (y == 0) + (1 - share) * counts(eta[:-1]).pmf(y)))


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


def line(loc: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre over loc ± 45 scale in panels of half a scale, with a panel border at loc."""
    node, weight = np.polynomial.legendre.leggauss(20)
    left = np.arange(-45, 45, 0.5)[:, None]
    return loc + scale * (left + 0.25 * (node + 1)).ravel(), scale * np.tile(0.25 * weight, len(left))


def whole(last: int) -> Callable[[Row], tuple[np.ndarray, np.ndarray]]:
    return lambda eta: (np.arange(last + 1.0), np.ones(last + 1))


def huber_line(eta: Row) -> tuple[np.ndarray, np.ndarray]:
    """The same with panel borders where the tails begin."""
    node, weight = np.polynomial.legendre.leggauss(20)
    border = 1.345 * np.arange(-40, 41) / 2
    half = np.diff(border)[:, None] / 2
    u = (border[:-1, None] + half * (node + 1)).ravel()
    return eta[0] + math.exp(eta[1]) * u, math.exp(eta[1]) * (half * weight).ravel()


def heavy_line(eta: Row) -> tuple[np.ndarray, np.ndarray]:
    """Over loc + scale sinh(s): tails that fall like a power."""
    s, weight = line(0.0, 2.0)
    return eta[0] + math.exp(eta[1]) * np.sinh(s), math.exp(eta[1]) * np.cosh(s) * weight


def between(eta: Row) -> tuple[np.ndarray, np.ndarray]:
    """In logit y."""
    t, weight = line(0.0, 0.75)
    return 1 / (1 + np.exp(-t)), weight / (2 + np.exp(t) + np.exp(-t))


def logarithmic(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The same in log y from low to high."""
    node, weight = np.polynomial.legendre.leggauss(20)
    left = np.arange(low, high, 0.25)[:, None]
    y = np.exp((left + 0.125 * (node + 1)).ravel())
    return y, y * np.tile(0.125 * weight, len(left))


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
        lambda eta: line(eta[0], math.exp(eta[1])),
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "gaussian_fixed": Example(
        lambda eta, y: gaussian_nll(eta, y, mpmath.mpf(1)),
        lambda eta: scipy.stats.norm(eta[0], 1),
        [([0.3], 1.1), ([-2.0], 3.0), ([10.0], 10.5)],
        [([0.0], 1e150), ([1e12], 1e12 + 3.0), ([1e-300], -1e-300), ([-700.0], 700.0)],
        lambda eta: line(eta[0], 1.0),
        set_units=([3.0], [2.0]),
    ),
    "heteroscedastic": Example(
        gaussian_nll,
        lambda eta: scipy.stats.norm(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        LOCATION_SCALE_EXTREMES,
        lambda eta: line(eta[0], math.exp(eta[1])),
        location_scale=True,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "laplace": Example(
        laplace_nll,
        lambda eta: scipy.stats.laplace(eta[0], math.exp(eta[1])),
        LOCATION_SCALE_POINTS,
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        lambda eta: line(eta[0], math.exp(eta[1])),
        location_scale=True,
        smooth=False,
        set_units=([3.0, math.log(2)], [2.0, 1.0]),
    ),
    "bernoulli": Example(
        bernoulli_nll,
        lambda eta: scipy.stats.bernoulli(1 / (1 + math.exp(-eta[0]))),
        [([0.3], 1.0), ([0.3], 0.0), ([-2.0], 1.0), ([4.0], 0.0)],
        [([e], y) for e in (-700.0, -40.0, -20.0, -1e-8, 1e-8, 20.0, 40.0, 700.0) for y in (0.0, 1.0)],
        whole(1),
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
        whole(3),
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
        whole(3),
        facts={"num_classes": 4},
        integer=True,
        outside=(4, -1),
        set_units=([0.0] * 3, [1.0] * 3),
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
        whole(400),
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
        lambda eta: logarithmic(eta[0] - 40 - 40 * math.exp(eta[1]), eta[0] + 8 + max(eta[1], 0)),
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
        set_units=([0.0, 0.0], [1.0, 1.0]),
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
        whole(3000),
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
        heavy_line,
        set_units=([3.0, math.log(2), 0.0], [2.0, 1.0, 1.0]),
    ),
    "huber": Example(
        huber_nll,
        FrozenHuber,
        [([0.3, 0.2], 1.1), ([-2.0, -1.5], -2.4), ([50.0, 3.0], -10.0), ([0.0, 0.0], 0.01), ([0.0, 0.0], -4.0)],
        [*LOCATION_SCALE_EXTREMES, ([0.0, -700.0], 1.0), ([0.0, 0.0], -1e300)],
        huber_line,
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
        lambda eta: (
            (np.exp(line(*at)[0]), np.exp(line(*at)[0]) * line(*at)[1]) if (at := (eta[0], math.exp(eta[1]))) else None
        ),
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
        ],
        between,
        inside=0.25,
        outside=(0.0, 1.0, -1.0, 2.0, math.nan),
        set_units=([0.0, 0.0], [1.0, 1.0]),
    ),
    "exponential": Example(
        exponential_nll,
        lambda eta: scipy.stats.expon(scale=math.exp(eta[0])),
        [([0.3], 1.1), ([-2.0], 0.5), ([5.0], 3.0)],
        [([e], y) for e in (-600.0, -30.0, 0.5, 600.0) for y in (1e-300, 1e-3, 1.0, 1e30)],
        lambda eta: logarithmic(eta[0] - 40, eta[0] + 8),
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
        lambda eta: logarithmic(eta[0] - 40 * math.exp(-eta[1]), eta[0] + 6 * math.exp(-eta[1])),
        inside=1.0,
        outside=(0.0, -1.0, math.nan),
        log_link=True,
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
        whole(400),
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
        whole(2000),
        outside=(-1.0, 0.5),
        log_link=True,
        set_units=([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
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


def nodes(name: str, eta: Row) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eta (m, columns), y (m,) and quadrature weights (m,) that integrate over y at one eta."""
    y, weight = EXAMPLES[name].grid(eta)
    dtype = torch.int64 if EXAMPLES[name].integer else torch.float64
    rows = torch.tensor([eta], dtype=torch.float64).expand(len(y), -1)
    return rows, torch.as_tensor(y).to(dtype), torch.as_tensor(weight)


def distinct_etas(name: str) -> list[Row]:
    etas = []
    for eta, _ in EXAMPLES[name].points:
        if eta not in etas:
            etas.append(eta)
    return etas


each = pytest.mark.parametrize("name", KNOWN)
location_scale = pytest.mark.parametrize("name", [name for name in KNOWN if EXAMPLES[name].location_scale])


def test_every_yaml_has_an_example_and_every_example_a_yaml():
    assert set(EXAMPLES) == set(MEMBERS)


def test_every_member_module_has_a_yaml():
    modules = {f"mlefw.head.{info.name}" for info in pkgutil.iter_modules(mlefw.head.__path__)}
    modules -= {"mlefw.head.base", "mlefw.head.head"}
    targets = {node(name)["_target_"].rpartition(".")[0] for name in (*MEMBERS, *SEVERAL)}
    assert modules == targets
    assert all(issubclass(hydra.utils.get_class(node(name)["_target_"]), Head) for name in (*MEMBERS, *SEVERAL))


# ---------------------------------------------------------------------------------------------------------- shapes


@each
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_value_per_row_over_batch_ranks(name, shape, dtype):
    head, example = make(name), EXAMPLES[name]
    eta = torch.zeros(*shape, head.eta_dim, dtype=dtype)
    y = torch.full(shape, example.inside, dtype=torch.int64 if example.integer else torch.float64)
    nll = head.nll(eta, y)
    assert nll.shape == shape
    assert nll.dtype == torch.float64
    distribution = head(eta)
    assert distribution.batch_shape == shape
    assert distribution.event_shape == head.event_shape
    assert torch.equal(-distribution.log_prob(y), nll)
    expected = exact(name, [([0.0] * (head.eta_dim + head.shared_dim), example.inside)])[0]
    assert torch.allclose(nll, torch.full(shape, expected, dtype=torch.float64), rtol=4e-14, atol=0)


@each
def test_rows_do_not_mix(name):
    head, example = make(name), EXAMPLES[name]
    eta, y = tensors(name, example.points)
    together = head.nll_complete(eta.reshape(1, *eta.shape), y.reshape(1, -1))
    apart = torch.stack([head.nll_complete(e, v) for e, v in zip(eta, y, strict=True)])
    assert torch.equal(together[0], apart)


@each
@pytest.mark.parametrize("shape", [(4, 1), (1,), (), (3,), (4, 4), (1, 4)])
def test_a_target_of_another_shape_is_refused(name, shape):
    head, example = make(name), EXAMPLES[name]
    y = torch.zeros(shape, dtype=torch.int64 if example.integer else torch.float64)
    with pytest.raises(ValueError, match="y has shape"):
        head.nll(torch.zeros(4, head.eta_dim), y)


@each
@pytest.mark.parametrize("extra", [-1, 1])
def test_an_eta_of_another_width_is_refused(name, extra):
    head, example = make(name), EXAMPLES[name]
    y = torch.zeros(4, dtype=torch.int64 if example.integer else torch.float64)
    eta = torch.zeros(4, head.eta_dim + extra)
    with pytest.raises(ValueError, match="eta has shape"):
        head.nll(eta, y)
    with pytest.raises(ValueError, match="eta has shape"):
        head(eta)


@each
def test_an_eta_without_columns_is_refused(name):
    with pytest.raises(ValueError, match="eta has shape"):
        make(name)(torch.tensor(0.0))


@each
def test_autocast_does_not_reach_the_likelihood(name):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    predicted = eta[:, : head.eta_dim].float()
    with torch.autocast("cpu", torch.bfloat16):
        nll = head.nll(predicted, y)
        mean_type = head(predicted).log_prob(y).dtype
    assert nll.dtype == mean_type == torch.float64
    assert torch.equal(nll, head.nll(predicted, y))


# -------------------------------------------------------------------------------------------------------- gradient


@each
def test_gradients_in_eta_and_in_the_shared_parameters(name):
    head, example = make(name), EXAMPLES[name]
    eta, y = tensors(name, example.points)

    def nll(predicted, shared):
        return functional_call(CallNll(head), {"head.shared": shared}, (predicted, y))

    predicted = eta[:, : head.eta_dim].clone().requires_grad_()
    shared = torch.linspace(-0.3, 0.4, head.shared_dim, dtype=torch.float64).requires_grad_()
    inputs = (predicted, shared) if head.shared_dim else (predicted, shared.detach())
    assert torch.autograd.gradcheck(nll, inputs)
    if example.smooth:
        assert torch.autograd.gradgradcheck(nll, inputs)
    if head.shared_dim:
        head.shared.data.copy_(shared.detach())
        (trained,) = torch.autograd.grad(head.nll(predicted, y).sum(), head.shared)
        (given,) = torch.autograd.grad(nll(predicted, shared).sum(), shared)
        assert torch.equal(trained, given)
        assert bool((trained != 0).all())


class CallNll(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, eta, y):
        return self.head.nll(eta, y)


@each
def test_gradients_stay_finite_at_extremes(name):
    head, example = make(name), EXAMPLES[name]
    # The square root of the largest float bounds the density's argument, so that its derivative has room.
    eta, y = tensors(name, [point for point in example.extremes if exact(name, [point])[0] < 1e150])
    eta.requires_grad_()
    head.nll_complete(eta, y).sum().backward()
    assert len(eta) > 1
    assert bool(torch.isfinite(eta.grad).all())


# --------------------------------------------------------------------------------------------------------- density


@each
def test_density_against_scipy(name):
    example = EXAMPLES[name]
    eta, y = tensors(name, example.points)
    got = make(name).nll_complete(eta, y).numpy()
    frozen = [example.frozen(row) for row, _ in example.points]
    log = [f.logpmf if discrete(f) else f.logpdf for f in frozen]
    expected = [-float(f(y)) for f, (_, y) in zip(log, example.points, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def discrete(frozen) -> bool:
    return isinstance(getattr(frozen, "dist", frozen), scipy.stats.rv_discrete)


@each
def test_density_against_the_definition(name):
    eta, y = tensors(name, EXAMPLES[name].points)
    got = make(name).nll_complete(eta, y).numpy()
    np.testing.assert_allclose(got, exact(name, EXAMPLES[name].points), rtol=1e-12)


@each
def test_density_against_the_definition_at_extremes(name):
    points = EXAMPLES[name].extremes
    eta, y = tensors(name, points)
    got, expected = make(name).nll_complete(eta, y).numpy(), exact(name, points)
    wrong = ~(np.abs(got - expected) <= 1e-9 * np.abs(expected) + 1e-300)
    assert [(points[i], got[i], expected[i]) for i in np.flatnonzero(wrong)] == []


@each
def test_mass_is_one(name):
    head = make(name)
    for eta in distinct_etas(name):
        rows, y, weight = nodes(name, eta)
        assert float((weight * (-head.nll_complete(rows, y)).exp()).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in KNOWN if not EXAMPLES[name].integer])
def test_mean_and_variance_are_those_of_the_density(name):
    head = make(name)
    for eta in distinct_etas(name):
        rows, y, weight = nodes(name, eta)
        mass = weight * (-head.nll_complete(rows, y)).exp()
        distribution = head.distribution(rows[:1])
        mean = (mass * y).sum()
        assert float(distribution.mean) == pytest.approx(float(mean), rel=1e-11, abs=1e-12)
        assert float(distribution.variance) == pytest.approx(float((mass * (y - mean).square()).sum()), rel=1e-11)


# --------------------------------------------------------------------------------------------- score, information


def expectations(name: str, eta: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[score], E[score score'] and E[Hessian] of the NLL in a complete eta, by quadrature or summation."""
    head = make(name)
    rows, y, weight = nodes(name, eta)

    def nll(row, value):
        return head.nll_complete(row, value)

    mass = weight * (-nll(rows, y)).exp().detach()
    score = vmap(grad(nll))(rows, y).detach()
    curvature = vmap(jacrev(grad(nll)))(rows, y).detach()
    return tuple(
        np.asarray(value)
        for value in (
            mass @ score,
            torch.einsum("n,ni,nj->ij", mass, score, score),
            torch.einsum("n,nij->ij", mass, curvature),
        )
    )


@each
def test_score_has_mean_zero_and_its_variance_is_the_mean_hessian(name):
    for eta in distinct_etas(name):
        mean, variance, curvature = expectations(name, eta)
        scale = np.sqrt(np.diag(variance))
        np.testing.assert_allclose(mean / scale, 0, atol=1e-10)
        if EXAMPLES[name].smooth:
            np.testing.assert_allclose(curvature / np.outer(scale, scale), variance / np.outer(scale, scale), atol=1e-9)


@each
def test_information_is_the_variance_of_the_score(name):
    head = make(name)
    stated = 0
    for eta in distinct_etas(name):
        row = torch.tensor([eta], dtype=torch.float64)
        information = head.information(row)
        if information is None:
            continue
        stated += 1
        _, variance, _ = expectations(name, eta)
        scale = np.sqrt(np.diag(variance))
        assert information.shape == (1, len(eta), len(eta))
        got = information[0].numpy()
        np.testing.assert_allclose(got / np.outer(scale, scale), variance / np.outer(scale, scale), atol=1e-10)
    assert stated in (0, len(distinct_etas(name)))


@each
def test_information_over_batch_ranks(name):
    head = make(name)
    columns = head.eta_dim + head.shared_dim
    for shape in ((), (5,), (2, 3)):
        information = head.information(torch.zeros(*shape, columns, dtype=torch.float64))
        assert information is None or information.shape == (*shape, columns, columns)


@each
def test_a_head_that_claims_convexity_has_no_negative_curvature(name):
    head = make(name)
    if not head.convex:
        pytest.skip("makes no claim")
    generator = torch.Generator().manual_seed(0)
    eta = 3 * torch.randn(200, head.eta_dim + head.shared_dim, dtype=torch.float64, generator=generator)
    _, y, _ = nodes(name, eta[0].tolist())
    y = y[torch.randint(min(len(y), 30), (200,), generator=generator)]
    curvature = vmap(jacrev(grad(head.nll_complete)))(eta, y).detach()
    eigenvalues = torch.linalg.eigvalsh(curvature)
    assert bool((eigenvalues >= -1e-13 * eigenvalues.abs().amax(-1, keepdim=True)).all())
    assert bool((eigenvalues[:, -1] > 0).all())


@each
def test_a_reference_column_can_be_held_at_zero(name):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    invariant = torch.allclose(head.nll_complete(eta + 1.7, y), head.nll_complete(eta, y), rtol=1e-12)
    assert invariant == (head.reference is not None)


# ----------------------------------------------------------------------------------------------- quantiles and PIT


@each
def test_quantile_and_cdf_round_trip(name):
    head = make(name)
    eta = torch.tensor(distinct_etas(name), dtype=torch.float64)
    distribution = head.distribution(eta)
    for level in (1e-6, 0.01, 0.25, 0.5, 0.9, 0.999999):
        q = quantile.quantile(distribution, level)
        assert q.shape == (len(eta),)
        reached = cumulative(distribution, q)
        if is_discrete(distribution):
            below = cumulative(distribution, q - 1)
            assert bool((reached >= level - 1e-15).all())
            assert bool((below < level).all())
        else:
            np.testing.assert_allclose(reached, level, rtol=1e-8)
        expected = [EXAMPLES[name].frozen(row).ppf(level) for row in distinct_etas(name)]
        np.testing.assert_allclose(q, expected, rtol=1e-7, atol=1e-9)


@each
def test_cdf_against_scipy(name):
    distribution = make(name).distribution(tensors(name, EXAMPLES[name].points)[0])
    y = tensors(name, EXAMPLES[name].points)[1]
    expected = [EXAMPLES[name].frozen(eta).cdf(y) for eta, y in EXAMPLES[name].points]
    # torch.special.gammaincc is right to 4e-10 only, from an argument of 20 on.
    atol = 4e-10 if name == "poisson" else 1e-14
    np.testing.assert_allclose(cumulative(distribution, y), expected, rtol=1e-11, atol=atol)


@each
def test_pit_of_own_samples_is_uniform(name):
    # Fixed seeds; a right head fails one of these with probability 1e-4 each.
    head = make(name)
    for seed, eta in enumerate(distinct_etas(name)):
        torch.manual_seed(seed)
        distribution = head.distribution(torch.tensor(eta, dtype=torch.float64).expand(20_000, -1))
        y = distribution.sample()
        assert bool(head.support.check(y).all())
        lower, upper = quantile.pit_bounds(distribution, y)
        u = lower + (upper - lower) * torch.rand(20_000, dtype=torch.float64)
        assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-4


@each
def test_support_takes_what_has_mass_and_nothing_else(name):
    head, example = make(name), EXAMPLES[name]
    _, y, _ = nodes(name, distinct_etas(name)[0])
    assert bool(head.support.check(y).all())
    dtype = torch.int64 if example.integer else torch.float64
    assert not bool(head.support.check(torch.tensor(example.outside, dtype=dtype)).any())


# ----------------------------------------------------------------------------------------------------------- units


@location_scale
@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1000.0, -3.0), (0.25, 1e3)])
def test_nll_changes_with_the_unit_by_its_jacobian(name, factor, shift):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    moved = torch.stack([factor * eta[:, 0] + shift, eta[:, 1] + math.log(factor)], -1)
    got = head.nll_complete(moved, factor * y + shift) - math.log(factor)
    np.testing.assert_allclose(got, exact(name, EXAMPLES[name].points), rtol=1e-9)


@location_scale
@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1000.0, -3.0)])
def test_set_units_makes_the_raw_output_free_of_units(name, factor, shift):
    generator = torch.Generator().manual_seed(3)
    y = 5 + 2 * torch.randn(50, generator=generator, dtype=torch.float64)

    def nll(target, **units):
        head = make(name)
        head.set_units(**units)
        raw = 0.3 * torch.randn(50, head.eta_dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        return head.nll(head.center[: head.eta_dim] + head.gain[: head.eta_dim] * raw, target)

    plain = nll(y, mean=5.0, spread=2.0)
    moved = nll(factor * y + shift, mean=5.0 * factor + shift, spread=2.0 * factor)
    np.testing.assert_allclose((moved - math.log(factor)).detach().numpy(), plain.detach().numpy(), rtol=1e-8)


@each
def test_a_fresh_head_has_no_units(name):
    head = make(name)
    columns = head.eta_dim + head.shared_dim
    assert head.center.tolist() == [0.0] * columns
    assert head.gain.tolist() == [1.0] * columns
    assert float(head.floor) == 0.0
    assert head.shared.tolist() == [0.0] * head.shared_dim
    assert set(head.state_dict()) == {"center", "gain", "floor", "shared"}
    assert {key for key, value in head.state_dict().items() if value.dtype != torch.float64} == set()


@each
def test_set_units(name):
    head = make(name)
    head.set_units(3.0, 2.0)
    center, gain = EXAMPLES[name].set_units
    assert head.center.tolist() == pytest.approx(center, rel=1e-15)
    assert head.gain.tolist() == gain


@location_scale
@pytest.mark.parametrize(
    ("mean", "spread", "unit"), [(3.0, 2.0, 2.0), (-7.0, 0.0, 7.0), (0.0, 0.0, 1.0), (0.0, 1e-200, 1e-200)]
)
def test_the_unit_and_the_floor_are_positive_for_any_target(name, mean, spread, unit):
    head = make(name)
    head.set_units(mean, spread)
    assert head.center.tolist() == pytest.approx([mean, math.log(unit)], rel=1e-15)
    assert head.gain.tolist() == [unit, 1.0]
    assert float(head.floor) == pytest.approx(1e-3 * unit, rel=1e-15)


@each
def test_the_shared_columns_follow_center_gain_and_parameter(name):
    head = make(name)
    head.center.copy_(torch.arange(head.eta_dim + head.shared_dim))
    head.gain.fill_(2.0)
    head.shared.data.fill_(0.25)
    complete = head.complete(torch.full((3, head.eta_dim), 9.0))
    assert complete[:, : head.eta_dim].tolist() == [[9.0] * head.eta_dim] * 3
    expected = [head.eta_dim + k + 0.5 for k in range(head.shared_dim)]
    assert complete[:, head.eta_dim :].tolist() == [expected] * 3


@each
def test_names_and_dimensions(name):
    head = make(name)
    width = len(EXAMPLES[name].points[0][0])
    assert head.eta_dim + head.shared_dim == width
    assert len(head.eta_names) == head.eta_dim
    assert len(head.shared_names) == head.shared_dim
    assert len(set(head.eta_names + head.shared_names)) == width


@each
def test_log_link_is_where_an_exposure_multiplies_the_mean(name):
    head, example = make(name), EXAMPLES[name]
    assert head.log_link == example.log_link
    if not example.integer:
        eta = torch.full((1, head.eta_dim), 0.3, dtype=torch.float64)
        moved = eta.clone()
        moved[:, 0] += math.log(5.0)
        multiplied = math.isclose(head(moved).mean.item(), 5 * head(eta).mean.item(), rel_tol=1e-12)
        assert multiplied == head.log_link


# ---------------------------------------------------------------------------------------------- what training sees


@each
def test_training_descends_the_nll_where_there_is_no_kink(name):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    predicted = eta[:, : head.eta_dim]
    assert head.kink == 0.0
    assert torch.equal(head.descent_nll(predicted, y), head.nll(predicted, y))


@each
@pytest.mark.parametrize("kink", [1.0, 1e-3, 1e-10])
def test_what_a_line_search_sees_is_less_than_the_kink_below_the_nll(name, kink):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    predicted = eta[:, : head.eta_dim].clone().requires_grad_()
    if not EXAMPLES[name].integer and head.support is torch.distributions.constraints.real:
        y[0] = predicted[0, 0].item()
    head.kink = kink
    gap = (head.nll(predicted, y) - head.descent_nll(predicted, y)).detach()
    rounding = 1e-14 * head.nll(predicted, y).abs().max().item()
    assert float(gap.min()) >= -rounding
    assert float(gap.max()) <= kink + rounding
    head.descent_nll(predicted, y).sum().backward()
    assert bool(torch.isfinite(predicted.grad).all())
    if EXAMPLES[name].smooth:
        assert bool((gap == 0).all())
    else:
        assert float(gap.max()) > 0
        (slope,) = torch.autograd.grad(head.descent_nll(predicted, y)[0], predicted)
        assert slope[0, 0].item() == 0.0


# ------------------------------------------------------------------------------------------------------ scale floor


@location_scale
def test_the_scale_is_the_larger_of_exp_eta_and_the_floor(name):
    head = make(name)
    head.floor.fill_(0.1)
    log_scale = torch.tensor([-900.0, -5.0, math.log(0.1) - 1e-9, math.log(0.1) + 1e-9, 0.0, 3.0], dtype=torch.float64)
    eta = torch.stack([torch.zeros(6, dtype=torch.float64), log_scale], -1)
    scale = head.distribution(eta).scale
    expected = np.maximum(np.exp(log_scale.numpy()), 0.1)
    np.testing.assert_allclose(scale, expected, rtol=1e-15)
    assert scale[:3].tolist() == [float(head.floor)] * 3


@location_scale
def test_an_interior_value_is_untouched_by_the_floor(name):
    free, floored = make(name), make(name)
    floored.floor.fill_(1e-3)
    eta, y = tensors(name, EXAMPLES[name].points)
    eta = eta.requires_grad_()
    results = []
    for head in (free, floored):
        nll = head.nll_complete(eta, y)
        (first,) = torch.autograd.grad(nll.sum(), eta, create_graph=True)
        results.append((nll, first))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@location_scale
def test_below_the_floor_only_a_gradient_that_raises_the_scale_passes(name):
    head = make(name)
    head.floor.fill_(0.1)
    eta = torch.tensor([[0.0, -4.0], [0.0, -4.0]], dtype=torch.float64, requires_grad=True)
    far, near = 50.0, 0.001
    head.nll_complete(eta, torch.tensor([far, near], dtype=torch.float64)).sum().backward()
    raises, lowers = eta.grad[:, 1].tolist()
    # At the scale floor 0.1, d nll / d scale times d exp(eta) / d eta = exp(-4).
    with mpmath.workdps(60):
        slope = mpmath.diff(lambda s: EXAMPLES[name].nll([mpmath.mpf(0), mpmath.log(s)], far), mpmath.mpf(0.1))
    assert raises == pytest.approx(float(slope) * math.exp(-4), rel=1e-12)
    assert raises < 0
    assert lowers == 0.0


@location_scale
def test_density_on_the_floor_is_that_of_the_floor(name):
    head = make(name)
    head.floor.fill_(0.1)
    eta = torch.tensor([[0.5, -20.0]], dtype=torch.float64)
    expected = -EXAMPLES[name].frozen([0.5, math.log(0.1)]).logpdf(0.7)
    assert float(head.nll_complete(eta, torch.tensor([0.7], dtype=torch.float64))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
def test_a_fixed_scale_knows_no_floor(kind):
    head = kind(scale=0.5)
    head.set_units(0.0, 1e6)
    assert head(torch.zeros(3, 1)).scale.tolist() == [0.5] * 3


# -------------------------------------------------------------------------------------------------------- settings


@each
def test_start(name):
    assert make(name).start == "null"
    assert make(name, start="zero").start == "zero"
    with pytest.raises(UsageError, match=r"head\.start='nul'"):
        build(name, start="nul")


def build(name: str, **settings: Any) -> Head:
    """The head built by its class, so that its own error is seen."""
    config = {key: value for key, value in node(name).items() if key != "_target_"}
    return hydra.utils.get_class(node(name)["_target_"])(**config | EXAMPLES[name].facts | settings)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("scale", ["predict", "", "SHARED", 0.0, -1.0, math.nan, math.inf])
def test_a_bad_source_is_refused(kind, scale):
    with pytest.raises(UsageError, match=r"head\.scale="):
        kind(scale=scale)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("floor", [-1e-3, 1.0, math.nan, math.inf])
def test_a_bad_floor_is_refused(kind, floor):
    with pytest.raises(UsageError, match=r"head\.scale_floor="):
        kind(scale_floor=floor)


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_too_few_classes_are_refused(num_classes):
    with pytest.raises(UsageError, match="at least 2 classes"):
        CategoricalHead(num_classes)


def test_the_source_decides_where_a_parameter_lives():
    assert [(h.eta_names, h.shared_names) for h in (GaussianHead("predicted"), GaussianHead(), GaussianHead(2.0))] == [
        (("loc", "scale"), ()),
        (("loc",), ("scale",)),
        (("loc",), ()),
    ]


# ---------------------------------------------------------------------------------------------- heads that coincide


def test_two_classes_are_a_bernoulli():
    eta = torch.linspace(-9, 9, 19, dtype=torch.float64)
    for y in (0, 1):
        two = CategoricalHead(2).nll(torch.stack([torch.zeros_like(eta), eta], -1), torch.full((19,), y))
        one = BernoulliHead().nll(eta.unsqueeze(-1), torch.full((19,), float(y), dtype=torch.float64))
        np.testing.assert_allclose(two, one, rtol=1e-9)


def test_a_poisson_built_from_its_rate_is_the_one_built_from_eta():
    head = PoissonHead()
    eta, y = tensors("poisson", EXAMPLES["poisson"].points)
    assert isinstance(head, FactorizedHead)
    built = head.build(rate=eta[:, 0].exp())
    np.testing.assert_allclose(-built.log_prob(y), exact("poisson", EXAMPLES["poisson"].points), rtol=1e-12)


def test_a_poisson_keeps_its_precision_across_the_change_of_form():
    # Both forms are exact at 30; neighbours on either side obey p(y + 1) / p(y) = rate / (y + 1).
    y = torch.arange(25.0, 36.0, dtype=torch.float64)
    nll = PoissonHead().nll(torch.full((11, 1), 3.0, dtype=torch.float64), y)
    np.testing.assert_allclose(nll.diff(), np.log(np.arange(26.0, 36.0)) - 3.0, rtol=1e-11)
