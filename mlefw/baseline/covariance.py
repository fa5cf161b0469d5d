"""The covariance of an estimate: inverse information, or a sandwich that is robust to a wrong noise model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline import score_products
from mlefw.baseline.base import Solution
from mlefw.baseline.information import Information, find_information, information_of_mean, invert
from mlefw.baseline.leverage import LeverageError, adjustment
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.pearson import pearson_ratio
from mlefw.baseline.problem import Problem
from mlefw.baseline.quantile_errors import hendricks_koenker, takes
from mlefw.head.gaussian import GaussianHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.rows.dependence import Dependence

ROBUST = ("sandwich", "hc0", "hc1", "hc2", "hc3", "hc4", "cluster", "hac")
"""Kinds of standard errors that are robust to a wrong noise model."""


@dataclass(frozen=True)
class Covariance:
    """Covariance of theta.

    Attributes:
        matrix: the covariance (size, size), zero for entries that are not free.
        kind: how it was computed, for reports.
        df: degrees of freedom for t quantiles; None for normal quantiles.
        max_rank: the most that the rank of the matrix can be, where that is less than the number of free entries, so
            that not all of these can be tested together; None where it has full rank.
    """

    matrix: Tensor
    kind: str
    df: float | None = None
    max_rank: int | None = None


def covariance(
    solution: Solution, kind: StandardErrors = "default", dependence: Dependence | None = None
) -> Covariance | str:
    """The covariance of theta, or a clause that says why there is none.

    The default for a Gaussian with a constant scale is RSS / (n − p) with t quantiles; for other heads it is observed
    information, or expected information where the observed one is zero (Laplace: Bassett & Koenker, 1978); for a
    quantile the sandwich with an estimated density of each row (Hendricks & Koenker, 1992). Under a Gaussian prior its
    curvature is included, which gives posterior standard deviations. Where coefficients maximise a marginal likelihood
    it is the inverse of the curvature of that in these coefficients and the scales. `pearson` multiplies the inverse
    expected information of the coefficients by Pearson's Σ w (y − mean)² / variance over n − p, with t quantiles:
    McCullagh & Nelder (1989).

    `sandwich` (or `hc0`) is A⁻¹ Σ w·s sᵀ A⁻¹ with A the information and s the score of a row (Huber, 1967; White,
    1980), which is valid also under a wrong noise model; `hc1` multiplies it by n / (n − p), and `hc2`, `hc3` and `hc4`
    correct the scores for leverage (see `leverage.adjustment`). `cluster` allows for dependence within clusters (Liang
    & Zeger, 1986; in two ways: Cameron, Gelbach & Miller, 2011), `hac` for dependence in time (Newey & West, 1987).

    Args:
        solution: the estimate.
        kind: kind of standard errors.
        dependence: clusters and times of the rows of the problem, and names of rows for messages.
    """
    problem = solution.problem
    reason = _no_matrix(solution)
    if reason is not None:
        return reason
    if kind == "pearson":
        return _by_pearson(solution)
    if kind == "default" and takes(problem):
        matrix = hendricks_koenker(solution)
        return matrix if isinstance(matrix, str) else Covariance(matrix, "Hendricks-Koenker (nid)")
    if kind in ("default", "observed") and solution.smoothing is not None and solution.smoothing.covariance is not None:
        return Covariance(solution.smoothing.covariance, "curvature of the marginal likelihood")
    left = problem.population - num_coefficients(problem)
    if kind == "hc1" and left <= 0:
        return f"hc1 divides by n - p, which is {left:g}"
    asked = kind if kind in ("observed", "expected") else None
    found = find_information(solution, asked, by_rows=kind not in ROBUST)
    if isinstance(found, str):
        return found
    if kind in ROBUST:
        return _sandwich(solution, found, kind, dependence or Dependence())
    if problem.blocks_of_terms:
        return Covariance(found.inverse, f"Bayesian ({found.words} and priors of terms)")
    if not problem.prior.flat:
        return Covariance(found.inverse, f"posterior ({found.words} and prior)")
    predicted = problem.head.eta_dim * (problem.num_active + 1)
    left = problem.population - int(problem.free[: problem.num_active + 1].sum())
    if kind == "default" and is_least_squares(problem) and left > 0:
        found.inverse[:predicted, :predicted] *= problem.population / left
        return Covariance(found.inverse, "RSS / (n - p), t quantiles", left)
    return Covariance(found.inverse, found.words)


def _no_matrix(solution: Solution) -> str | None:
    """A clause that says why an estimate has no covariance; None where it may have one."""
    if not solution.may_exist:
        return "the estimate does not exist"
    if not solution.converged:
        return "the estimate is not certified"
    if solution.boundary is not None:
        return solution.boundary
    if solution.matrix_free:
        return f"the information of {solution.problem.size} coefficients is not formed"
    if not solution.problem.prior.smooth:
        return "the prior has a kink at zero, where a coefficient has no curvature"
    return None


def _by_pearson(solution: Solution) -> Covariance | str:
    """The inverse expected information of the coefficients, times Pearson's dispersion over the one of the model."""
    problem, head = solution.problem, solution.problem.head
    if not problem.prior.flat:
        return "Pearson's dispersion is for estimates without a prior"
    if head.eta_dim > 1 or (head.event_shape and not head.takes_trials):
        return "Pearson's dispersion is for one predicted parameter, a mean"
    left = problem.population - num_coefficients(problem)
    if left <= 0:
        return f"Pearson's dispersion divides by n - p, which is {left:g}"
    ratio = pearson_ratio(solution, left)
    if isinstance(ratio, str):
        return ratio
    information = information_of_mean(solution)
    if isinstance(information, str):
        return information
    # The coefficients given the shared parameters, of which a dispersion has no error of its own.
    own = problem.free[: problem.num_active + 1].nonzero().squeeze(1)
    inverse, _ = invert(information[own.unsqueeze(1), own])
    if inverse is None:
        return "the information is singular, or too near to it for 64 bits"
    matrix = torch.zeros_like(information)
    matrix[own.unsqueeze(1), own] = ratio * inverse
    words = f"Pearson dispersion, {ratio:.5g} times that of the model, t quantiles"
    return Covariance(matrix, words, left)


