"""The linear Laplace model with a predicted scale."""

import math
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from scipy.linalg import cho_solve

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.globbing import Globbing, spread
from mlefw.baseline.interior_point import Array, factored, gram
from mlefw.baseline.laplace_scale import strengths, widening
from mlefw.baseline.problem import Problem
from mlefw.head.laplace import LaplaceHead
from mlefw.head.quantile import QuantileHead
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior

_COLLAPSED = -100.0
"""Log scale, in units of the target, below which the objective is taken to decrease without bound."""
_SHOWN = math.log(1e-7)
"""Log scale that is reported for such a descent."""
_LONGEST = 2.0
"""Largest change of a log scale coefficient in one step of Newton's method."""


class VaryingLaplace(Solver):
    """Least absolute deviations for the location and Newton's method for the log scale in turn, from several starts.

    Each subproblem is convex and solved exactly. The deviation of a row on the plane is zero at any scale, so that the
    subdifferential is a product over location and log scale: a pair at which both subproblems are optimal is jointly
    stationary. Without a prior the location is a vertex, of which there are finitely many, and each turn descends, so
    that the method terminates. The residual is the larger of the duality gap of the location, in nats per observation,
    and the gradient in the log scale.
    """

    takes_terms: ClassVar = True

    def __init__(self, num_starts: int = 4, max_turns: int = 100) -> None:
        self.num_starts, self.max_turns = num_starts, max_turns

    def supports(self, problem: Problem) -> bool:
        """Whether the head is Laplace or a quantile with a predicted scale, and the prior flat or Gaussian."""
        varying = type(problem.head) in (LaplaceHead, QuantileHead) and problem.head.eta_names == ("loc", "scale")
        return varying and type(problem.prior) in (NoPrior, L2Prior)

    def solve(self, problem: Problem) -> Solution:
        """The best stationary point over all starts; or if the objective is unbounded below, a point on the way."""
        turns, ends = _Turns(problem), list[_End]()
        generator = torch.Generator().manual_seed(0)
        for count in range(self.num_starts):
            gamma = 0.5 * torch.randn(len(turns.columns), dtype=torch.float64, generator=generator).numpy()
            ends.append(turns.run((count > 0) * gamma, self.max_turns))
        best = min(ends, key=lambda end: (not end.collapsed, end.residual > 1e-8, end.value))
        theta = torch.cat([spread(problem, best.beta), spread(problem, best.gamma, 1)])
        converged = best.residual < 1e-8 and not best.collapsed
        proved = (converged and problem.num_active == 0 and problem.is_plain) or None
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=best.residual,
            solver="interior point and newton",
            num_steps=best.num_steps,
            converged=converged,
            # Without features the location is the median at any scale, and the scale the mean deviation from it.
            is_global=proved,
            exists=proved,
        )


class _End(NamedTuple):
    """End of a descent.

    Attributes:
        beta: coefficients of the location, (p,).
        gamma: coefficients of the log scale, (p,).
        value: objective times population, up to a constant.
        residual: violation of optimality, in nats per observation.
        num_steps: number of turns.
        collapsed: whether the objective decreases without bound from here.
    """

    beta: Array
    gamma: Array
    value: float
    residual: float
    num_steps: int
    collapsed: bool = False


