"""A preconditioner for linear models of many coefficients: mean curvature of the columns ⊗ moments of the features."""

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives, row_slopes
from mlefw.baseline.moments import weighted_products
from mlefw.baseline.problem import Problem
from mlefw.baseline.quasi_newton import sample

_MOST_FEATURES = 1500
"""Features up to which their moments are diagonalised; of more, only their variances are used."""
_MOST_COLUMNS = 200
"""Columns of eta up to which the same holds for their curvature."""
_MOST_CELLS = 2**22
"""Numbers that curvatures of the rows of a sample may take."""
_NOTHING = 1e-12
"""Share of the largest eigenvalue below which one is rounding."""


class Kronecker:
    """(C ⊗ G + ridge)⁻¹, which is H⁻¹ where all rows have one curvature; biases apart, features being centred.

    Both factors are held by their eigenvalues and vectors; vectors of None stand for the unit ones. Directions without
    curvature are left out.

    Args:
        values: eigenvalues (p,) of the second moments of the standardised features.
        vectors: their vectors, (p, p), or None.
    """

    def __init__(self, values: Tensor, vectors: Tensor | None) -> None:
        self.values, self.vectors, self.ridge = values, vectors, 0.0
        self._curvature = values.new_ones(1)
        self._columns: Tensor | None = None

    def adapt(self, problem: Problem, theta: Tensor) -> None:
        """Take the mean curvature of the columns from rows at theta, and that of the prior."""
        curvature = problem.penalty(theta).curvature
        self.ridge = float(curvature[0]) if problem.num_active else 0.0
        self._curvature, self._columns = _column_curvature(problem, theta)

    def __call__(self, gradient: Tensor) -> Tensor:
        """The product with a gradient in theta (eta_dim · (p + 1),)."""
        table = gradient.view(-1, len(self.values) + 1)
        table = table if self._columns is None else self._columns.T @ table
        weight = table[:, :-1] if self.vectors is None else table[:, :-1] @ self.vectors
        size = self._curvature.unsqueeze(1) * self.values
        weight = _divided(weight, size + self.ridge, float(size.max()) if size.numel() else 0.0)
        weight = weight if self.vectors is None else weight @ self.vectors.T
        bias = _divided(table[:, -1:], self._curvature.unsqueeze(1), float(self._curvature.max()))
        table = torch.cat([weight, bias], 1)
        return (table if self._columns is None else self._columns @ table).reshape(-1)


def preconditioner(problem: Problem) -> Kronecker:
    """That of a problem with a flat or a Gaussian prior: one pass for the moments, and their eigenvectors."""
    if problem.num_active > _MOST_FEATURES:
        return Kronecker(torch.ones(problem.num_active, dtype=torch.float64), None)
    unit = problem.scale[problem.active]
    products = weighted_products(problem)[1] / unit / unit.unsqueeze(1) / problem.population
    values, vectors = torch.linalg.eigh(products)
    return Kronecker(values.clamp(min=0), vectors)


def _column_curvature(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K,) and vectors (K, K) of the mean Hessian of a row's NLL in its eta, on a sample of the rows.

    Of very many columns the mean squared slopes stand for it, which are the same thing in expectation (Fisher).
    """
    head, count = problem.head, problem.head.eta_dim
    dense = count <= _MOST_COLUMNS
    most = max(_MOST_CELLS // (count * count if dense else count), 32)
    near = sample(problem, 1 + problem.rows.num_rows // most)
    eta = torch.cat([eta for _, _, eta in near.etas(theta)])
    share = near.rows.weight / near.rows.weight.sum()
    gain = head.gain[:count]
    if not dense:
        slopes = row_slopes(head, eta, near.rows.y)[1] * gain
        return share @ slopes.square(), None
    curvature = head.information(eta)
    curvature = row_derivatives(head, eta, near.rows.y)[2] if curvature is None else curvature
    mean = (share.view(-1, 1, 1) * curvature).sum(0) * gain * gain.unsqueeze(1)
    values, vectors = torch.linalg.eigh(mean)
    return values.clamp(min=0), vectors


def _divided(table: Tensor, size: Tensor, largest: float) -> Tensor:
    return torch.where(size > _NOTHING * largest, table / size.clamp(min=1e-300), torch.zeros_like(table))
