"""Scales of smooth terms and effects of groups by restricted maximum likelihood, or by maximum likelihood.

The coefficients are integrated out. For a Gaussian with one standard deviation the integral is exact; for any other
head it is Laplace's approximation at the penalised estimate (Wood, 2011).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.base import Solution
from mlefw.baseline.collinear import without_collinear
from mlefw.baseline.newton import Newton, positive_inverse
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import Criterion, RandomBlock, Smoothing, whole_precision
from mlefw.baseline.work import LeftOutError
from mlefw.errors import UsageError
from mlefw.head.gaussian import GaussianHead

_STARTS = (-2.0, 2.0, 8.0)
"""Logarithms of the precision of every term from which the search starts."""
_FAR = 18.0
"""Change of a logarithm of a precision beyond which a term has reached its limit: a straight line, or no effect."""
_INNER_STEPS = 60
"""Most Newton steps of the penalised estimate at given scales, from that at other scales."""
_STEP = 1e-4
"""Step of differences of Hessians, as a share of the largest coefficient."""
_SAME = 1e-5
"""Difference of the criterion within which two optima count as one."""


def solve_smooth(problem: Problem, scales: Criterion | Mapping[str, float]) -> Solution:
    """The estimate with the scales of its penalised terms, by a criterion, or with given precisions by term.

    Raises:
        LeftOutError: no inner estimate could be found.
        UsageError: a precision is given for an unknown term, or not for all terms.
    """
    free_terms = _without_collinear(problem)
    if not isinstance(scales, str):
        rho = _given(free_terms, scales)
        end = Newton().solve(replace(free_terms, rho=torch.tensor(rho)))
        return _finished(end.problem, end.theta, "given", math.nan, np.zeros_like(rho), 1, rho, exact=False)
    criterion = scales
    if _is_exact(free_terms):
        return _gaussian(free_terms, criterion)
    return _laplace(free_terms, criterion)


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


def _units(problem: Problem) -> Tensor:
    """Log |d β / d θ| of each free entry of theta, β being coefficients in their own units, (num_free,)."""
    gain, eta_dim = problem.head.gain, problem.head.eta_dim
    units = torch.ones(eta_dim, problem.num_active + 1, dtype=torch.float64)
    units[:, :-1] = 1 / problem.scale[problem.active]
    units *= gain[:eta_dim].unsqueeze(1)
    return torch.cat([units.reshape(-1), gain[eta_dim:]]).log()[problem.free]


def _search(
    value: Callable[[np.ndarray], tuple[float, np.ndarray]], blocks: tuple[RandomBlock, ...]
) -> tuple[np.ndarray, float, np.ndarray, int]:
    """The scales with the least criterion over several starts, its value and gradient, and the number of optima."""
    ends: list[tuple[float, np.ndarray]] = []
    for start in _STARTS:
        rho = np.concatenate([_start(block, start) for block in blocks])
        bounds = [(one - 30.0, one + 30.0) for one in rho]
        found = minimize(value, rho, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 0, "gtol": 1e-9})
        if math.isfinite(float(found.fun)):
            ends.append((float(found.fun), found.x))
    if not ends:
        raise LeftOutError("no scale of the smooth terms gave an estimate")
    least, best = min(ends, key=lambda end: end[0])
    optima = {round((end - least) / _SAME) for end, _ in ends}
    final, gradient = value(best)
    return best, final, gradient, len(optima)


def _start(block: RandomBlock, log_precision: float) -> np.ndarray:
    off = block.num_scales - block.num_effects
    return np.concatenate([np.full(block.num_effects, log_precision), np.zeros(off)])


def _gaussian(problem: Problem, criterion: Criterion) -> Solution:
    """The estimate of a Gaussian with one standard deviation, by the exact integral over its coefficients."""
    search = _Gaussian(problem, criterion)
    rho, least, gradient, num_optima = _search(search.value, problem.blocks_of_terms)
    whole, theta = search.estimate(rho)
    return _finished(whole, theta, criterion, least, gradient, num_optima, rho, exact=True)


class _Gaussian:
    """The criterion of a Gaussian in scales relative to its standard deviation, which is profiled out.

    Columns are standardised ones; their coefficients are `unit` times smaller than those in their own units.
    """

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.is_restricted = problem, criterion == "reml"
        width = problem.num_active + 1
        self.at = problem.free[:width]
        self.unit = _units(problem)[: int(self.at.sum())].exp() / problem.head.gain[0]
        self._sum_products(width)
        order = self.at.cumsum(0) - 1
        self.places = [order[place] for place in problem.places()]
        self.penalised = torch.zeros(len(self.cross), dtype=torch.bool)
        for place in self.places:
            self.penalised[place] = True
        num_free = int((~self.penalised).sum())
        self.left = problem.population - (num_free if self.is_restricted else 0)
        if self.left <= 0:
            raise LeftOutError(
                f"{problem.population:g} rows do not determine {num_free} coefficients and a standard deviation"
            )

    def _sum_products(self, width: int) -> None:
        """Products of columns and target over the rows, whose weights are divided by those of their variances."""
        products, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        self.square = self.constant = 0.0
        for rows, design, eta in self.problem.designs(torch.zeros(self.problem.size, dtype=torch.float64)):
            # An offset of the scale is the logarithm of what its standard deviation is multiplied by in a row.
            shift = rows.offset[:, 1] if rows.offset.ndim > 1 else torch.zeros_like(rows.weight)
            y, weight = rows.y - eta[:, 0], rows.weight * torch.exp(-2 * shift)
            weighted = design * weight.unsqueeze(1)
            products += weighted.T @ design
            cross += y @ weighted
            self.square += float((weight * y) @ y)
            self.constant += float(rows.weight @ shift)
        self.products, self.cross = products[self.at][:, self.at], cross[self.at]

    def fit(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The criterion, the coefficients of the columns, and the variance of a row."""
        prior = whole_precision(self.problem.blocks_of_terms, rho, self.places, len(self.cross))
        whole = self.products + self.unit * prior * self.unit.unsqueeze(1)
        beta = torch.cholesky_solve(self.cross.unsqueeze(1), torch.linalg.cholesky(whole)).squeeze(1)
        variance = (self.square - self.cross @ beta) / self.left
        inside = torch.ones_like(self.penalised) if self.is_restricted else self.penalised
        determinant = torch.logdet(whole[inside][:, inside]) - 2 * self.unit[inside].log().sum()
        twice = self.left * ((2 * math.pi * variance).log() + 1) + determinant - _log_determinant(self.problem, rho)
        return 0.5 * twice + self.constant, beta, variance

    def value(self, rho: np.ndarray) -> tuple[float, np.ndarray]:
        """The criterion and its gradient; infinity where the coefficients are not determined."""
        leaf = torch.tensor(rho, dtype=torch.float64, requires_grad=True)
        try:
            with torch.enable_grad():
                found = self.fit(leaf)[0]
                (slope,) = torch.autograd.grad(found, leaf)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return math.inf, np.zeros_like(rho)
        return float(found.detach()), slope.numpy()

    @torch.no_grad()
    def estimate(self, rho: np.ndarray) -> tuple[Problem, Tensor]:
        """The problem with the priors of these scales, and theta."""
        problem, head = self.problem, self.problem.head
        _, beta, variance = self.fit(torch.tensor(rho))
        theta = torch.zeros(problem.size, dtype=torch.float64)
        theta[: len(self.at)][self.at] = beta / head.gain[0]
        column = head.eta_dim + head.shared_dim - 1
        theta[-1] = (0.5 * variance.log() - head.center[column]) / head.gain[column]
        return replace(problem, rho=_absolute(problem, torch.tensor(rho), float(variance))), theta


