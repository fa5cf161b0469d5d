"""Scales of smooth terms and effects of groups by restricted maximum likelihood, or by maximum likelihood.

Coefficients with a prior are integrated out, by restricted likelihood all others, too. For a Gaussian with one
standard deviation the integral is exact; for any other head it is Laplace's approximation (Wood, 2011). By maximum
likelihood the other coefficients maximise it together with the scales.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.base import Solution
from mlefw.baseline.collinear import without_collinear
from mlefw.baseline.existence import examine
from mlefw.baseline.gaussian_integral import GaussianIntegral
from mlefw.baseline.laplace_integral import LaplaceIntegral
from mlefw.baseline.laplace_search import BOUND, FAR, SAME, STARTS, search
from mlefw.baseline.nested import without_effects
from mlefw.baseline.newton import Newton, positive_inverse
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Criterion, RandomBlock, Smoothing, at_precision
from mlefw.baseline.work import LeftOutError
from mlefw.errors import UsageError
from mlefw.head.gaussian import GaussianHead

_TOLD = 1e-3
"""Share of what the rows tell of coefficients at zero below which they may be growing for ever."""


def solve_smooth(problem: Problem, scales: Criterion | Mapping[str, float]) -> Solution:
    """The estimate with the scales of its penalised terms, by a criterion, or with given precisions by term.

    Raises:
        LeftOutError: no inner estimate could be found.
        UsageError: a precision is given for an unknown term, or not for all terms.
    """
    free_terms = _without_collinear(problem)
    if not isinstance(scales, str):
        rho = _given(free_terms, scales)
        inner = Newton().solve(replace(free_terms, rho=torch.tensor(rho)))
        end = _End(rho, math.nan, np.zeros_like(rho), np.zeros(len(rho), dtype=bool))
        return _examined(_finished(inner.problem, inner.theta, "given", end))
    criterion = scales
    if _is_exact(free_terms):
        return _gaussian(free_terms, criterion)
    try:
        return _examined(_laplace(free_terms, criterion))
    except LeftOutError:
        absent = examine(Newton().solve(without_effects(free_terms)))
        if absent.may_exist or not problem.prior.flat:
            raise
        return replace(absent, problem=free_terms, infimum=None)


def _examined(solution: Solution) -> Solution:
    """The solution, without an estimate where a coefficient without a prior grows for ever.

    Along a direction in which no row's NLL rises whatever the effects, their average over the effects does not rise
    either: so there is no maximum where the model without effects has none. That is examined where the rows tell next
    to nothing of some coefficient any more.
    """
    problem, bare = solution.problem, without_effects(solution.problem)
    plain = bare.free
    first = bare.derivatives(torch.zeros(problem.size, dtype=torch.float64)).hessian[plain][:, plain]
    factor, failed = torch.linalg.cholesky_ex(first)
    if not bool(plain.any()) or bool(failed) or not problem.prior.flat:
        return solution
    told = torch.linalg.solve_triangular(factor, solution.derivatives.hessian[plain][:, plain], upper=False)
    told = torch.linalg.solve_triangular(factor, told.T, upper=False)
    if float(torch.linalg.eigvalsh(told)[0]) > _TOLD:
        return solution
    found = examine(Newton().solve(bare))
    return solution if found.may_exist else replace(solution, exists=False, reason=found.reason, smoothing=None)


def _without_collinear(problem: Problem) -> Problem:
    """The problem without collinear columns, which are sought among those that have no prior of their own."""
    penalised = torch.zeros(problem.head.eta_dim, problem.rows.x.shape[1] + 1, dtype=torch.bool)
    for block in problem.blocks_of_terms:
        penalised[block.column, list(block.features)] = True
    used = torch.ones_like(penalised) if problem.used is None else problem.used
    bare = without_collinear(replace(problem, used=used & ~penalised, blocks_of_terms=()))
    left = bare.used if bare.used is not None else used & ~penalised
    kept = left | (used & penalised)
    active = torch.arange(problem.rows.x.shape[1])[kept[:, :-1].any(0)]
    return replace(problem, used=kept, dropped=bare.dropped, active=active)


def _given(problem: Problem, scales: Mapping[str, float]) -> np.ndarray:
    """The logarithms of given precisions."""
    labels = [block.label for block in problem.blocks_of_terms]
    for name in scales:
        if name not in labels:
            raise UsageError(f"baseline.scales names {name!r}: expected the terms {', '.join(labels)}")
    found = []
    for block in problem.blocks_of_terms:
        if block.label not in scales or block.num_effects > 1 or not scales[block.label] > 0:
            raise UsageError(f"baseline.scales: expected a positive precision for {block.label}, or reml or ml")
        found.append(math.log(scales[block.label]))
    return np.array(found)


def _is_exact(problem: Problem) -> bool:
    """Whether the head is a Gaussian with one learnt standard deviation, up to weights of the variance of rows."""
    head = problem.head
    if type(head) is not GaussianHead or head.inverse_link_of("loc") is not inverse_link.identity:
        return False
    if head.eta_names == ("loc",):
        return bool(head.shared_dim) and problem.rows.offset.ndim == 1
    return problem.design_columns(1).tolist() == [problem.num_active]


@dataclass(frozen=True)
class _End:
    """The end of a search: scales, the criterion and its gradient, zero at limits, and what is at its limit."""

    rho: np.ndarray
    value: float
    gradient: np.ndarray
    at_limit: np.ndarray
    num_optima: int = 1
    is_minimum: bool = True


def _search(integral: GaussianIntegral, blocks: tuple[RandomBlock, ...]) -> _End:
    """The scales with the least criterion over several starts."""
    natural = integral.natural
    factor = natural.factor.numpy()

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        found, slope = integral.value(natural.scales(torch.tensor(x)).numpy())
        return found, factor * slope

    is_log = np.concatenate([np.arange(block.num_scales) < block.num_effects for block in blocks])
    bounds = [(-BOUND, BOUND) if one else (None, None) for one in is_log]
    ends: list[tuple[float, np.ndarray]] = []
    for start in STARTS:
        first = at_precision(blocks, start).numpy()
        found = minimize(value, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 0, "gtol": 1e-9})
        if math.isfinite(float(found.fun)):
            ends.append((float(found.fun), found.x))
    if not ends:
        raise LeftOutError("no scale of the smooth terms gave an estimate")
    least, best = min(ends, key=lambda end: end[0])
    optima = {round((end - least) / SAME) for end, _ in ends}
    final, gradient = value(best)
    rho = natural.scales(torch.tensor(best)).numpy()
    at_limit = is_log & (np.abs(best) > FAR)
    return _End(rho, final, np.where(at_limit, 0.0, gradient), at_limit, len(optima))


def _gaussian(problem: Problem, criterion: Criterion) -> Solution:
    """The estimate of a Gaussian with one standard deviation, by the exact integral over its coefficients."""
    integral = GaussianIntegral(problem, criterion)
    end = _search(integral, problem.blocks_of_terms)
    whole, theta = integral.estimate(end.rho)
    return _finished(whole, theta, criterion, end, exact=True)


def _laplace(problem: Problem, criterion: Criterion) -> Solution:
    """The estimate of any head by Laplace's approximation.

    By `reml` the coefficients are the penalised estimate at its scales; by `ml` those without a prior maximise the
    approximation together with the scales, and all others are the penalised estimate given both.
    """
    integral = LaplaceIntegral(problem, criterion)
    optimum = search(integral)
    rho, state = integral.scales(optimum.x), integral.state(optimum.x)
    if state is None:
        raise LeftOutError("no scale of the smooth terms gave an estimate")
    end = _End(rho.numpy(), optimum.value, optimum.gradient, optimum.at_limit, optimum.num_optima, optimum.is_minimum)
    theta = torch.zeros(problem.size, dtype=torch.float64)
    theta[problem.free] = torch.from_numpy(state.theta)
    whole = replace(problem, rho=rho)
    if criterion == "reml":
        return _finished(whole, Newton().solve_from(whole, theta).theta, criterion, end)
    outer = optimum.inverse[integral.num_scales :, integral.num_scales :]
    return _finished(whole, theta, criterion, end, errors=integral.covariance(state, outer))


def _finished(
    problem: Problem,
    theta: Tensor,
    criterion: Literal["reml", "ml", "given"],
    end: _End,
    exact: bool = False,
    errors: Tensor | None = None,
) -> Solution:
    """The solution at the end of a search, with its certificate.

    Args:
        problem: the problem with the priors of its scales.
        theta: the estimate.
        criterion: how the scales were found.
        end: the end of the search for them.
        exact: whether the integral is exact.
        errors: the covariance of theta by the curvature of the marginal likelihood, where coefficients without a prior
            maximise that; None where all coefficients are the penalised estimate.
    """
    here = problem.derivatives(theta)
    free = problem.free.clone()
    if exact:
        # The standard deviation is that of the restricted likelihood, not the minimum over it given the coefficients.
        free[-1] = False
        # Degrees of freedom and errors of coefficients are given it, as their expected information with it is zero.
        here.hessian[-1, :-1] = here.hessian[:-1, -1] = 0.0
    if errors is not None:
        # Where the others maximise the marginal likelihood, the gradient of that is among those of `end`.
        free = torch.zeros_like(free)
        free[torch.cat(problem.places())] = True
    residual = float(here.gradient[free].abs().max())
    slope = float(np.abs(end.gradient).max())
    converged = residual < 1e-8 * max(1.0, abs(here.value)) and slope < 1e-3 and end.is_minimum
    found = Solution(
        problem=problem,
        theta=theta,
        objective=here.value,
        residual=residual,
        solver="restricted likelihood" if criterion == "reml" else "marginal likelihood",
        num_steps=1,
        converged=converged,
        exists=True if positive_inverse(here.hessian[problem.free][:, problem.free]) is not None else None,
        is_global=(end.num_optima == 1 and exact) or None,
        shown_by="the only optimum from 3 starts" if end.num_optima == 1 else None,
        known=here,
    )
    limits = tuple(end.at_limit.tolist())
    smoothing = Smoothing(criterion, end.value, slope, end.num_optima, exact, limits, _edf(found), errors)
    return replace(found, smoothing=smoothing)


def _edf(solution: Solution) -> tuple[float, ...]:
    """Effective degrees of freedom of each penalised term: the trace of its block of (H + S)⁻¹ H."""
    problem = solution.problem
    free = problem.free
    assert problem.precision is not None
    whole = solution.derivatives.hessian[free][:, free] * problem.population
    prior = problem.precision[free][:, free]
    solved, failed = torch.linalg.solve_ex(whole, prior)
    # Where the rows tell nothing of a coefficient any more, it has no share in the others.
    solved = torch.linalg.pinv(whole, hermitian=True) @ prior if int(failed) else solved
    diagonal = torch.ones(len(whole), dtype=torch.float64) - solved.diagonal()
    order = free.cumsum(0) - 1
    return tuple(float(diagonal[order[place]].sum()) for place in problem.places())
