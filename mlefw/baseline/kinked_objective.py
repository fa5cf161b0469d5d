"""The objective of a linear model with a kinked density, split into absolute deviations and a smooth part."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from mlefw.baseline.globbing import spread
from mlefw.baseline.interior_point import Array, Deviations, Fit, gram, interior_point
from mlefw.baseline.laplace_scale import strengths
from mlefw.baseline.moments import raw_target
from mlefw.baseline.problem import Problem
from mlefw.head.censored import CensoredHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.rows.rows import Rows

_ENOUGH = 1e-13
"""Predicted gain of a step, in nats per observation, below which the descent ends."""
_DAMPED = 1e-7
"""Curvature, as a share of the largest, that is added to the smooth part, which may have none."""


def kinked_component(problem: Problem) -> LaplaceHead | HuberHead | None:
    """The Laplace or Huber head of a problem, possibly inside a censored head; None for any other head."""
    head = problem.head
    part = head.component if isinstance(head, CensoredHead) else head
    return part if isinstance(part, LaplaceHead | HuberHead) else None


def is_exact(y: Tensor) -> Tensor:
    """Whether each row is an exact observation rather than a pair of bounds, (n,)."""
    return torch.ones(len(y), dtype=torch.bool) if y.ndim == 1 else y[:, 0] == y[:, 1]


class _Smooth(NamedTuple):
    """Value, gradient (q,) and Hessian (q, q) of the smooth part of the objective."""

    value: float
    gradient: Array
    hessian: Array


class KinkedObjective:
    """The objective times the population, split into kinked deviations and a smooth part.

    It is a function of the coefficients, and of a learnt precision unless a `scale` in raw units is given.
    """

    def __init__(self, problem: Problem, scale: float | None = None) -> None:
        self.problem, self.head = problem, problem.head
        part = kinked_component(problem)
        assert part is not None
        self.learnt, unit = bool(problem.head.shared_dim) and scale is None, float(problem.head.gain[0])
        self.scale = scale or (1.0 if self.learnt else part.fixed["scale"] / unit)
        rows, y = problem.rows, problem.rows.y
        exact = is_exact(y)
        used = rows.weight > 0
        known = rows.take(exact & used)
        self.bounded: Rows = rows.take(~exact & used)
        columns = problem.design_columns(0)
        self.z_bounded = problem.design(self.bounded)[:, columns]
        target = raw_target(problem, known.y if y.ndim == 1 else known.y[:, 0], known.first_offset).numpy()
        z, weight = problem.design(known)[:, columns].numpy(), known.weight.numpy()
        if self.learnt:
            z, target = np.concatenate([z, -target[:, None]], 1), np.zeros(len(target))
        self.mass = float(weight.sum()) if self.learnt else 0.0
        slope, soft = weight / self.scale, 0.0 * weight
        if isinstance(part, HuberHead):
            slope, soft = part.fixed["delta"] * slope, self.scale**2 / weight
        self.size = z.shape[1]
        ridge, rate = strengths(problem)
        self.ridge, under = np.zeros(self.size), rate > 0
        self.held, self.width = under, len(ridge)
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
        """The minimiser, a bound on its excess in nats per observation, and the number of interior point steps."""
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
        """A point in the layout of theta."""
        if not self.learnt:
            return spread(self.problem, point)
        return self.problem.with_scale(spread(self.problem, point[:-1] / point[-1]), 1 / float(point[-1]))

    def with_zeros(self, beta: Array) -> Array:
        """Coefficients with those set to exactly zero that a kink of the prior keeps there up to rounding."""
        size = np.abs(beta[self.held]).max(initial=0.0)
        return np.where(self.held & (np.abs(beta) < 1e-9 * (1e-3 + size)), 0.0, beta)

    def _start(self) -> Array:
        """Zero coefficients, and a precision of one if it is learnt."""
        start = np.zeros(self.size)
        start[-1] = float(self.learnt)
        return start

    def _model(self, point: Array, here: _Smooth) -> tuple[Fit, Array]:
        """The minimiser of deviations plus a quadratic model of the smooth part, which is a ridge after whitening."""
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
        """The point after a backtracking line search, its smooth part and value; None if nothing decreases."""
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
        """The smooth part at a point: censored rows, ridge, and −mass · log(precision)."""
        z, rows, width = self.z_bounded, self.bounded, self.width
        move = (z @ torch.from_numpy(point[:width])).requires_grad_()
        precision = torch.full_like(move, float(point[-1]) if self.learnt else 1.0).requires_grad_()
        eta = self.head.center[0] + self.head.gain[0] * move / precision + rows.first_offset
        columns = [eta, (self.scale * self.head.gain[0] / precision).log()] if self.head.shared_dim else [eta]
        nll = self.head.nll_complete(torch.stack(columns, -1), rows.y)
        slopes = torch.autograd.grad(nll.sum(), (move, precision), create_graph=True, materialize_grads=True)
        curved = [
            torch.autograd.grad(s.sum(), (move, precision), retain_graph=True, materialize_grads=True) for s in slopes
        ]
        value, design = float(rows.weight @ nll.detach()), torch.cat([z, z.new_ones(len(z), 1)], 1)
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
