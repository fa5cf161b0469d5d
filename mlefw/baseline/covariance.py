"""The covariance of an estimate: inverse information, or the sandwich that is robust to a wrong noise model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.derivatives import add_hessian, row_derivatives, row_slopes
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.problem import Problem
from mlefw.baseline.quantile_errors import hendricks_koenker, takes
from mlefw.head.gaussian import GaussianHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead

ROBUST = ("sandwich", "hc0", "hc1")
"""Kinds of standard errors that are robust to a wrong noise model."""
_DOUBTFUL = 1e-3
"""Cholesky pivot of the information, scaled to a unit diagonal, below which its inverse loses more than six digits."""
_SINGULAR = 3e-6
"""Cholesky pivot of the information, scaled to a unit diagonal, below which its inverse is rounding error."""
_DEPENDENT = 1e-13
"""Share of a column left unexplained by the others below which it is rounding error."""


@dataclass(frozen=True)
class Covariance:
    """Covariance of theta.

    Attributes:
        matrix: the covariance (size, size), zero for entries that are not free.
        kind: how it was computed, for reports.
        df: degrees of freedom for t quantiles; None for normal quantiles.
    """

    matrix: Tensor
    kind: str
    df: float | None = None


def covariance(solution: Solution, kind: StandardErrors = "default") -> Covariance | str:
    """The covariance of theta, or a clause that says why there is none.

    The default for a Gaussian with a constant scale is RSS / (n − p) with t quantiles; for other heads it is observed
    information, or expected information where the observed one is zero (Laplace: Bassett & Koenker, 1978); for a
    quantile the sandwich with an estimated density of each row (Hendricks & Koenker, 1992). Under a Gaussian prior its
    curvature is included, which gives posterior standard deviations.

    `sandwich` (or `hc0`) is A⁻¹ Σ w·s sᵀ A⁻¹ with A the information and s the score of a row (Huber, 1967; White,
    1980), which is valid also under a wrong noise model; `hc1` multiplies it by n / (n − p).
    """
    problem = solution.problem
    if not solution.may_exist:
        return "the estimate does not exist"
    if not solution.converged:
        return "the estimate is not certified"
    if solution.boundary is not None:
        return solution.boundary
    if solution.matrix_free:
        return f"the information of {problem.size} coefficients is not formed"
    if not problem.prior.smooth:
        return "the prior has a kink at zero, where a coefficient has no curvature"
    if kind == "default" and takes(problem):
        matrix = hendricks_koenker(solution)
        return matrix if isinstance(matrix, str) else Covariance(matrix, "Hendricks-Koenker (nid)")
    left = problem.population - num_coefficients(problem)
    if kind == "hc1" and left <= 0:
        return f"hc1 divides by n - p, which is {left:g}"
    found = _information(solution, kind)
    if isinstance(found, str):
        return found
    inverse, name = found
    head = problem.head
    if kind in ROBUST:
        factor = problem.population / left if kind == "hc1" else 1.0
        meat = _score_products(problem, _off_kinks(solution) if name.startswith("expected") else solution.theta)
        label = "HC1" if kind == "hc1" else "HC0"
        label += ", expected information" if name.startswith("expected") else ""
        of_map = "" if problem.prior.flat else " of the MAP"
        return Covariance(factor * inverse @ meat @ inverse, f"sandwich ({label}){of_map}")
    if not problem.prior.flat:
        return Covariance(inverse, f"posterior ({name} and prior)")
    width = head.eta_dim * (problem.num_active + 1)
    left = problem.population - problem.num_active - 1
    if kind == "default" and _is_least_squares(problem) and left > 0:
        inverse[:width, :width] *= problem.population / left
        return Covariance(inverse, "RSS / (n - p), t quantiles", left)
    return Covariance(inverse, name)


def _score_products(problem: Problem, theta: Tensor) -> Tensor:
    """Σ w·s sᵀ over rows, (size, size), s being the gradient of a row's NLL in theta; weights are frequencies."""
    total = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    for rows, design, eta in problem.designs(theta):
        slope = row_slopes(problem.head, eta, rows.y)[1] * problem.head.gain
        products = rows.weight.view(-1, 1, 1) * slope.unsqueeze(2) * slope.unsqueeze(1)
        add_hessian(total, design, products, problem.head.eta_dim, torch.empty_like(design))
    return total


