"""The exact estimate of the transformation head: convex in its gaps, of which some may be zero."""

from dataclasses import replace

import torch
from torch import Tensor

from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.newton import Newton, positive_solve
from mlefw.baseline.problem import Problem
from mlefw.head.transformation import TransformationHead

_ZERO = 1e-4
"""Share of the sum of all gaps below which a gap that the likelihood lowers counts as zero."""
_LEFT = 1e-14
"""Share of the sum that a gap of zero has left: its logarithm stays finite, and its density above zero."""
_SHARE = 1e-9
"""Residual in nats per observation below which a point is stationary."""
_STEPS = 30


class Monotone(Solver):
    """Newton's method on the logarithms of the gaps, then on the others alone where some gaps are at zero.

    Shift and gaps enter −log f(h − shift) − log h′ linearly, f being log-concave: the problem is convex in them, and a
    point at which no gap of zero would lower the objective by growing, and all else is stationary with positive
    curvature, is the unique estimate (Karush–Kuhn–Tucker conditions).
    """

    def supports(self, problem: Problem) -> bool:
        """Whether the head is the transformation head with shared gaps, and the prior smooth and convex."""
        shared = isinstance(problem.head, TransformationHead) and problem.head.unimodal
        return shared and problem.prior.smooth and (problem.prior.flat or problem.prior.convex)

    def solve(self, problem: Problem) -> Solution:
        """The estimate with its certificate; without one where no such point is found."""
        found = Newton().solve(problem)
        theta = found.theta.clone()
        gaps = _gaps(problem, theta)
        gradient = found.derivatives.gradient[-len(gaps) :]
        zero = (gaps < _ZERO * gaps.sum()) & (gradient > 0)
        if not bool(zero.any()):
            return found
        shared = problem.split(theta)[2]
        gain = problem.head.gain[problem.head.eta_dim :]
        shared[zero] += (_LEFT * gaps.sum() / gaps[zero]).log() / gain[zero]
        free = torch.ones(problem.size, dtype=torch.bool)
        free[-len(gaps) :] = ~zero
        return self._certified(problem, theta, free, zero, found)

    def _certified(self, problem: Problem, theta: Tensor, free: Tensor, zero: Tensor, before: Solution) -> Solution:
        """The solution after Newton steps on the free entries of theta."""
        here, step = problem.derivatives(theta), None
        for _ in range(_STEPS):
            step = positive_solve(here.hessian[free][:, free], here.gradient[free])
            if step is None or float(here.gradient[free].abs().max()) < 1e-3 * _SHARE:
                break
            theta = theta.clone()
            theta[free] -= step
            here = problem.derivatives(theta)
        gaps = _gaps(problem, theta)
        # Derivatives in the gaps themselves: that in a logarithm is that in the gap times the gap.
        slopes = (here.gradient[-len(gaps) :] / gaps)[zero]
        residual = float(here.gradient.abs().max())
        if step is None or not residual < _SHARE or not here.value <= before.objective + _SHARE:
            return before
        count = int(zero.sum())
        proved = bool((slopes >= 0).all()) or None
        return replace(
            before,
            theta=theta,
            objective=here.value,
            residual=residual,
            converged=True,
            exists=proved,
            is_global=proved,
            gap=float(here.gradient[free] @ step) + float(slopes.clamp(min=0) @ gaps[zero]),
            known=here,
            shown_by=f"Karush-Kuhn-Tucker conditions, {count} gap{'s' * (count > 1)} of the transformation at zero",
        )


def _gaps(problem: Problem, theta: Tensor) -> Tensor:
    """The gaps of the transformation, (order,)."""
    head = problem.head
    return (head.center[head.eta_dim :] + head.gain[head.eta_dim :] * problem.split(theta)[2]).exp()
