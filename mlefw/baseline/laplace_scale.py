"""The constant scale of a Laplace likelihood under a prior, by branch and bound."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from mlefw.baseline.globbing import Globbing
from mlefw.baseline.interior_point import Array, Fit
from mlefw.baseline.problem import Problem
from mlefw.head.head import Head
from mlefw.head.quantile import QuantileHead
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l2 import L2Prior


def strengths(problem: Problem, k: int = 0) -> tuple[Array, Array]:
    """The coefficients of ½ beta² and of |beta| in −log prior, for the design columns that eta column k has.

    Those of the bias are zero.
    """
    prior, columns = problem.prior, problem.design_columns(k).numpy()
    precision = 0.0
    if isinstance(prior, L2Prior):
        precision = prior.scale**-2
    elif isinstance(prior, ElasticNetPrior):
        precision = prior.l2_scale**-2
    covered = (columns < problem.num_active).astype(np.float64)
    return precision * covered, prior.rate * covered


def widening(head: Head) -> float:
    """Scale of the absolute deviations of a head as a multiple of the head's own scale.

    A quantile head has the NLL ρ(r) / scale = (|r| + (2 level − 1) r) / (2 scale), up to the normaliser.
    """
    return 2.0 if isinstance(head, QuantileHead) else 1.0


class LaplaceFit(NamedTuple):
    """A fit of coefficients and scale.

    Attributes:
        beta: coefficients, (p,).
        loss: Σ w |residual|, in raw units.
        scale: the scale, in raw units.
        gap: duality gap of the fit at that scale, in raw units.
        num_steps: number of interior point steps of the whole search.
        is_global: whether the scale is shown to be the best one.
    """

    beta: Array
    loss: float
    scale: float
    gap: float
    num_steps: int
    is_global: bool = True


class Penalised:
    """The fit that minimises Σ w |residual| / scale + population · log(scale) − log prior."""

    def __init__(self, problem: Problem, weight: Array) -> None:
        self.globbing, self.weight, self.total = Globbing(problem), weight, problem.population
        self.ridge, self.rate = strengths(problem)
        self.flat = problem.prior.flat
        self.problem, self.num_steps = problem, 0

    def best(self, fixed: float | None) -> LaplaceFit:
        """The best fit, at a fixed scale (in raw units) or with the best scale."""
        if self.flat:
            fit = self._fit(0.0)
            return self._found(fit, fit.objective, fixed if fixed is not None else fit.objective / self.total)
        if fixed is not None:
            return self.at(fixed)
        # A stationary scale is a mean absolute residual, so it lies between those of the unpenalised fit and of the
        # null model.
        least = self._fit(0.0).objective / self.total
        null = self.problem.restricted(torch.zeros(0, dtype=torch.long))
        none = np.zeros(len(null.design_columns(0)))
        most = Globbing(null).fit(self.weight, none, none).objective / self.total
        if least <= 1e-12 * most:
            return self.at(least)
        found, is_global = self._search(least, max(most, least))
        return self._settle(found)._replace(is_global=is_global, num_steps=self.num_steps)

    def at(self, scale: float) -> LaplaceFit:
        """The fit at a given scale; coefficients that a kink of the prior keeps at zero are exactly zero."""
        fit = self._fit(scale)
        beta = fit.beta
        under = self.rate > 0
        if under.any():
            beta = np.where(under & (np.abs(beta) < 1e-9 * (1e-3 + np.abs(beta[under]).max())), 0.0, beta)
        return self._found(fit._replace(beta=beta), fit.objective - scale * self._penalty(beta), scale)

    def _fit(self, scale: float) -> Fit:
        fit = self.globbing.fit(self.weight, scale * self.ridge, scale * self.rate)
        self.num_steps += fit.num_steps
        return fit

    def _found(self, fit: Fit, loss: float, scale: float) -> LaplaceFit:
        return LaplaceFit(fit.beta, loss, scale, fit.gap, self.num_steps)

    def _penalty(self, beta: Array) -> float:
        return float(0.5 * self.ridge @ beta**2 + self.rate @ np.abs(beta))

    def _search(self, least: float, most: float) -> tuple[LaplaceFit, bool]:
        """The best fit with a scale in [least, most], up to 1e-9 nats per observation, by branch and bound.

        The minimum over beta of precision · loss + penalty is concave in precision = 1 / scale, so it lies above its
        chords: on each interval, chord − population · log(precision) is a lower bound, with a closed-form minimum.
        """
        points = [self._point(1 / most), self._point(1 / least)]
        for _ in range(100):
            best = min(points, key=lambda point: point.value)
            bound, middle = min(_chord(self.total, *pair) for pair in pairwise(points))
            if bound >= best.value - 1e-9 * self.total:
                return best.found, True
            points = sorted([*points, self._point(middle)], key=lambda point: point.precision)
        return best.found, False

    def _point(self, precision: float) -> "_Point":
        found = self.at(1 / precision)
        inner = precision * found.loss + self._penalty(found.beta)
        return _Point(precision, inner, inner - self.total * math.log(precision), found)

    def _settle(self, found: LaplaceFit) -> LaplaceFit:
        """The fit whose scale is its mean absolute residual, by the secant method from a fit near it."""
        before: tuple[float, float] | None = None
        for _ in range(50):
            scale, miss = found.scale, found.loss / self.total - found.scale
            if abs(miss) < 1e-14 * scale:
                break
            step = miss
            if before is not None and before[1] != miss and abs(miss) < abs(before[1]):
                step = -miss * (scale - before[0]) / (miss - before[1])
                step = step if abs(step) < 10 * abs(miss) else miss
            before = (scale, miss)
            found = self.at(scale + step)
        return found


class _Point(NamedTuple):
    precision: float
    inner: float
    value: float
    found: LaplaceFit


def _chord(total: float, left: _Point, right: _Point) -> tuple[float, float]:
    """The lower bound on an interval of precisions, and the precision at which to split the interval."""
    width = right.precision - left.precision
    if width <= 1e-12 * right.precision:
        return math.inf, left.precision
    gap = max(left.found.gap * left.precision, right.found.gap * right.precision)
    slope = (right.inner - left.inner) / width
    middle = total / slope if slope > 0 else right.precision
    middle = min(max(middle, left.precision), right.precision)
    bound = left.inner + slope * (middle - left.precision) - total * math.log(middle) - gap
    return bound, min(max(middle, left.precision + 0.02 * width), right.precision - 0.02 * width)
