"""L-BFGS in whitened coordinates, which solves problems with many rows without a Hessian over all rows."""

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives
from mlefw.baseline.problem import Problem

_ENOUGH = 1e-18
"""Squared whitened gradient, in nats, at which the descent ends: half of it is the gain of a Newton step."""
_NARROW = 8
"""Number of features below which a Hessian is hardly more expensive than a gradient."""
_FEW = 80
"""Rows for each feature above which the method pays."""
_WORTH = 6e5
"""Rows times features times squared number of eta columns below which a few Newton steps take less time."""
_ROUND = 30.0
"""Condition number of a sample's Hessian up to which scaling the coordinates suffices."""


class Approach(NamedTuple):
    """End of a descent: theta, objective, gradient (size,), number of passes, and whether the gradient is small."""

    theta: Tensor
    value: float
    gradient: Tensor
    num_passes: int
    settled: bool


def approach(problem: Problem, theta: Tensor) -> Approach | None:
    """Descend from theta by L-BFGS (Nocedal, 1980) on all rows, in coordinates in which a sample has unit curvature.

    The sample is fitted first, so that the descent starts within its statistical error of the optimum, with the
    curvature there: each pass then gains about a digit, whatever the condition of the features. If a sample would be a
    large part of all rows, the curvature at theta is used instead: scaled for well-conditioned features, or as a
    Kronecker product for several eta columns. None if there are too few rows for it to pay, or the sample has no
    optimum.
    """
    if not pays(problem) or not problem.is_plain:
        return None
    step = problem.rows.num_rows // max(20 * problem.size, problem.rows.num_rows // 16)
    if step < 4:
        root = _product_root(problem, theta)
        return None if root is None else _descend(problem, theta, root, _ENOUGH, 100)
    root = _curvature_root(sample(problem, 5 * step), theta)
    if root is not None and step < 8 and float(torch.linalg.cond(root)) ** 2 < _ROUND:
        return _descend(problem, theta, torch.diag(root.square().sum(1).sqrt()), _ENOUGH, 60)
    near = sample(problem, step)
    if root is not None:
        theta = _descend(near, theta, root, 1e-4 / near.rows.num_rows, 40).theta
        root = _curvature_root(near, theta)
    return None if root is None else _descend(problem, theta, root, _ENOUGH, 60)


def pays(problem: Problem) -> bool:
    """Whether there are enough rows and features for the method to be faster than Newton steps on all rows."""
    features, rows = problem.num_active, problem.rows.num_rows
    worth = float(rows) * features * problem.head.eta_dim**2 >= _WORTH
    return features >= _NARROW and rows >= _FEW * (features + 1) and worth


def sample(problem: Problem, step: int) -> Problem:
    """The problem on every `step`-th row, with weights scaled to the population of all rows."""
    rows = problem.rows.take(slice(0, None, step))
    heavier = rows.weight * (problem.population / float(rows.weight.sum()))
    return replace(problem, rows=rows._replace(weight=heavier))


def _curvature_root(problem: Problem, theta: Tensor) -> Tensor | None:
    """Lower triangular L with L L' the Hessian in the free entries of theta; None if it is not safely positive."""
    free = problem.free
    hessian = problem.derivatives(theta).hessian[free][:, free]
    diagonal = hessian.diagonal()
    if not bool((diagonal > 0).all()):
        return None
    scale = diagonal.sqrt()
    factor, failed = torch.linalg.cholesky_ex(hessian / scale / scale.unsqueeze(1))
    if bool(failed) or not float(factor.diagonal().min()) > 1e-6:
        return None
    return scale.unsqueeze(1) * factor


def _product_root(problem: Problem, theta: Tensor) -> Tensor | None:
    """Lower triangular L with L L' = (mean curvature of the eta columns) ⊗ (mean products of the features).

    It is the Hessian if the curvature does not vary over rows. None under a prior or with shared parameters, where the
    Hessian is not such a product, and for one eta column, where it saves nothing.
    """
    head = problem.head
    if not problem.prior.flat or head.shared_dim or head.eta_dim == 1:
        return None
    near = sample(problem, 1 + problem.rows.num_rows // (20 * (problem.num_active + 1)))
    eta = torch.cat([eta for _, _, eta in near.etas(theta)])
    curvature = row_derivatives(head, eta, near.rows.y)[2]
    share = (near.rows.weight / near.population).view(-1, 1, 1)
    columns = problem.free.view(head.eta_dim, -1)[:, 0]
    mean = (share * curvature).sum(0)[columns][:, columns] * head.gain[columns] * head.gain[columns].unsqueeze(1)
    design = near.design(near.rows)
    products = design.T @ (share.view(-1, 1) * design)
    factors = [torch.linalg.cholesky_ex(part) for part in (mean, products)]
    if any(bool(failed) for _, failed in factors):
        return None
    return torch.kron(factors[0][0], factors[1][0])


def _descend(problem: Problem, theta: Tensor, root: Tensor, enough: float, max_passes: int) -> Approach:
    """L-BFGS in u = root' · theta, until the squared gradient in u is below `enough` or does not decrease any more."""
    free = problem.free
    value, gradient = problem.slope(theta)
    here = _whiten(root, gradient[free])
    memory = _Memory()
    num_passes, least = 1, float(here @ here)
    while num_passes < max_passes and least > enough * max(1.0, abs(value)):
        move = memory.direction(here)
        promised = float(here @ move)
        change = torch.zeros_like(theta)
        change[free] = torch.linalg.solve_triangular(root.T, move.unsqueeze(1), upper=True).squeeze(1)
        there_value, there_gradient = problem.slope(theta + change)
        num_passes += 1
        there = _whiten(root, there_gradient[free])
        size = float(there @ there)
        # Near the optimum, rounding hides changes of the objective, but the gradient still shows progress.
        resolved = -promised > 1e-12 * max(1.0, abs(value))
        if resolved and not there_value <= value + 1e-4 * promised:
            memory.shrink()
            continue
        if not resolved and not size < 100 * least:
            break
        memory.add(move, there - here)
        theta, value, gradient, here, least = theta + change, there_value, there_gradient, there, size
    return Approach(theta, value, gradient, num_passes, least <= enough * max(1.0, abs(value)))


def _whiten(root: Tensor, gradient: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(root, gradient.unsqueeze(1), upper=False).squeeze(1)


class _Memory:
    """The last steps and gradient changes of L-BFGS, which represent an inverse Hessian."""

    def __init__(self, size: int = 12) -> None:
        self.pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=size)
        self.length = 1.0

    def shrink(self) -> None:
        """Shorten the next step, after one that was too long."""
        self.length /= 4

    def add(self, move: Tensor, change: Tensor) -> None:
        """Store a step and its change of the gradient."""
        curvature = float(move @ change)
        if curvature > 1e-14 * float(change @ change) ** 0.5 * float(move @ move) ** 0.5:
            self.pairs.append((move, change, 1 / curvature))
        self.length = 1.0

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian times the gradient, shortened after a step that was too long, (size,)."""
        q, shares = gradient, []
        for move, change, inverse in reversed(self.pairs):
            share = inverse * (move @ q)
            q = q - share * change
            shares.append(share)
        if self.pairs:
            move, change, inverse = self.pairs[-1]
            q = q / (inverse * (change @ change))
        for (move, change, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            q = q + move * (share - inverse * (change @ q))
        return -self.length * q