def _sandwich(
    solution: Solution, information: Information, kind: StandardErrors, dependence: Dependence
) -> Covariance | str:
    """A⁻¹ M A⁻¹ with M a sum of products of scores, by the kind of errors."""
    problem = solution.problem
    theta = _off_kinks(solution) if information.kind == "expected" else solution.theta
    found: Covariance | str
    if kind == "cluster":
        found = _by_cluster(problem, theta, dependence)
    elif kind == "hac":
        found = _by_time(problem, theta, dependence)
    else:
        found = _by_row(problem, theta, information, kind, dependence)
    if isinstance(found, str):
        return found
    label = found.kind + (", expected information" if information.kind == "expected" else "")
    of_map = "" if problem.prior.flat else " of the MAP"
    t = "" if found.df is None else f", t quantiles with {found.df:g} df"
    matrix = information.inverse @ found.matrix @ information.inverse
    if bool((matrix.diagonal() < 0).any()):
        t += ", not positive semi-definite"
    size = int(problem.free.sum())
    rank = found.max_rank if found.max_rank is not None and found.max_rank < size else None
    t += "" if rank is None else f", rank {rank} for {size} parameters, which cannot be tested all together"
    return Covariance(matrix, f"sandwich ({label}){of_map}{t}", found.df, rank)


def _by_row(
    problem: Problem, theta: Tensor, information: Information, kind: str, dependence: Dependence
) -> Covariance | str:
    """The middle of the sandwich for independent rows: HC0 to HC4."""
    label, factor, adjust = "HC0" if kind == "sandwich" else kind.upper(), 1.0, None
    if kind == "hc1":
        factor = problem.population / (problem.population - num_coefficients(problem))
    if kind in ("hc2", "hc3", "hc4"):
        adjust = adjustment(kind, problem, information, num_coefficients(problem))
        if adjust is None:
            return "the information is singular, or too near to it for 64 bits"
    try:
        return Covariance(factor * score_products.independent(problem, theta, adjust), label)
    except LeverageError as error:
        name = dependence.row_name(error.row)
        return f"{kind} divides by 1 - h, and the leverage h of row {name} is 1: it alone determines a coefficient"


