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
from mlefw.baseline.quadratic import Criterion, at_precision, log_determinant

_INNER_STEPS = 60
"""Most Newton steps of the penalised estimate at given scales, from that at other scales."""
_STEP = 1e-4
"""Step of differences of Hessians, as a share of the largest coefficient."""


class LaplaceIntegral:
    """The criterion of any head and its gradient, with the estimate of the last call as the start of the next."""

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.free, units = problem, problem.free, log_units(problem)
        penalised = torch.zeros(problem.size, dtype=torch.bool)
        for place in problem.places():
            penalised[place] = True
        own = penalised[self.free]
        # Which coefficients are integrated out, among the free ones.
        self.inside = own if criterion == "ml" else torch.ones_like(own)
        self.constant = -float(units[self.inside].sum())
        self.constant -= 0.5 * math.log(2 * math.pi) * (0 if criterion == "ml" else int((~own).sum()))
        self.theta = Newton().solve(replace(problem, rho=at_precision(problem.blocks_of_terms, 2.0))).theta

    def solved(self, rho: Tensor) -> Solution:
        """The penalised estimate at given scales."""
        return Newton(_INNER_STEPS).solve_from(replace(self.problem, rho=rho), self.theta)

    def value(self, rho: np.ndarray) -> tuple[float, np.ndarray]:
        """The criterion and its gradient; infinity where the Hessian is not positive definite."""
        scales = torch.tensor(rho)
        end = self.solved(scales)
        hessian, n = self._hessian(end.problem, end.theta), self.problem.population
        factor, failed = torch.linalg.cholesky_ex(hessian[self.inside][:, self.inside])
        if bool(failed) or not math.isfinite(end.objective):
            return math.inf, np.zeros_like(rho)
        self.theta = end.theta
        determinant = 2 * float(factor.diagonal().log().sum())
        known = float(log_determinant(self.problem.blocks_of_terms, scales))
        value = n * end.objective + 0.5 * (determinant - known) + self.constant
        inverse = torch.zeros_like(hessian)
        inverse[self.inside.unsqueeze(1) & self.inside] = torch.cholesky_inverse(factor).reshape(-1)
        return value, self._gradient(end, hessian, inverse, scales).numpy()

    def _gradient(self, end: Solution, hessian: Tensor, inverse: Tensor, scales: Tensor) -> Tensor:
        """The gradient of the criterion: that of the penalised NLL, and of the determinants (Wood, 2011, appendix A).

        The estimate moves with the scales; how the Hessian changes with it is taken from differences of Hessians.
        """
        leaf = scales.clone().requires_grad_()
        theta = end.theta[self.free]
        with torch.enable_grad():
            prior = replace(self.problem, rho=leaf).precision
            assert prior is not None
            prior = prior[self.free][:, self.free]
            direct = 0.5 * (
                theta @ prior @ theta + (inverse * prior).sum() - log_determinant(self.problem.blocks_of_terms, leaf)
            )
            (gradient,) = torch.autograd.grad(direct, leaf)
        pulls = torch.autograd.functional.jacobian(lambda at: self._pull(at, theta), scales)
        for k, pull in enumerate(pulls.T):
            move = torch.zeros_like(end.theta)
            move[self.free] = -torch.linalg.solve(hessian, pull)
            size = float(move.abs().max())
            if size > 0:
                step = _STEP * max(1.0, float(end.theta.abs().max())) / size
                there = self._hessian(end.problem, end.theta + step * move)
                here = self._hessian(end.problem, end.theta - step * move)
                gradient[k] += 0.5 * (inverse * (there - here)).sum() / (2 * step)
        return gradient

    def _pull(self, scales: Tensor, theta: Tensor) -> Tensor:
        """The gradient of the negative log-priors in the free coefficients."""
        prior = replace(self.problem, rho=scales).precision
        assert prior is not None
        return prior[self.free][:, self.free] @ theta

    def _hessian(self, problem: Problem, theta: Tensor) -> Tensor:
        return problem.population * problem.derivatives(theta).hessian[self.free][:, self.free]
