"""The information matrix of an estimate, observed or expected, and its inverse."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.derivatives import add_hessian
from mlefw.baseline.row_information import Kind, RowInformation, row_information
from mlefw.rows.rows import Rows

_DOUBTFUL = 1e-3
"""Cholesky pivot of the information, scaled to a unit diagonal, below which its inverse loses more than six digits."""
_SINGULAR = 3e-6
"""Cholesky pivot of the information, scaled to a unit diagonal, below which its inverse is rounding error."""
_DEPENDENT = 1e-13
"""Share of a column left unexplained by the others below which it is rounding error."""


@dataclass(frozen=True)
class Information:
    """The information of theta, the total over all rows with the curvature of the prior, and its inverse.

    Attributes:
        matrix: the information, (size, size).
        inverse: its inverse over the entries that are free, zero elsewhere, (size, size).
        of_rows: the information of each row.
        kind: whether it is the observed information, or the expected one.
    """

    matrix: Tensor
    inverse: Tensor
    of_rows: RowInformation
    kind: Kind

    @property
    def words(self) -> str:
        """`observed information` or `expected information`."""
        return f"{self.kind} information"


def find_information(solution: Solution, kind: Kind | None = None, by_rows: bool = True) -> Information | str:
    """The information at an estimate; or a clause that says why it has none with an inverse.

    Args:
        solution: the estimate.
        kind: which information; by default the observed one, or the expected one where a diagonal entry of that is
            zero, as of absolute deviations, which have no curvature anywhere.
        by_rows: whether the inverse is found from the rows where that of the matrix would lose digits.
    """
    problem, name = solution.problem, type(solution.problem.head).__name__
    free = problem.free
    kinds: tuple[Kind, ...] = ("observed", "expected") if kind is None else (kind,)
    for one in kinds:
        try:
            of_rows = row_information(problem, solution.theta, one)
            matrix = _summed(solution, of_rows) if one == "expected" else solution.derivatives.hessian
        except NotImplementedError as error:
            return str(error)
        matrix = problem.population * matrix
        information = matrix[free][:, free]
        if one == "observed" and not bool((information.diagonal() > 0).all()):
            continue
        inverse, pivot = invert(information)
        if pivot < _DOUBTFUL and by_rows:
            better = _by_qr(solution, information, of_rows)
            inverse = better if better is not None else inverse
        if inverse is None:
            return "the information is singular, or too near to it for 64 bits"
        whole = torch.zeros(problem.size, problem.size, dtype=torch.float64)
        index = free.nonzero().squeeze(1)
        whole[index.unsqueeze(1), index] = inverse
        return Information(matrix, whole, of_rows, one)
    return f"the observed information of {name} is zero in some direction; standard_errors=expected may exist"


def information_of_mean(solution: Solution) -> Tensor | str:
    """The expected information of theta, (size, size), of which the entries of the first eta are right at least.

    A clause says why there is none.
    """
    problem = solution.problem
    if problem.head.information_of_mean(problem.head.center.unsqueeze(0)) is None:
        found = find_information(solution, "expected")
        return found if isinstance(found, str) else found.matrix

    def of_rows(_: Rows, eta: Tensor) -> Tensor:
        first = problem.head.information_of_mean(eta)
        assert first is not None
        whole = eta.new_zeros(*eta.shape, eta.shape[1])
        whole[:, 0, 0] = first
        return whole

    return problem.population * _summed(solution, of_rows)


def _summed(solution: Solution, of_rows: RowInformation) -> Tensor:
    """The sum of the information of all rows with the curvature of the prior, in nats per observation, (size, size)."""
    problem, theta = solution.problem, solution.theta
    gain = problem.head.gain
    matrix = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    for rows, design, eta in problem.designs(theta):
        weighted = rows.weight.view(-1, 1, 1) * of_rows(rows, eta) * (gain * gain.unsqueeze(1))
        add_hessian(matrix, design, weighted, problem.head.eta_dim, torch.empty_like(design))
    matrix /= problem.population
    matrix.diagonal().add_(problem.penalty(theta).curvature)
    return matrix


def invert(information: Tensor) -> tuple[Tensor | None, float]:
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


def _by_qr(solution: Solution, information: Tensor, of_rows: RowInformation) -> Tensor | None:
    """The inverse information by QR of the weighted rows, which does not square the condition number.

    It serves one eta column that is orthogonal to a shared parameter, without a prior, and is None otherwise. It is
    needed for polynomials in raw powers (Filip of NIST: 1e10), whose Gram matrix has no Cholesky factor in 64 bits.
    """
    problem, head = solution.problem, solution.problem.head
    own = problem.free[: problem.num_active + 1]
    width = int(own.sum())
    if not bool((information.diagonal() > 0).all()):
        return None
    root = information.diagonal().rsqrt()
    apart = (root.unsqueeze(1) * information * root)[:width, width:]
    if head.eta_dim > 1 or head.shared_dim > 1 or not problem.prior.flat or bool((apart.abs() > 1e-6).any()):
        return None
    triangle = torch.zeros(0, width, dtype=torch.float64)
    for rows, design, eta in problem.designs(solution.theta):
        share = rows.weight * of_rows(rows, eta)[:, 0, 0] * head.gain[0].square()
        if bool((share < 0).any()):
            return None
        weighted = share.sqrt().unsqueeze(1) * (design if width == len(own) else design[:, own])
        triangle = torch.linalg.qr(torch.cat([triangle, weighted]), mode="r").R
    norm = triangle.norm(dim=0)
    if len(triangle) < width or float((triangle / norm).diagonal().abs().min()) < _DEPENDENT:
        return None
    back = torch.linalg.solve_triangular(triangle / norm, torch.eye(width, dtype=torch.float64), upper=True)
    back /= norm.unsqueeze(1)
    inverse = torch.diag(1 / information.diagonal())
    inverse[:width, :width] = back @ back.T
    return inverse