def _log_determinant(problem: Problem, rho: Tensor) -> Tensor:
    """Log det of the precision of all penalised coefficients, a scalar."""
    parts = zip(problem.blocks_of_terms, _split(problem, rho), strict=True)
    return torch.stack([block.log_determinant(part) for block, part in parts]).sum()


def _split(problem: Problem, rho: Tensor) -> list[Tensor]:
    return list(rho.split([block.num_scales for block in problem.blocks_of_terms]))


def _absolute(problem: Problem, rho: Tensor, variance: float) -> Tensor:
    """Scales of coefficients from scales relative to the standard deviation of the rows."""
    found = []
    for block, part in zip(problem.blocks_of_terms, _split(problem, rho), strict=True):
        size = block.num_effects
        found += [part[:size] - math.log(variance), part[size:] * math.sqrt(variance)]
    return torch.cat(found)


def _laplace(problem: Problem, criterion: Criterion) -> Solution:
    """The estimate of any head by Laplace's approximation at the penalised estimate."""
    search = _Laplace(problem, criterion)
    rho, least, gradient, num_optima = _search(search.value, problem.blocks_of_terms)
    end = search.solved(torch.tensor(rho))
    return _finished(end.problem, end.theta, criterion, least, gradient, num_optima, rho, exact=False)