class _Turns:
    """Alternates between location and log scale; all scales are in units of the raw output."""

    def __init__(self, problem: Problem) -> None:
        self.globbing, self.weight, self.total = Globbing(problem), problem.rows.weight.numpy(), problem.population
        self.ridge, self.rate = strengths(problem)
        self.columns, self.scale_ridge = problem.design_columns(1), strengths(problem, 1)[0]
        self.has_intercept = bool(problem.has_intercept[1])
        offset = problem.rows.offset
        self.offset: Array | float = offset[:, 1].numpy() if offset.ndim > 1 else 0.0
        self.origin = float(problem.head.center[1] - problem.head.gain[0].log())
        self.origin += math.log(widening(problem.head))
        self.slope = float(problem.head.gain[1])
        self.ends: list[_End] = []

    def run(self, gamma: Array, max_turns: int) -> _End:
        """Descend from log scale coefficients; ends early, with the end of an earlier run, if it meets its path."""
        fit = self.globbing.fit(self.weight * np.exp(-self._log_scale(gamma)), self.ridge, self.rate)
        # Adjust the intercept of the log scale to the mean deviation first.
        if self.has_intercept:
            gamma[-1] += math.log(fit.objective / self.total + 1e-300) / self.slope
        for count in range(1, max_turns + 1):
            deviation, beta = self._deviation(fit.beta), fit.beta
            gamma, slope, collapsed = self._newton(deviation, gamma)
            log_scale = self._log_scale(gamma)
            value = float(self.weight @ (log_scale + deviation * np.exp(-log_scale)))
            value += 0.5 * float(self.ridge @ beta**2) + 0.5 * float(self.scale_ridge @ gamma**2)
            if collapsed:
                return _End(beta, gamma, value, _largest(slope) / self.total, count, collapsed)
            for end in self.ends:
                if end.residual < 1e-8 and np.allclose(end.beta, beta, rtol=1e-9, atol=1e-12):
                    return end
            weight = self.weight * np.exp(-log_scale)
            fit = self.globbing.fit(weight, self.ridge, self.rate)
            here = float(weight @ deviation) + 0.5 * float(self.ridge @ beta**2)
            residual = max(max(here - fit.objective, 0.0) + fit.gap, _largest(slope)) / self.total
            end = _End(beta, gamma, value, residual, count)
            if residual < 1e-12:
                break
        self.ends.append(end)
        return end

    def _log_scale(self, gamma: Array) -> Array:
        parts = [self.slope * (z @ gamma) for _, z, _, _ in self.globbing.blocks(self.weight, self.columns)]
        return np.asarray(self.origin + np.concatenate(parts) + self.offset)

    def _deviation(self, beta: Array) -> Array:
        """|y − z beta| or twice its pinball loss, (n,), with values of rounding size set to zero."""
        parts = []
        for _, z, y, _ in self.globbing.blocks(self.weight):
            deviation = self.globbing.losses(y - z @ beta)
            parts.append(np.where(deviation < 1e-13 * (1 + np.abs(y)), 0.0, deviation))
        return np.concatenate(parts)

    def _newton(self, deviation: Array, gamma: Array) -> tuple[Array, Array, bool]:
        """Minimise Σ w (s + deviation · exp(−s)) + ½ Σ ridge gamma² over gamma, s being the log scale.

        Returns gamma, the gradient there, and whether some s goes to −∞.
        """
        value, slope, curvature, lowest = self._derivatives(deviation, gamma)
        shown: tuple[Array, Array] | None = None
        for _ in range(100):
            if _largest(slope) < 1e-13 * self.total or lowest < _COLLAPSED:
                break
            root, factor = factored(curvature)
            step = -root * cho_solve(factor, root * slope)
            step *= min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-300))
            decrement, length = -float(slope @ step), 1.0
            for _ in range(60):
                there = self._derivatives(deviation, gamma + length * step)
                polishing = decrement < 1e-12 * self.total and _largest(there[1]) < _largest(slope)
                if there[0] <= value - 1e-4 * length * decrement or polishing:
                    break
                length /= 2
            else:
                break
            gamma = gamma + length * step
            value, slope, curvature, lowest = there
            if shown is None and lowest < _SHOWN:
                shown = gamma, slope
        return (*shown, True) if shown is not None and lowest < _COLLAPSED else (gamma, slope, False)

    def _derivatives(self, deviation: Array, gamma: Array) -> tuple[float, Array, Array, float]:
        """Value, gradient (p,) and Hessian (p, p) in gamma, and the least log scale of a row."""
        ridge = self.scale_ridge
        value, slope, curvature = 0.5 * float(ridge @ gamma**2), ridge * gamma, np.diag(ridge)
        lowest = math.inf
        for rows, z, _, w in self.globbing.blocks(self.weight, self.columns):
            shift = self.offset[rows] if isinstance(self.offset, np.ndarray) else self.offset
            log_scale = self.origin + self.slope * (z @ gamma) + shift
            ratio = deviation[rows] * np.exp(np.minimum(-log_scale, 500.0))
            value += float(w @ (log_scale + ratio))
            slope = slope + self.slope * ((w * (1 - ratio)) @ z)
            curvature = curvature + self.slope**2 * gram(z, w * ratio)
            lowest = min(lowest, float(log_scale[w > 0].min(initial=math.inf)))
        return value, slope, curvature, lowest


def _largest(slope: Array) -> float:
    return float(np.abs(slope).max(initial=0.0))
