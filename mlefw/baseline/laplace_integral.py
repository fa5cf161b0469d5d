"""Laplace's approximation of the restricted or marginal likelihood of any head with normal priors (Wood, 2011)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.gaussian_integral import log_units
from mlefw.baseline.newton import Newton
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Criterion, NaturalUnits, at_precision, whole_root

_INNER_STEPS = 60
"""Most Newton steps of the penalised estimate at given scales, from that at other scales."""
_STEP = 1e-4
"""Step of differences of Hessians, as a share of the largest coefficient."""


class LaplaceIntegral:
    """The criterion of any head and its gradient, with the estimate of the last call as the start of the next.

    Coefficients with a prior are taken as a root of their covariance times numbers v that are standard normal, and all
    others in their own units: so nothing grows without bound where a variance goes to zero, or a correlation to one.
    """

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.free = problem, problem.free
        self.units = log_units(problem).exp()
        order = self.free.cumsum(0) - 1
        self.places = [order[place] for place in problem.places()]
        self.own = torch.zeros(len(self.units), dtype=torch.float64)
        for place in self.places:
            self.own[place] = 1.0
        # Which coefficients are integrated out, among the free ones.
        self.inside = self.own > 0 if criterion == "ml" else torch.ones_like(self.own, dtype=torch.bool)
        num_flat = int((self.inside & (self.own == 0)).sum())
        self.constant = -0.5 * math.log(2 * math.pi) * num_flat
        # What the rows tell of a coefficient at the null model.
        information = self._hessian(torch.zeros(problem.size, dtype=torch.float64)).diagonal() / self.units.square()
        blocks = problem.blocks_of_terms
        self.natural = NaturalUnits.of(blocks, [information[place].clamp(min=0) for place in self.places])
        middle = self.natural.scales(at_precision(blocks, 2.0))
        self.theta = Newton().solve(replace(problem, rho=middle)).theta

    def solved(self, rho: Tensor) -> Solution:
        """The penalised estimate at given scales."""
        return Newton(_INNER_STEPS).solve_from(replace(self.problem, rho=rho), self.theta)

    def value(self, rho: np.ndarray) -> tuple[float, np.ndarray]:
        """The criterion and its gradient; infinity where the Hessian is not positive definite."""
        scales = torch.tensor(rho)
        end = self.solved(scales)
        root, hessian = self._root(scales), self._hessian(end.theta)
        whole = root.T @ hessian @ root + self.own.diag()
        factor, failed = torch.linalg.cholesky_ex(whole[self.inside][:, self.inside])
        if bool(failed) or not math.isfinite(end.objective):
            return math.inf, np.zeros_like(rho)
        self.theta = end.theta
        value = self.problem.population * end.objective + float(factor.diagonal().log().sum()) + self.constant
        return value, self._gradient(end.theta, hessian, whole, scales).numpy()

    def _gradient(self, theta: Tensor, hessian: Tensor, whole: Tensor, scales: Tensor) -> Tensor:
        """The gradient of the criterion: of the penalised NLL at fixed v, and of the determinant (Wood, 2011).

        The estimate moves with the scales; how the Hessian changes with it is taken from differences of Hessians.

        Args:
            theta: the penalised estimate.
            hessian: the Hessian of the NLL there, in nats, (num_free, num_free).
            whole: the Hessian in v with that of the priors, (num_free, num_free).
            scales: the scales.
        """
        here, n = theta[self.free], self.problem.population
        v = torch.linalg.solve(self._root(scales), here)
        slope = n * self._bare.slope(theta)[1][self.free]
        inverse = torch.zeros_like(whole)
        inside = whole[self.inside][:, self.inside]
        inverse[self.inside.unsqueeze(1) & self.inside] = torch.linalg.inv(inside).reshape(-1)
        leaf = scales.clone().requires_grad_()
        with torch.enable_grad():
            root = self._root(leaf)
            direct = slope @ (root @ v) + 0.5 * (inverse * (root.T @ hessian @ root)).sum()
            (gradient,) = torch.autograd.grad(direct, leaf)
        pulls, moves = torch.autograd.functional.jacobian(lambda at: self._moved(at, v, here, slope, hessian), scales)
        moves = moves - self._root(scales) @ torch.linalg.solve(whole, pulls)
        spread = self._root(scales) @ inverse @ self._root(scales).T
        for k, part in enumerate(moves.T):
            move = torch.zeros_like(theta)
            move[self.free] = part
            size = float(move.abs().max())
            if size > 0:
                step = _STEP * max(1.0, float(theta.abs().max())) / size
                change = self._hessian(theta + step * move) - self._hessian(theta - step * move)
                gradient[k] += 0.5 * (spread * change).sum() / (2 * step)
        return gradient

    def _moved(self, scales: Tensor, v: Tensor, here: Tensor, slope: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient in v near the scales, to first order, and the coefficients there, both at a fixed v."""
        root = self._root(scales)
        there = root @ v
        return root.T @ (slope + hessian @ (there - here)), there

    def _root(self, scales: Tensor) -> Tensor:
        """The map of v to the free entries of theta, (num_free, num_free)."""
        blocks = self.problem.blocks_of_terms
        return whole_root(blocks, scales, self.places, len(self.units)) / self.units.unsqueeze(1)

    @property
    def _bare(self) -> Problem:
        """The problem without the priors of the terms, whose rounding errors differences of Hessians would have."""
        return replace(self.problem, rho=None)

    def _hessian(self, theta: Tensor) -> Tensor:
        """The Hessian of the NLL in the free entries of theta, in nats."""
        return self.problem.population * self._bare.derivatives(theta).hessian[self.free][:, self.free]
