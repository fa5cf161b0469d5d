"""The exact linear estimate that accompanies a run: null model, maximum likelihood, MAP."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.barrier import Barrier
from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.binned import of_bins, of_densities
from mlefw.baseline.collinear import without_collinear
from mlefw.baseline.conjugate_gradient import NewtonCG
from mlefw.baseline.existence import examine, perfect_fit
from mlefw.baseline.feature_map import check_name
from mlefw.baseline.frequencies import Frequencies
from mlefw.baseline.kinked import Kinked
from mlefw.baseline.least_absolute import LeastAbsolute
from mlefw.baseline.least_squares import LeastSquares
from mlefw.baseline.monotone import Monotone
from mlefw.baseline.newton import Newton
from mlefw.baseline.per_target import is_separable, parts, together
from mlefw.baseline.problem import Problem
from mlefw.baseline.proximal_newton import ProximalNewton
from mlefw.baseline.quadratic import stated_scales
from mlefw.baseline.smoothing import solve_smooth
from mlefw.baseline.starts import origin
from mlefw.baseline.varying_laplace import VaryingLaplace
from mlefw.baseline.wide_moments import is_wide
from mlefw.baseline.work import (
    MAX_SECONDS,
    MAX_WORK,
    MOST_DENSE,
    MOST_DENSE_ALONE,
    NOTICEABLE,
    LeftOutError,
    Meter,
    Watch,
    check,
    products_work,
)
from mlefw.baseline.work_plan import announcement, check_plan, planned_work
from mlefw.errors import UsageError
from mlefw.head.histogram import HistogramHead
from mlefw.prior.base import check_scale

StandardErrors = Literal[
    "default", "observed", "expected", "pearson", "sandwich", "hc0", "hc1", "hc2", "hc3", "hc4", "cluster", "hac"
]

_SOLVERS: tuple[Solver, ...] = (
    *(LeastSquares(), LeastAbsolute(), VaryingLaplace(), Monotone()),
    *(Kinked(), Barrier(), ProximalNewton(), Newton()),
)

_PROOF_SECONDS = 20.0
"""Seconds that a proof of existence may take, so that time is left for the MAP estimate if there is no maximum."""


class LinearBaseline:
    """The exact linear estimate with the run's own head, features and training rows.

    The multiplications of an estimate are counted before it starts. If there are too many coefficients to form a
    Hessian, a matrix-free method is used; an estimate that needs more than `max_work` is left out.

    Args:
        standard_errors: `observed` or `expected` information; `pearson`, expected information with Pearson's estimate
            of the dispersion; against a wrong noise model `sandwich` (also `hc0`), or with corrections for few rows
            `hc1`, `hc2`, `hc3` or `hc4`; `cluster` for rows that depend on each other within clusters (`data.cluster`),
            `hac` in time (`data.time`); or `default`: the usual choice for the head.
        lag: most rows between two that depend on each other, of `standard_errors=hac`; by default
            ⌊4 (n / 100)^(2/9)⌋.
        max_seconds: time limit of an estimate, including the proof of its existence.
        max_work: most multiplications of an estimate.
        ridge_scale: scale of the Gaussian prior of a weight of standardised features, under which a MAP estimate
            replaces an MLE that does not exist; biases have no prior.
        features: names of the columns to use, a categorical one with all its levels; by default all. Of arrays
            `pixels` (all inputs), principal components (`pca:50`), `last_layer` (the inputs of the last layer of the
            trained network), or `auto`: all inputs if these have few coefficients, else `pca:50`. `run/build.py`
            makes the problem of them.
        solvers: exact solvers, usually of plugins, that are tried before the built-in ones.
        order: most tokens of context of the tables of a text, by default 2; or most pixels that those of pixels are by,
            by default 10, or fewer where there are many levels.
        smoothing: what the tables of a text add to each count, or `unigram`: a prior centred at the shares of tokens,
            with the strength of largest evidence.
        scales: how the scales of smooth terms and effects of groups are found: by restricted maximum likelihood
            (`reml`), by maximum likelihood, together with all coefficients that have no prior (`ml`); or the precision
            of each term by its name, in nats, also as a text `{s(x): 2.0}`.
        intervals: of coefficients, `wald`, or `profile` for those by the likelihood maximised over all other
            parameters, which are not symmetric, and infinite where the likelihood does not fall.
    """

    def __init__(
        self,
        standard_errors: StandardErrors = "default",
        lag: int | None = None,
        max_seconds: float = MAX_SECONDS,
        max_work: float = MAX_WORK,
        ridge_scale: float = 1.0,
        features: list[str] | str | None = None,
        solvers: Sequence[Solver] | None = None,
        order: int | None = None,
        smoothing: float | Literal["unigram"] = "unigram",
        scales: str | dict[str, float] = "reml",
        intervals: Literal["wald", "profile"] = "wald",
    ) -> None:
        known = get_args(StandardErrors)
        if standard_errors not in known:
            raise UsageError(f"baseline.standard_errors={standard_errors!r}: expected {', '.join(known)}")
        if intervals not in ("wald", "profile"):
            raise UsageError(f"baseline.intervals={intervals!r}: expected wald or profile")
        if intervals == "profile" and standard_errors not in ("default", "observed", "expected"):
            raise UsageError(
                f"baseline.intervals=profile takes the noise model for right, and baseline.standard_errors="
                f"{standard_errors} does not: expected intervals=wald, or default, observed or expected"
            )
        self.intervals = intervals
        if lag is not None and lag < 0:
            raise UsageError(f"baseline.lag={lag}: expected a whole number of at least 0")
        if lag is not None and standard_errors != "hac":
            raise UsageError(f"baseline.lag={lag} is for baseline.standard_errors=hac, which is {standard_errors}")
        for name, value in (("max_seconds", max_seconds), ("max_work", max_work)):
            if not value > 0:
                raise UsageError(f"baseline.{name}={value}: expected a positive number")
        if isinstance(features, str):
            check_name(features)
        self.ridge_scale = check_scale("baseline.ridge_scale", ridge_scale)
        self.features, self.standard_errors, self.solvers = features, standard_errors, tuple(solvers or ())
        self.max_seconds, self.max_work = max_seconds, max_work
        if order is not None and order < 1:
            raise UsageError(f"baseline.order={order}: expected a whole number of at least 1")
        self.scales = scales if isinstance(scales, dict) else stated_scales(str(scales))
        self.order, self.smoothing = order, None if smoothing == "unigram" else float(smoothing)

    def solve(
        self, problem: Problem, watch: Watch | None = None, start: Tensor | None = None, seconds: float | None = None
    ) -> Solution:
        """The estimate of a problem; without a prior, collinear features are left out.

        Args:
            problem: a head, a prior and rows.
            watch: called with progress messages of a long computation.
            start: a theta near the estimate, if known; used for many coefficients.
            seconds: time that is left of `max_seconds`, if other estimates of the run came before.

        Raises:
            LeftOutError: the estimate takes too many multiplications, or too long.
        """
        meter = Meter(self.max_seconds, watch, seconds)
        return _without_meter(self._solve(replace(problem, meter=meter), meter, start))

    def _solve(self, problem: Problem, meter: Meter, start: Tensor | None) -> Solution:
        if is_separable(problem.head):
            return together(problem, [self._solve(part, meter, None) for part in parts(problem)])
        if problem.blocks_of_terms:
            return solve_smooth(problem, self.scales)
        if isinstance(problem.head, HistogramHead):
            return of_densities(problem, self._solve(of_bins(problem), meter, start))
        size, without = problem.size, NewtonCG(self.max_work)
        solver = solver_for(problem, self.solvers)
        work = solver.work(problem)
        if problem.prior.flat:
            # The products of features are needed first, to find collinear ones.
            work += products_work(problem.rows.num_rows, problem.num_active)
        is_free = problem.is_plain and without.supports(problem)
        fits = size <= (MOST_DENSE if is_free else MOST_DENSE_ALONE)
        fits = fits or (isinstance(solver, LeastSquares) and is_wide(problem) and not problem.prior.flat)
        is_own = solver in self.solvers
        if not is_own and is_free and not (fits and work <= self.max_work):
            check(without.work(problem), self.max_work)
            if problem.features is not None and (plan := planned_work(problem)) is not None:
                check_plan(plan, self.max_work)
                meter.announce(announcement(size, plan))
                return NewtonCG(plan).solve(problem, start)
            meter.announce(
                f"{size:,} coefficients without a matrix of them: at most {self.max_work:.2g} multiplications"
            )
            return without.solve(problem, start)
        if work > self.max_work and (found := self._interpolated(problem, solver)) is not None:
            return found
        check(work, self.max_work)
        if not is_own and not fits and not isinstance(solver, LeastSquares):
            raise LeftOutError(f"matrices of its {size:,} coefficients take {8e-9 * size**2:.1f} GB each")
        if work > NOTICEABLE:
            meter.announce(f"{size:,} coefficients: at most {work:.2g} multiplications")
        if problem.prior.flat and problem.num_active:
            problem = without_collinear(problem)
        return examine(_solution(problem, self.solvers), min(max(meter.seconds_left, 0.0), _PROOF_SECONDS))

    def _interpolated(self, problem: Problem, solver: Solver) -> Solution | None:
        """The solution where least squares fit all rows exactly, for more features than rows; None otherwise."""
        wide = isinstance(solver, LeastSquares) and problem.prior.flat and is_wide(problem)
        if not wide or not problem.head.shared_dim or solver.work(problem) > self.max_work:
            return None
        found = solver.solve(problem)
        return None if found.may_exist else found


def _without_meter(solution: Solution) -> Solution:
    """The solution with a problem that has no time limit any more."""
    whole = tuple(_without_meter(part) for part in solution.parts)
    return replace(solution, problem=replace(solution.problem, meter=None), parts=whole)


def solve_null(problem: Problem) -> Solution:
    """The intercept-only estimate of a problem."""
    problem = replace(problem.restricted(torch.zeros(0, dtype=torch.long)), blocks_of_terms=())
    if is_separable(problem.head):
        return together(problem, [solve_null(part) for part in parts(problem)])
    if isinstance(problem.head, HistogramHead):
        return of_densities(problem, solve_null(of_bins(problem)))
    if problem.is_plain and Frequencies().supports(problem):
        return Frequencies().solve(problem)
    return examine(_solution(problem))


def _solution(problem: Problem, first: Sequence[Solver] = ()) -> Solution:
    """The solution of the first solver that supports the problem; if its arithmetic fails, the start and the reason."""
    if not bool(problem.free.any()):
        theta = torch.zeros(problem.size, dtype=torch.float64)
        value = problem.value(theta)
        return Solution(problem, theta, value, 0.0, "nothing to estimate", 0, is_global=True, exists=True)
    solver = solver_for(problem, first)
    sees_it = isinstance(solver, LeastSquares | LeastAbsolute) or solver in first
    if not sees_it and (found := perfect_fit(problem)) is not None:
        return found
    try:
        found = solver.solve(problem)
        if problem.head.positive_columns and found.objective == math.inf:
            why = "no coefficients give every row an eta above 0, which the link asks for"
            return replace(found, converged=False, exists=None, is_global=None, reason=why)
        return found
    except (ArithmeticError, np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        theta = origin(problem)
        name, why = type(solver).__name__, f"the solver broke down ({error})"
        return Solution(problem, theta, problem.value(theta), math.inf, name, 0, converged=False, reason=why)


def solver_for(problem: Problem, first: Sequence[Solver] = ()) -> Solver:
    """The first solver that supports the problem, out of `first` and then the built-in ones.

    Raises:
        UsageError: no solver supports the problem.
    """
    for solver in (*first, *_SOLVERS):
        if (problem.is_plain or solver.takes_terms) and solver.supports(problem):
            return solver
    raise UsageError(f"no exact solver for {type(problem.head).__name__} with {type(problem.prior).__name__}")


def full_weight(solution: Solution) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (eta_dim, num_features), zero where dropped, biases (eta_dim,), and shared raw values (shared_dim,)."""
    problem = solution.problem
    weight, bias, shared = problem.split(solution.theta)
    whole = torch.zeros(problem.head.eta_dim, problem.rows.x.shape[1], dtype=torch.float64)
    whole[:, problem.active] = weight
    return whole, bias, shared
