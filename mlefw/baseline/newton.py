"""Damped Newton method for any head and smooth prior."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.derivatives import Derivatives
from mlefw.baseline.problem import Problem
from mlefw.baseline.quasi_newton import Approach, approach, pays, sample
from mlefw.baseline.starts import is_unimodal, starts
from mlefw.baseline.work import dense_work, pass_work

_TOLERANCE = 1e-10
"""Gradient, relative to an objective above 1, below which a point counts as stationary."""
_FEW_STEPS = 50
"""Most steps from each of the many starts of a mixture."""
_TRIED = 20000
"""Number of rows above which several starts are tried on a sample."""


class Newton(Solver):
    """Newton's method with step halving, on the observed Hessian where it is positive definite.

    Otherwise it uses the head's expected information (Fisher scoring), or if the head states none, the Hessian with
    the absolute values of its eigenvalues.
    """

    takes_terms: ClassVar = True

    def __init__(self, max_steps: int = 200) -> None:
        self.max_steps = max_steps

    def supports(self, problem: Problem) -> bool:
        """Whether the prior is smooth; the density must be twice differentiable, which is not checked."""
        return problem.prior.smooth

    def work(self, problem: Problem) -> float:
        """Multiplications of full Newton steps, or of quasi-Newton passes and a few Hessians if those come first."""
        rows, features = problem.rows.num_rows, problem.num_active
        if not pays(problem) or not is_unimodal(problem):
            return super().work(problem)
        columns = problem.head.eta_dim + problem.head.shared_dim
        return 100 * pass_work(rows, features, columns) + dense_work(rows, features, columns, 3)

    def solve(self, problem: Problem) -> Solution:
        """The estimate from one or several starts; a large convex problem is solved by quasi-Newton first."""
        first, *others = starts(problem)
        if others:
            return self._best(problem, [first, *others])
        near = approach(problem, first)
        if near is None:
            return self.solve_from(problem, first)
        if near.settled:
            return self._polished(problem, near)
        return self.solve_from(problem, near.theta if math.isfinite(near.value) else first)

    def _polished(self, problem: Problem, near: Approach) -> Solution:
        """The solution after one Newton step from the end of quasi-Newton, with the Hessian for the certificate."""
        free, theta = problem.free, near.theta.clone()
        here = problem.derivatives(theta)
        step = positive_solve(here.hessian[free][:, free], here.gradient[free])
        if step is not None:
            theta[free] -= step
            # Keep the Hessian: the points differ by less than a millionth of a standard error.
            there = Derivatives(*problem.slope(theta), here.hessian)
            theta, here = (theta, there) if _norm(there, free) < _norm(here, free) else (near.theta, here)
        residual = _norm(here, free)
        return Solution(problem, theta, here.value, residual, "quasi-newton", near.num_passes, known=here)

    def _best(self, problem: Problem, points: list[Tensor]) -> Solution:
        """The best solution over several starts; of many rows a sample is used, and all rows from the best end."""
        step = problem.rows.num_rows // _TRIED
        tried = sample(problem, step) if step > 1 else problem
        # Most starts of a mixture end at a worse local maximum, or move slowly towards a floor: limit their steps.
        solver = Newton(min(self.max_steps, _FEW_STEPS)) if problem.head.floored else self
        ends = [solver.solve_from(tried, point) for point in points]
        best = min(ends, key=lambda end: (not end.converged, on_floor(end), end.objective))
        return best if tried is problem else self.solve_from(problem, best.theta)

    def solve_from(self, problem: Problem, theta: Tensor) -> Solution:
        """The solution of a descent from theta."""
        free = problem.free
        here = problem.derivatives(theta)
        steps = 0
        while steps < self.max_steps:
            steps += 1
            if not torch.isfinite(here.gradient).all():
                break
            direction = self._direction(problem, theta, here, free)
            decrement = -float(here.gradient @ direction)
            if not decrement > 0:
                break
            # Below this, rounding of the objective hides progress, but the gradient still shows it.
            polishing = 0.5 * decrement < 1e-13 * max(1.0, abs(here.value))
            target = theta + direction if polishing else self._search(problem, theta, direction, here, decrement)
            if target is None:
                break
            there = problem.derivatives(target)
            # If a parameter goes to infinity, the gradient falls slowly for ever: ask it to halve.
            enough = 0.5 if _norm(here, free) < _TOLERANCE else 1.0
            if not math.isfinite(there.value) or (polishing and not _norm(there, free) < enough * _norm(here, free)):
                break
            theta, here = target, there
            if polishing and _norm(here, free) < 1e-14:
                break
        residual = _norm(here, free)
        return Solution(
            problem=problem,
            theta=theta,
            objective=here.value,
            residual=residual,
            solver="newton",
            num_steps=steps,
            converged=self._is_stationary(here, free, residual),
            known=here,
        )

    def _is_stationary(self, here: Derivatives, free: Tensor, residual: float) -> bool:
        """Whether the gradient is small; or if its rounding error is large (huge counts), the gain of a Newton step."""
        size = max(1.0, abs(here.value))
        if not math.isfinite(residual) or residual < _TOLERANCE * size:
            return math.isfinite(residual)
        step = positive_solve(here.hessian[free][:, free], here.gradient[free])
        return step is not None and 0.5 * float(here.gradient[free] @ step) < 1e-14 * size

    def _direction(self, problem: Problem, theta: Tensor, here: Derivatives, free: Tensor) -> Tensor:
        hessian = here.hessian
        step = positive_solve(hessian[free][:, free], here.gradient[free])
        if step is None:
            try:
                hessian = problem.derivatives(theta, expected=True).hessian
                step = positive_solve(hessian[free][:, free], here.gradient[free])
            except NotImplementedError:
                step = None
        if step is None:
            step = absolute_solve(hessian[free][:, free], here.gradient[free])
        direction = torch.zeros_like(theta)
        direction[free] = -step
        return direction

    def _search(
        self, problem: Problem, theta: Tensor, direction: Tensor, here: Derivatives, decrement: float
    ) -> Tensor | None:
        length = 1.0
        for _ in range(60):
            target = theta + length * direction
            value = problem.value(target)
            if value <= here.value - 1e-4 * length * decrement:
                return target
            length /= 2
        return None


def on_floor(solution: Solution) -> bool:
    """Whether a scale is at its floor, for a head that keeps its floor: then the likelihood has no maximum there."""
    head = solution.problem.head
    if not head.floored:
        return False
    scales = (head.least_scale(eta) for _, _, eta in solution.problem.etas(solution.theta))
    lowest = float(head.floor / head.gain[0]) * (1 + 1e-9)
    return any(scale is not None and bool((scale <= lowest).any()) for scale in scales)


def _norm(here: Derivatives, free: Tensor) -> float:
    gradient = here.gradient[free]
    return float(gradient.abs().max()) if gradient.numel() else 0.0


def _scaled_cholesky(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """(root, L) with L L' = root · matrix · root of unit diagonal; None unless it is safely positive definite."""
    diagonal = matrix.diagonal()
    if not bool((diagonal > 0).all()) or not bool(torch.isfinite(matrix).all()):
        return None
    root = diagonal.rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * matrix * root)
    return None if bool(failed) or float(factor.diagonal().min()) < 1e-7 else (root, factor)