def _by_cluster(problem: Problem, theta: Tensor, dependence: Dependence) -> Covariance | str:
    """The middle of the sandwich for clusters in one or two ways, with t quantiles of one less than their number.

    The factor is G / (G − 1), for least squares also (n − 1) / (n − p); the intersection of two ways has none.
    """
    codes = dependence.clusters
    if not codes:
        return "there are no clusters: expected data.cluster"
    if len(codes[0]) != problem.rows.num_rows:
        return "clusters are of rows, and rows have several observations"
    counts = dependence.num_clusters(problem.rows.weight)
    if min(counts) < 2:
        where = dependence.names[counts.index(min(counts))]
        return f"one cluster ({where}) says nothing about how clusters differ: two are needed"
    small = 1.0
    if _has_least_squares_mean(problem) or is_least_squares(problem):
        left = problem.population - num_coefficients(problem) / problem.head.eta_dim
        if left <= 0:
            return f"the errors of least squares in clusters divide by n - p, which is {left:g}"
        small = (problem.population - 1) / left
    total = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    for code, count in zip(codes, counts, strict=True):
        total += small * count / (count - 1) * score_products.clustered(problem, theta, code)
    if len(codes) > 1:
        total -= score_products.clustered(problem, theta, dependence.intersection())
    words = " and ".join(f"{count} of {name}" for count, name in zip(counts, dependence.names, strict=True))
    # Without a prior scores sum to zero over all clusters.
    rank = counts[0] - int(problem.prior.flat) if len(counts) == 1 else None
    return Covariance(total, f"cluster: {words}", float(min(counts) - 1), rank)


def _by_time(problem: Problem, theta: Tensor, dependence: Dependence) -> Covariance | str:
    """The middle of the sandwich for rows in time, with Bartlett weights and without a factor."""
    time, weight = dependence.time, problem.rows.weight
    if time is None:
        return "rows have no order in time: expected data.time"
    if len(time) != problem.rows.num_rows:
        return "times are of rows, and rows have several observations"
    seen = weight > 0
    if bool((weight[seen] != 1).any()):
        return "hac takes each row for one moment, and weights say that some are several"
    if len(time[seen].unique()) < int(seen.sum()):
        return "hac takes rows in their order, and several have one time: expected standard_errors=cluster"
    lag = dependence.lag_of(int(seen.sum()))
    if lag >= int(seen.sum()):
        return f"a lag of {lag} is not below the number of rows"
    return Covariance(score_products.lagged(problem, theta, time, lag), f"HAC: Bartlett, lag {lag}")


def is_least_squares(problem: Problem) -> bool:
    """Whether means are estimated by least squares, with one learnt scale or covariance."""
    head = problem.head
    if isinstance(head, GaussianHead) and head.eta_names == ("loc", "scale"):
        # A scale whose only term is 1 is one learnt value, also where rows have variance weights.
        is_one = problem.mask is not None and problem.design_columns(1).tolist() == [problem.num_active]
        return is_one and head.inverse_link_of("loc") is inverse_link.identity
    return _has_least_squares_mean(problem) and bool(head.shared_dim)


def _has_least_squares_mean(problem: Problem) -> bool:
    """Whether means are estimated by least squares: a linear mean with a scale or covariance that is not predicted."""
    head = problem.head
    if isinstance(head, GaussianHead):
        return head.eta_names == ("loc",) and head.inverse_link_of("loc") is inverse_link.identity
    return isinstance(head, MultivariateGaussianHead) and bool(head.shared_dim)


def num_coefficients(problem: Problem) -> int:
    """Number of free coefficients, without shared parameters."""
    return int(problem.free.sum()) - problem.head.shared_dim


def _off_kinks(solution: Solution) -> Tensor:
    """Theta with its first bias moved by 1e-8.

    Least absolute deviations fit p rows exactly, and the sign of the score of these rows would be rounding error.
    """
    theta = solution.theta.clone()
    bias = solution.problem.split(theta)[1]
    bias[0] += 1e-8 * max(1.0, float(bias[0].abs()))
    return theta
