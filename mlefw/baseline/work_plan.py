"""The multiplications of a MAP estimate of many coefficients of arrays, from the spread of the features."""

import math

import torch

from mlefw.baseline.problem import Problem
from mlefw.baseline.work import TooMuchError, amount
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.prior.l2 import L2Prior

_EXCESS = 1e-9
"""Excess over the minimum, relative to that at the start, which the planned passes reach."""
_ITERATIONS = 30
"""Power iterations for the largest variance of a direction of the features."""
_PER_SECOND = 1e10
"""Multiplications of one core in a second."""


def planned_work(problem: Problem) -> float | None:
    """Multiplications within which the minimum of a penalised likelihood of classes is reached; None for other ones.

    A pass over the rows takes 4 n p K multiplications, for a gradient or a Hessian product. Accelerated gradients need
    sqrt(kappa) · ln(2 / 1e-9) passes (Nesterov, 2004, 2.2) for the condition number kappa = 1 + N · τ² · c · λ: λ is
    the largest eigenvalue of the second moments of the features about their mean, N the population, τ the scale of the
    Gaussian prior, and c bounds the curvature of an NLL in its logits, 1/2 for several classes (Böhning, 1992) and 1/4
    for two. Conjugate gradients with a preconditioner usually need fewer passes.
    """
    head, prior = problem.head, problem.prior
    has_logits = isinstance(head, CategoricalHead) or getattr(head, "link_name", "") == "logit"
    if not isinstance(prior, L2Prior) or not isinstance(head, CategoricalHead | BernoulliHead) or not has_logits:
        return None
    curvature = 0.5 if isinstance(head, CategoricalHead) else 0.25
    strength = problem.population * prior.scale**2 * curvature * float(head.gain.square().max())
    passes = round(math.sqrt(1 + strength * largest_variance(problem)) * math.log(2 / _EXCESS))
    return passes * 4.0 * problem.rows.num_rows * problem.num_active * head.eta_dim


def check_plan(work: float, max_work: float) -> None:
    """Check the planned work of an estimate of arrays against its limit.

    Raises:
        TooMuchError: the work exceeds the limit.
    """
    if work > max_work:
        raise TooMuchError(f"{amount(work)} multiplications, more than baseline.max_work={amount(max_work)}")


def announcement(size: int, work: float) -> str:
    """What an estimate of `size` coefficients takes, to be said before it starts."""
    seconds = work / _PER_SECOND
    return f"on {size:,} coefficients: at most {amount(work)} multiplications, about {max(seconds, 1):.0f} s"


def largest_variance(problem: Problem) -> float:
    """The largest eigenvalue of the second moments of the standardised features about their mean, by power iterations.

    It may be too small by little, since it is approached from below.
    """
    unit, total = problem.scale[problem.active], problem.population
    mean = torch.zeros_like(unit)
    for rows in problem.blocks(problem.block):
        mean += rows.weight @ problem.active_features(rows) / total
    vector = torch.randn(len(unit), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = 0.0
    for _ in range(_ITERATIONS):
        slope = vector / vector.norm().clamp(min=1e-300) / unit
        image = torch.zeros_like(unit)
        for rows in problem.blocks(problem.block):
            x = problem.active_features(rows)
            moved = rows.weight * (x @ slope - mean @ slope)
            image += moved @ x - moved.sum() * mean
        vector = image / unit / total
        value = float(vector.norm())
    return value