class _Laplace:
    """The criterion of any head and its gradient, with the estimate of the last call as the start of the next."""

    def __init__(self, problem: Problem, criterion: Criterion) -> None:
        self.problem, self.free, units = problem, problem.free, _units(problem)
        penalised = torch.zeros(problem.size, dtype=torch.bool)
        for place in problem.places():
            penalised[place] = True
        own = penalised[self.free]
        # Which coefficients are integrated out, among the free ones.
        self.inside = own if criterion == "ml" else torch.ones_like(own)
        self.constant = -float(units[self.inside].sum())
        self.constant -= 0.5 * math.log(2 * math.pi) * (0 if criterion == "ml" else int((~own).sum()))
        self.theta = Newton().solve(replace(problem, rho=_middle(problem))).theta

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
        known = float(_log_determinant(self.problem, scales))
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
            direct = 0.5 * (theta @ prior @ theta + (inverse * prior).sum() - _log_determinant(self.problem, leaf))
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


def _middle(problem: Problem) -> Tensor:
    return torch.cat([torch.from_numpy(_start(block, 2.0)) for block in problem.blocks_of_terms])


def _finished(
    problem: Problem,
    theta: Tensor,
    criterion: Literal["reml", "ml", "given"],
    value: float,
    gradient: np.ndarray,
    num_optima: int,
    rho: np.ndarray,
    exact: bool,
) -> Solution:
    here = problem.derivatives(theta)
    free = problem.free.clone()
    if exact:
        # The standard deviation is that of the restricted likelihood, not the minimum over it given the coefficients.
        free[-1] = False
    residual = float(here.gradient[free].abs().max())
    at_limit = _limits(problem, rho)
    slope = float(np.abs(np.where(at_limit, 0.0, gradient)).max())
    converged = residual < 1e-8 * max(1.0, abs(here.value)) and slope < 1e-3
    found = Solution(
        problem=problem,
        theta=theta,
        objective=here.value,
        residual=residual,
        solver="restricted likelihood" if criterion == "reml" else "marginal likelihood",
        num_steps=1,
        converged=converged,
        exists=True if positive_inverse(here.hessian[problem.free][:, problem.free]) is not None else None,
        is_global=(num_optima == 1 and exact) or None,
        shown_by="the only optimum from 3 starts" if num_optima == 1 else None,
        known=here,
    )
    smoothing = Smoothing(criterion, value, slope, num_optima, exact, tuple(at_limit.tolist()), _edf(found))
    return replace(found, smoothing=smoothing)


def _limits(problem: Problem, rho: np.ndarray) -> np.ndarray:
    found = []
    for block, part in zip(problem.blocks_of_terms, _split(problem, torch.tensor(rho)), strict=True):
        size = block.num_effects
        found += (np.abs(part[:size].numpy()) > _FAR).tolist() + [False] * (block.num_scales - size)
    return np.array(found, dtype=bool)


def _edf(solution: Solution) -> tuple[float, ...]:
    """Effective degrees of freedom of each penalised term: the trace of its block of (H + S)⁻¹ H."""
    problem = solution.problem
    free = problem.free
    assert problem.precision is not None
    whole = solution.derivatives.hessian[free][:, free] * problem.population
    prior = problem.precision[free][:, free]
    diagonal = torch.ones(len(whole), dtype=torch.float64) - torch.linalg.solve(whole, prior).diagonal()
    order = free.cumsum(0) - 1
    return tuple(float(diagonal[order[place]].sum()) for place in problem.places())
