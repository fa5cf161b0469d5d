"""Tests of a smaller model within a larger one: likelihood ratio, Wald, score and F; and of the terms of one model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance, covariance, is_least_squares, num_coefficients
from mlefw.baseline.fit_statistics import marginal_likelihood
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.nested import Embedding
from mlefw.distribution.reference import chi2_tail, f_tail
from mlefw.head.gaussian import GaussianHead

CLASSICAL = ("default", "observed", "expected")
"""Kinds of standard errors that take the likelihood for right, as a likelihood ratio does."""


class Statistic(NamedTuple):
    """A test statistic with its degrees of freedom and P; `df_resid` for F, None for χ²."""

    statistic: float
    df: int
    p_value: float
    df_resid: float | None = None

    @classmethod
    def chi2(cls, statistic: float, df: int) -> "Statistic":
        """A χ² test; a statistic that is negative by rounding counts as zero."""
        statistic = max(statistic, 0.0)
        return cls(statistic, df, chi2_tail(statistic, df))


def refusal(solution: Solution) -> str | None:
    """Why an estimate takes part in no test of nested models, or None."""
    if not solution.problem.prior.flat:
        return "a MAP has no likelihood ratio, Wald or score test; expected prior=none"
    if solution.smoothing is not None and marginal_likelihood(solution) is None:
        return (
            "models with smooth terms or effects of groups are compared by the marginal likelihood, which a restricted "
            "one, or given scales, do not maximise; expected baseline.scales=ml"
        )
    if not solution.may_exist:
        return f"there is no finite MLE: {solution.reason}"
    if not solution.converged:
        return "its MLE is not certified"
    return "targets are tested one by one" if solution.parts else None


def likelihood_ratio(small: Solution, large: Solution) -> Statistic:
    """2 (log-likelihood of the larger − of the smaller), χ² with the number of further parameters.

    Of smooth terms and effects of groups it is the marginal likelihood.
    """
    return Statistic.chi2(2 * (log_likelihood(large) - log_likelihood(small)), num_further(small, large))


def log_likelihood(solution: Solution) -> float:
    """The log-likelihood that an estimate maximises, in nats."""
    marginal = marginal_likelihood(solution)
    problem = solution.problem
    return -problem.population * problem.mean_nll(solution.theta) if marginal is None else marginal.value


def num_parameters(solution: Solution) -> int:
    """Number of parameters over which the log-likelihood is maximised."""
    marginal = marginal_likelihood(solution)
    return int(solution.problem.free.sum()) if marginal is None else marginal.num_parameters


def wald(small: Solution, large: Solution, within: Embedding, kind: StandardErrors) -> Statistic | None:
    """The squared distance of the larger estimate from the smaller model in standard errors; None without errors.

    Under the default of least squares, whose variance is RSS / (n − p), it is divided by its degrees of freedom and is
    an F test; other kinds of standard errors give χ².
    """
    errors = covariance(large, kind)
    if not isinstance(errors, Covariance):
        return None
    free = large.problem.free
    basis = within.matrix[free][:, small.problem.free]
    # An orthonormal basis of the directions in which the smaller model cannot move.
    whole = torch.linalg.qr(basis, mode="complete").Q if basis.numel() else torch.eye(len(basis), dtype=torch.float64)
    across = whole[:, basis.shape[1] :]
    return _of(across.T @ (large.theta - within.origin)[free], across.T @ errors.matrix[free][:, free] @ across, errors)


def score(small: Solution, large: Solution, within: Embedding) -> Statistic | None:
    """S' I⁻¹ s of the larger model at the smaller estimate (Rao, 1948), which needs no fit of the larger model.

    I is the expected information where the head states it, else the observed one; None if that is not positive.
    """
    problem, theta = large.problem, within(small.theta)
    free = problem.free
    try:
        here = problem.derivatives(theta, expected=True)
    except NotImplementedError:
        here = problem.derivatives(theta)
    slope = here.gradient[free]
    factor, failed = torch.linalg.cholesky_ex(here.hessian[free][:, free])
    if bool(failed):
        return None
    step = torch.cholesky_solve(slope.unsqueeze(1), factor).squeeze(1)
    return Statistic.chi2(problem.population * float(slope @ step), num_further(small, large))


def f_test(small: Solution, large: Solution, largest: Solution) -> Statistic | None:
    """The F test of least squares, with the variance of the largest model of a sequence; None for other heads."""
    head, n = largest.problem.head, largest.problem.population
    left = n - num_coefficients(largest.problem)
    if not isinstance(head, GaussianHead) or not is_least_squares(largest.problem) or left <= 0:
        return None
    if not all(is_least_squares(solution.problem) for solution in (small, large)):
        return None
    rss = [_residual_sum(solution) for solution in (small, large, largest)]
    df = num_further(small, large)
    statistic = max((rss[0] - rss[1]) / df / (rss[2] / left), 0.0)
    return Statistic(statistic, df, f_tail(statistic, df, left), left)


def num_further(small: Solution, large: Solution) -> int:
    """Number of free parameters that the larger model has in addition."""
    return num_parameters(large) - num_parameters(small)


def term_tests(
    solution: Solution, errors: Covariance, terms: Mapping[str, Mapping[str, Sequence[int]]]
) -> list[tuple[str, str, Statistic]]:
    """Joint Wald tests that all coefficients of a term are zero, with the parameter and the name of each.

    Of labels the coefficients of all labels are tested together. Terms without a column in use are left out.

    Args:
        solution: an estimate without a prior.
        errors: the covariance of theta.
        terms: positions of the features of each term by distribution parameter; under "" those of every parameter that
            is not named.
    """
    problem, head = solution.problem, solution.problem.head
    width, free, found = problem.num_active + 1, problem.free, []
    place = {j: p for p, j in enumerate(problem.active.tolist())}
    groups = [(name, [k]) for k, name in enumerate(head.eta_names)]
    for parameter, columns in [("", list(range(head.eta_dim)))] if head.reference is not None else groups:
        for name, features in terms.get(parameter, terms.get("", {})).items():
            places = [k * width + place[j] for k in columns for j in features if j in place]
            index = torch.tensor([i for i in places if free[i]], dtype=torch.long)
            if len(index):
                test = _of(solution.theta[index], errors.matrix[index][:, index], errors)
                found += [] if test is None else [(parameter, name, test)]
    return found


def _of(value: Tensor, matrix: Tensor, errors: Covariance) -> Statistic | None:
    """The Wald test that a vector is zero, given its covariance; F where the errors have degrees of freedom."""
    root = matrix.diagonal().clamp(min=0).sqrt()
    if not bool((root > 0).all()):
        return None
    factor, failed = torch.linalg.cholesky_ex(matrix / root / root.unsqueeze(1))
    if bool(failed) or float(factor.diagonal().min()) < 1e-7:
        return None
    scaled = torch.linalg.solve_triangular(factor, (value / root).unsqueeze(1), upper=False)
    statistic, df = float(scaled.square().sum()), len(value)
    if errors.df is None:
        return Statistic.chi2(statistic, df)
    return Statistic(statistic / df, df, f_tail(statistic / df, df, errors.df), errors.df)


@torch.no_grad()
def _residual_sum(solution: Solution) -> float:
    problem = solution.problem
    return sum(float(rows.weight @ (rows.y - eta[:, 0]).square()) for rows, _, eta in problem.etas(solution.theta))
