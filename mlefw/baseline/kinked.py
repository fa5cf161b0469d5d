"""Linear models whose density has a kink, or nearly one: Huber's, and a Laplace density of bounds."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.collapse import on_a_plane
from mlefw.baseline.interior_point import Array, Deviations, Fit, gram, interior_point
from mlefw.baseline.laplace_scale import strengths
from mlefw.baseline.moments import raw_target
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton
from mlefw.baseline.scale_profile import Point, lowest
from mlefw.head.censored import CensoredHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows

_ENOUGH = 1e-13
"""Nats per observation that a step has to promise."""
_DAMPED = 1e-7
"""Curvature, as a share of the largest, that is added where the smooth part may have none."""
_WIDEST = 20.0
"""Range of log scales that is looked at, where the fit without a prior has next to none."""
_FEW = 60
"""Steps that Newton's method has where the kinks may be out of its way."""


class Kinked(Solver):
    """A proximal Newton method whose model keeps the kinks: each step is a fit of absolute deviations under a ridge.

    What is known exactly is a sum of absolute deviations, sharp (Laplace) or rounded (Huber); bounds and a learnt scale
    are smooth. With a given scale the parameters are the coefficients beta, with a learnt one gamma = beta / scale and
    the precision 1 / scale, in which the whole is convex (Olsen, 1978; Burridge, 1981): every step descends, and what
    the last one promises bounds the excess, as for Newton's method. Huber's density goes to Newton's method first.

    Under a prior a learnt scale leaves nothing convex, but for each scale the rest is: the scale is looked for.
    """

    def supports(self, problem: Problem) -> bool:
        """Huber's head with a given delta, or a censored Laplace head with some rows that are no bounds."""
        head = problem.head
        kinked = type(_component(problem)) is (LaplaceHead if isinstance(head, CensoredHead) else HuberHead)
        given = not (isinstance(head, HuberHead) and "delta" not in head.fixed)
        known = _is_exact(problem.rows.y) & (problem.rows.weight > 0)
        ours = type(problem.prior) in (NoPrior, L2Prior, L1Prior, ElasticNetPrior)
        return kinked and given and head.eta_names == ("loc",) and ours and bool(known.any())

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with the bound of its excess."""
        exists = None
        if problem.head.shared_names and not problem.prior.flat:
            theta, gap, steps = _over_scales(problem)
            # The prior holds the weights, the rows the bias, and rows that no plane goes through the scale.
            exists = None if on_a_plane(problem) else True
        else:
            first = Newton(_FEW) if problem.prior.smooth else ProximalNewton(_FEW)
            if isinstance(problem.head, HuberHead) and (found := first.solve(problem)).converged:
                return found
            parts = _Parts(problem)
            point, gap, steps = parts.minimum()
            theta = parts.theta(point)
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=gap,
            solver="interior point",
            num_steps=steps,
            converged=gap < 1e-9,
            exists=exists,
            gap=gap,
        )


def _over_scales(problem: Problem) -> tuple[Tensor, float, int]:
    """Theta under a prior with a learnt scale, by how much it may exceed the bottom of its valley, and all steps.

    The scale is looked for between that of the fit without a prior and that of the null model.
    """
    counts: list[int] = []

    def profile(log_scale: float, near: Point | None) -> Point:
        parts = _Parts(problem, math.exp(log_scale))
        beta, gap, steps = parts.minimum(None if near is None else near.theta[: parts.size].numpy())
        theta = problem.with_scale(torch.from_numpy(parts.with_zeros(beta)), parts.scale)
        value, gradient = problem.slope(theta)
        counts.append(steps)
        return Point(log_scale, theta, value, float(gradient[-1] / problem.head.gain[1]), gap)

    flat = replace(problem, prior=NoPrior())
    null = flat.restricted(problem.active[:0])
    low, high = (-math.log(float(_Parts(of).minimum()[0][-1])) for of in (flat, null))
    best = lowest(profile, min(max(low, high - _WIDEST), high), high)
    return best.theta, best.gap, sum(counts)


def _component(problem: Problem) -> LaplaceHead | HuberHead | None:
    head = problem.head
    part = head.component if isinstance(head, CensoredHead) else head
    return part if isinstance(part, LaplaceHead | HuberHead) else None


def _is_exact(y: Tensor) -> Tensor:
    """Which rows, (n,), are a number, not bounds of one."""
    return torch.ones(len(y), dtype=torch.bool) if y.ndim == 1 else y[:, 0] == y[:, 1]


class _Smooth(NamedTuple):
    """Value, gradient (q,) and Hessian (q, q) of what has no kinks."""

    value: float
    gradient: Array
    hessian: Array


class _Parts:
    """The objective times the population, over the coefficients, and a learnt precision, if no raw `scale` is given."""

    def __init__(self, problem: Problem, scale: float | None = None) -> None:
        self.problem, self.head = problem, problem.head
        part = _component(problem)
        assert part is not None
        self.learnt, unit = bool(problem.head.shared_dim) and scale is None, float(problem.head.gain[0])
        self.scale = scale or (1.0 if self.learnt else part.fixed["scale"] / unit)
        rows, y = problem.rows, problem.rows.y
        exact = _is_exact(y)
        used = rows.weight > 0
        known = rows.take(exact & used)
        self.bounded: Rows = rows.take(~exact & used)
        self.z_bounded = problem.design(self.bounded)
        target = raw_target(problem, known.y if y.ndim == 1 else known.y[:, 0], known.offset).numpy()
        z, weight = problem.design(known).numpy(), known.weight.numpy()
        if self.learnt:
            z, target = np.concatenate([z, -target[:, None]], 1), np.zeros(len(target))
        self.mass = float(weight.sum()) if self.learnt else 0.0
        slope, soft = weight / self.scale, 0.0 * weight
        if isinstance(part, HuberHead):
            slope, soft = part.fixed["delta"] * slope, self.scale**2 / weight
        self.size = z.shape[1]
        ridge, rate = strengths(problem.prior, problem.num_active + 1)
        self.ridge, under = np.zeros(self.size), rate > 0
        self.held = under
        self.ridge[: len(ridge)] = ridge
        z = np.concatenate([z, np.eye(len(rate))[under]]) if under.any() else z
        nothing = np.zeros(int(under.sum()))
        self.kinks = Deviations(
            z,
            np.concatenate([target, nothing]),
            np.concatenate([slope, rate[under]]),
            np.zeros(self.size),
            np.concatenate([soft, nothing]),
        )

    def minimum(self, start: Array | None = None) -> tuple[Array, float, int]:
        """The minimum, by how many nats per observation it may be missed, and the number of interior point steps."""
        population = self.problem.population
        if not self.learnt and not self.bounded.num_rows:
            fit = interior_point(self.kinks._replace(ridge=self.ridge))
            return fit.beta, fit.gap / population, fit.num_steps
        point, steps, gap = self._start() if start is None else start, 0, math.inf
        here = self._smooth(point)
        value = here.value + self.kinks.objective(point)
        for _ in range(100):
            fit, aim = self._model(point, here)
            steps += fit.num_steps
            change = aim - point
            promised = value - here.value - float(here.gradient @ change) - self.kinks.objective(aim)
            gap = (abs(promised) + fit.gap) / population
            if promised < _ENOUGH * population or not np.isfinite(aim).all():
                break
            found = self._search(point, change, value, promised)
            if found is None:
                break
            point, here, value = found
        return point, gap, steps

    def theta(self, point: Array) -> Tensor:
        """In the layout of the problem."""
        beta = torch.from_numpy(point)
        return self.problem.with_scale(beta[:-1] / beta[-1], 1 / float(beta[-1])) if self.learnt else beta

    def with_zeros(self, beta: Array) -> Array:
        """Coefficients of which those that a kink of the prior holds are zero."""
        size = np.abs(beta[:-1]).max(initial=0.0)
        return np.where(self.held & (np.abs(beta) < 1e-9 * (1e-3 + size)), 0.0, beta)

    def _start(self) -> Array:
        """The coefficients at zero; with a precision of one, in the unit of the target."""
        start = np.zeros(self.size)
        start[-1] = float(self.learnt)
        return start

    def _model(self, point: Array, here: _Smooth) -> tuple[Fit, Array]:
        """The minimum of the kinks and the quadratic model of the rest, in coordinates in which that is a ridge."""
        hessian = here.hessian
        scale = hessian.diagonal().max() + gram(self.kinks.z, self.kinks.weight).diagonal().max()
        root = np.linalg.cholesky(hessian + _DAMPED * scale * np.eye(self.size))
        center = point - solve_triangular(root.T, solve_triangular(root, here.gradient, lower=True))
        z = solve_triangular(root, self.kinks.z.T, lower=True).T
        of = self.kinks._replace(z=z, y=self.kinks.y - self.kinks.z @ center, ridge=np.ones(self.size))
        fit = interior_point(of)
        return fit, center + solve_triangular(root.T, fit.beta)

    def _search(
        self, point: Array, change: Array, value: float, promised: float
    ) -> tuple[Array, _Smooth, float] | None:
        """A shorter step, where the whole would not descend, and what is there."""
        length = 1.0
        for _ in range(50):
            there = point + length * change
            if not self.learnt or there[-1] > 0.1 * point[-1]:
                smooth = self._smooth(there)
                reached = smooth.value + self.kinks.objective(there)
                if reached <= value - 1e-4 * length * promised:
                    return there, smooth, reached
            length /= 2
        return None

    @torch.enable_grad()
    def _smooth(self, point: Array) -> _Smooth:
        """The rows of which bounds are known, a ridge, and −mass · log precision."""
        z, rows, width = self.z_bounded, self.bounded, self.problem.num_active + 1
        move = (z @ torch.from_numpy(point[:width])).requires_grad_()
        precision = torch.full_like(move, float(point[-1]) if self.learnt else 1.0).requires_grad_()
        eta = self.head.center[0] + self.head.gain[0] * move / precision
        columns = [eta, (self.scale * self.head.gain[0] / precision).log()] if self.head.shared_dim else [eta]
        nll = self.head.nll_complete(torch.stack(columns, -1), rows.y)
        slopes = torch.autograd.grad(nll.sum(), (move, precision), create_graph=True, materialize_grads=True)
        curved = [
            torch.autograd.grad(s.sum(), (move, precision), retain_graph=True, materialize_grads=True) for s in slopes
        ]
        value, design = float(rows.weight @ nll.detach()), torch.cat([z, torch.ones_like(z[:, :1])], 1)
        of = [0] * width + [1]
        gradient = torch.stack([rows.weight @ (slopes[k].detach() * design[:, j]) for j, k in enumerate(of)])
        weights = [[(rows.weight * curved[a][b]).unsqueeze(1) for b in (0, 1)] for a in (0, 1)]
        hessian = torch.empty(width + 1, width + 1, dtype=torch.float64)
        hessian[:width, :width] = z.T @ (weights[0][0] * z)
        hessian[width, :width] = hessian[:width, width] = (weights[0][1] * z).sum(0)
        hessian[width, width] = weights[1][1].sum()
        slope, curvature = gradient.numpy()[: self.size], hessian.numpy()[: self.size, : self.size].copy()
        value += 0.5 * float(self.ridge @ point**2)
        slope, curvature = slope + self.ridge * point, curvature + np.diag(self.ridge)
        if self.learnt:
            value -= self.mass * math.log(point[-1])
            slope[-1] -= self.mass / point[-1]
            curvature[-1, -1] += self.mass / point[-1] ** 2
        return _Smooth(value, slope, curvature)