def _is_least_squares(problem: Problem) -> bool:
    """Whether means are estimated by least squares, with a shared scale or covariance."""
    head = problem.head
    if isinstance(head, GaussianHead):
        return head.is_linear and head.eta_names == ("loc",) and bool(head.shared_dim)
    return isinstance(head, MultivariateGaussianHead) and bool(head.shared_dim)


def num_coefficients(problem: Problem) -> int:
    """Number of free coefficients, without shared parameters."""
    return int(problem.free.sum()) - problem.head.shared_dim


def _information(solution: Solution, kind: StandardErrors) -> tuple[Tensor, str] | str:
    """The inverse information of theta, (size, size), and its kind; or a clause that says why there is none."""
    problem = solution.problem
    name = type(problem.head).__name__
    for expected in (False, True):
        if kind == ("observed" if expected else "expected"):
            continue
        try:
            here = problem.derivatives(solution.theta, expected=True) if expected else solution.derivatives
        except NotImplementedError:
            return f"{name} states no expected information"
        free = problem.free
        information = problem.population * here.hessian[free][:, free]
        if not expected and not bool((information.diagonal() > 0).all()):
            # Absolute deviations have no curvature anywhere.
            continue
        inverse, pivot = _by_cholesky(information)
        if pivot < _DOUBTFUL and kind not in ROBUST:
            better = _by_qr(solution, information, expected)
            inverse = better if better is not None else inverse
        if inverse is None:
            return "the information is singular, or too near to it for 64 bits"
        matrix = torch.zeros(problem.size, problem.size, dtype=torch.float64)
        index = free.nonzero().squeeze(1)
        matrix[index.unsqueeze(1), index] = inverse
        return matrix, "expected information" if expected else "observed information"
    return f"the observed information of {name} is zero in some direction; standard_errors=expected may exist"


def _by_cholesky(information: Tensor) -> tuple[Tensor | None, float]:
    """The inverse of a positive definite matrix, None if it is rounding error; and the least scaled pivot."""
    diagonal = information.diagonal()
    if not bool((diagonal > 0).all()) or not bool(torch.isfinite(information).all()):
        return None, 0.0
    root = diagonal.rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root.unsqueeze(1) * information * root)
    pivot = 0.0 if bool(failed) else float(factor.diagonal().min())
    if pivot < _SINGULAR:
        return None, pivot
    return root.unsqueeze(1) * torch.cholesky_inverse(factor) * root, pivot


def _by_qr(solution: Solution, information: Tensor, expected: bool) -> Tensor | None:
    """The inverse information by QR of the weighted rows, which does not square the condition number.

    It serves one eta column that is orthogonal to a shared parameter, without a prior, and is None otherwise. It is
    needed for polynomials in raw powers (Filip of NIST: 1e10), whose Gram matrix has no Cholesky factor in 64 bits.
    """
    problem, head = solution.problem, solution.problem.head
    width = problem.num_active + 1
    if not bool((information.diagonal() > 0).all()):
        return None
    root = information.diagonal().rsqrt()
    apart = (root.unsqueeze(1) * information * root)[:width, width:]
    if head.eta_dim > 1 or head.shared_dim > 1 or not problem.prior.flat or bool((apart.abs() > 1e-6).any()):
        return None
    triangle = torch.zeros(0, width, dtype=torch.float64)
    for rows, design, eta in problem.designs(solution.theta):
        curvature = head.information(eta) if expected else row_derivatives(head, eta, rows.y)[2]
        assert curvature is not None
        share = rows.weight * curvature[:, 0, 0] * head.gain[0].square()
        if bool((share < 0).any()):
            return None
        triangle = torch.linalg.qr(torch.cat([triangle, share.sqrt().unsqueeze(1) * design]), mode="r").R
    norm = triangle.norm(dim=0)
    if len(triangle) < width or float((triangle / norm).diagonal().abs().min()) < _DEPENDENT:
        return None
    back = torch.linalg.solve_triangular(triangle / norm, torch.eye(width, dtype=torch.float64), upper=True)
    back /= norm.unsqueeze(1)
    inverse = torch.diag(1 / information.diagonal())
    inverse[:width, :width] = back @ back.T
    return inverse


def _off_kinks(solution: Solution) -> Tensor:
    """Theta with its first bias moved by 1e-8.

    Least absolute deviations fit p rows exactly, and the sign of the score of these rows would be rounding error.
    """
    theta = solution.theta.clone()
    bias = solution.problem.split(theta)[1]
    bias[0] += 1e-8 * max(1.0, float(bias[0].abs()))
    return theta