def positive_solve(hessian: Tensor, gradient: Tensor) -> Tensor | None:
    """hessian⁻¹ gradient; None unless the Hessian, scaled to a unit diagonal, is safely positive definite."""
    if (scaled := _scaled_cholesky(hessian)) is None:
        return None
    root, factor = scaled
    return root * torch.cholesky_solve((root * gradient).unsqueeze(1), factor).squeeze(1)


def positive_inverse(hessian: Tensor) -> Tensor | None:
    """The inverse of a Hessian; None unless the Hessian, scaled to a unit diagonal, is safely positive definite."""
    if (scaled := _scaled_cholesky(hessian)) is None:
        return None
    root, factor = scaled
    return root.unsqueeze(1) * torch.cholesky_inverse(factor) * root


def absolute_solve(hessian: Tensor, gradient: Tensor) -> Tensor:
    """|hessian|⁻¹ gradient, with the absolute eigenvalues of the Hessian scaled to a unit diagonal, bounded below."""
    hessian = torch.nan_to_num(hessian, nan=0.0, posinf=1e300, neginf=-1e300)
    root = hessian.diagonal().abs().clamp(min=1e-12).rsqrt()
    values, vectors = torch.linalg.eigh((root.unsqueeze(1) * hessian * root).clamp(-1e100, 1e100))
    values = values.abs().clamp(min=1e-10 * float(values.abs().max()))
    return root * (vectors @ ((vectors.T @ (root * gradient)) / values))
