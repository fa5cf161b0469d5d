"""Coefficients in original feature and target units, with standard errors."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.base import Solution
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.problem import Problem
from mlefw.head.base import FactorizedHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead


@dataclass(frozen=True)
class Covariance:
    """Covariance of theta (size, size), zero for entries that are not free; `df` for t quantiles, None for normal."""

    matrix: Tensor
    kind: str
    df: float | None


def covariance(solution: Solution, kind: StandardErrors = "default") -> Covariance | None:
    """The inverse information of theta, or None.

    There is none where the estimate does not exist or is not certified, where the information is singular, and under a
    prior with a kink (a coefficient at exactly zero has no curvature).

    By default: Gaussian with a constant scale RSS / (n − p) and t quantiles; Laplace expected information (Bassett &
    Koenker, 1978: the observed one is zero almost everywhere); the others observed information. Under a Gaussian
    prior the curvature of the prior is included: posterior standard deviations.
    """
    problem = solution.problem
    if not solution.exists or not solution.converged or not problem.prior.smooth:
        return None
    classical = kind == "default" and isinstance(problem.head, GaussianHead) and problem.head.eta_names == ("loc",)
    expected = kind == "expected" or (kind == "default" and isinstance(problem.head, LaplaceHead))
    try:
        hessian = problem.derivatives(solution.theta, expected=expected).hessian
    except NotImplementedError:
        return None
    free = problem.free
    information = problem.population * hessian[free][:, free]
    diagonal = information.diagonal()
    if not bool((diagonal > 0).all()):
        return None
    root = diagonal.rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * information * root)
    if bool(failed):
        return None
    matrix = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    inverse = root.unsqueeze(1) * torch.cholesky_inverse(factor) * root
    index = free.nonzero().squeeze(1)
    matrix[index.unsqueeze(1), index] = inverse
    left = problem.population - (problem.num_active + 1)
    if classical and problem.prior.flat and problem.head.shared_dim and left > 0:
        width = problem.num_active + 1
        matrix[:width, :width] *= problem.population / left
        return Covariance(matrix, "RSS / (n - p), t quantiles", left)
    name = "expected information" if expected else "observed information"
    return Covariance(matrix, name if problem.prior.flat else f"posterior ({name} and prior)", None)


def coefficient_tables(
    solution: Solution, names: list[str], labels: list[str] | None, errors: Covariance | None
) -> dict[str, list[dict[str, Any]]]:
    """A list of coefficients for each distribution parameter (or non-reference class), as in `baseline.json`.

    Args:
        solution: the estimate.
        names: design column names, in the order of the features.
        labels: class labels of a categorical target, the first one being the reference.
        errors: from `covariance`; without it only the estimates are stated.
    """
    problem = solution.problem
    head = problem.head
    active = ["(intercept)", *(names[j] for j in problem.active.tolist())]
    tables: dict[str, list[dict[str, Any]]] = {}
    width = problem.num_active + 1
    for k, name in enumerate(head.eta_names):
        if k == head.reference:
            continue
        rotation, shift = _to_original(problem, k)
        title = labels[k] if labels is not None and head.reference is not None else name
        estimates = rotation @ solution.theta[: head.eta_dim * width] + shift
        variances = _variances(rotation, errors)
        tables[title] = [
            _row(label, float(estimate), variance, errors)
            for label, estimate, variance in zip(active, estimates, variances, strict=True)
        ]
    for s, name in enumerate(head.shared_names):
        column, index = head.eta_dim + s, problem.size - head.shared_dim + s
        eta = float(head.center[column] + head.gain[column] * solution.theta[index])
        slope = float(head.gain[column])
        estimate = eta
        if isinstance(head, FactorizedHead) and head.inverse_links[name] is inverse_link.exp:
            estimate = float(torch.tensor(eta, dtype=torch.float64).exp())
            slope *= estimate
        variance = slope * slope * float(errors.matrix[index, index]) if errors is not None else None
        tables[name] = [_row("(shared)", estimate, variance, errors, test=False)]
    return tables


def _to_original(problem: Problem, k: int) -> tuple[Tensor, Tensor]:
    """(A, c) with original coefficients (intercept first) = A theta + c, for eta column k (minus the reference)."""
    head, p = problem.head, problem.num_active
    width = p + 1
    mean, scale = problem.mean[problem.active], problem.scale[problem.active]
    single = torch.zeros(width, width, dtype=torch.float64)
    single[0, p] = 1.0
    single[0, :p] = -mean / scale
    single[1:, :p] = torch.diag(1 / scale)
    rotation = torch.zeros(width, head.eta_dim * width, dtype=torch.float64)
    rotation[:, k * width : (k + 1) * width] = head.gain[k] * single
    shift = torch.zeros(width, dtype=torch.float64)
    shift[0] = head.center[k]
    if head.reference is not None:
        r = head.reference
        rotation[:, r * width : (r + 1) * width] -= head.gain[r] * single
        shift[0] -= head.center[r]
    return rotation, shift


def _variances(rotation: Tensor, errors: Covariance | None) -> list[float | None]:
    if errors is None:
        return [None] * len(rotation)
    block = errors.matrix[: rotation.shape[1], : rotation.shape[1]]
    return [float(v) for v in ((rotation @ block) * rotation).sum(1)]


def _row(
    name: str, estimate: float, variance: float | None, errors: Covariance | None, test: bool = True
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "estimate": estimate}
    if errors is None or variance is None or not variance > 0:
        return row
    error = variance**0.5
    row["std_error"] = error
    reference = stats.t(errors.df) if errors.df is not None and test else stats.norm()
    if test:
        row["z"] = estimate / error
        row["p_value"] = float(2 * reference.sf(abs(estimate / error)))
    half = float(reference.isf(0.025)) * error
    row["ci_low"], row["ci_high"] = estimate - half, estimate + half
    return row
