"""A Kronecker preconditioner for linear models of many coefficients: mean curvature of eta ⊗ moments of features."""

import torch
from torch import Tensor

from mlefw.baseline.derivatives import row_derivatives, row_slopes
from mlefw.baseline.moments import weighted_products
from mlefw.baseline.problem import Problem
from mlefw.baseline.quasi_newton import sample

_MOST_FEATURES = 1500
"""Most features for which the matrix of moments is used; for more, only variances are."""
_MOST_COLUMNS = 200
"""Most eta columns for which the curvature matrix is used; for more, only its diagonal is."""
_MOST_CELLS = 2**22
"""Most values of the curvatures of a sample of rows."""
_NEGLIGIBLE = 1e-12
"""Share of the largest eigenvalue below which an eigenvalue is rounding error."""


class Kronecker:
    """(C ⊗ G + ridge)⁻¹, which is H⁻¹ if all rows have equal curvature; biases separate, as features are centred.

    C is the mean curvature of the eta columns, G the second moments of the features, both as eigenvalues and
    eigenvectors. Directions without curvature are mapped to zero.

    Args:
        values: eigenvalues of the second moments of the standardised features, (p,).
        vectors: eigenvectors of these moments, (p, p); None for the unit vectors.
    """

    def __init__(self, values: Tensor, vectors: Tensor | None) -> None:
        self.values, self.vectors, self.ridge = values, vectors, 0.0
        self._curvature = values.new_ones(1)
        self._columns: Tensor | None = None

    def adapt(self, problem: Problem, theta: Tensor) -> None:
        """Update the mean curvature of the eta columns, from a sample of rows at theta, and that of the prior."""
        curvature = problem.penalty(theta).curvature
        self.ridge = float(curvature[0]) if problem.num_active else 0.0
        self._curvature, self._columns = _column_curvature(problem, theta)

    def __call__(self, gradient: Tensor) -> Tensor:
        """The product with a gradient in theta, (eta_dim · (p + 1),)."""
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
    """The preconditioner of a problem with a flat or Gaussian prior: one pass for the moments."""
    if problem.num_active > _MOST_FEATURES:
        return Kronecker(torch.ones(problem.num_active, dtype=torch.float64), None)
    unit = problem.scale[problem.active]
    products = weighted_products(problem)[1] / unit / unit.unsqueeze(1) / problem.population
    values, vectors = torch.linalg.eigh(products)
    return Kronecker(values.clamp(min=0), vectors)


def _column_curvature(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K,) and eigenvectors (K, K) of the mean Hessian of a row's NLL in its eta, on a sample of rows.

    For very many columns, the mean squared derivatives, which equal the diagonal in expectation, and None.
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
    return torch.where(size > _NEGLIGIBLE * largest, table / size.clamp(min=1e-300), torch.zeros_like(table))
