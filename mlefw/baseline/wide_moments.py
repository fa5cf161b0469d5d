"""Least squares and ridge with fewer rows than features, from the matrix of products of rows."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from mlefw.baseline.moments import raw_target
from mlefw.baseline.problem import Problem

_COLUMNS = 1024
"""Number of features to work on at a time."""
_NEGLIGIBLE = 1e-24
"""Share of the target's sum of squares below which the residual sum of squares is rounding error."""
_REFINEMENTS = 2
"""Steps of iterative refinement."""


def is_wide(problem: Problem) -> bool:
    """Whether there are more features than rows."""
    return problem.num_active > problem.rows.num_rows


class WideMoments:
    """The interface of `Moments`, computed from K = Z Z' (n, n) of the weighted, centred rows Z (n, p).

    The ridge weights of strength alpha are Z'(K + alpha I)⁻¹ y (Saunders, Gammerman & Vovk, 1998); the least squares
    weights of least norm are their limit as alpha goes to zero. Z is computed block by block, never as a whole.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        rows, unit = problem.rows, problem.scale[problem.active]
        y = raw_target(problem, rows.y.double(), rows.offset)
        self.mean_y = float(rows.weight @ y) / problem.population
        self.root = rows.weight.sqrt()
        self.target = self.root * (y - self.mean_y)
        self.total_square = float(self.target @ self.target)
        self.mean_z = torch.zeros_like(unit)
        products = torch.zeros(rows.num_rows, rows.num_rows, dtype=torch.float64)
        for columns in self._columns():
            z = self._standardised(columns)
            self.mean_z[columns] = rows.weight @ z / problem.population
            centred = z.sub_(self.mean_z[columns]).mul_(self.root.unsqueeze(1)).numpy()
            # numpy computes only one triangle of a symmetric product, torch both.
            products += torch.from_numpy(centred @ centred.T)
        values, self.vectors = torch.linalg.eigh(products)
        self.values = values.clamp(min=0)
        # Eigenvalues below their rounding error count as zero.
        self.least = rows.num_rows * torch.finfo(torch.float64).eps * float(self.values.max())
        self.part = self.vectors.T @ self.target

    @cached_property
    def weight(self) -> Tensor:
        """The least squares weights of least norm, (p,)."""
        return self.ridge_weight(0.0)

    @cached_property
    def residual_square(self) -> float:
        """The residual sum of squares of least squares."""
        return self._residual(self.weight).square().sum().item()

    @property
    def is_perfect(self) -> bool:
        """Whether the residual sum of squares is rounding error."""
        return self.residual_square <= _NEGLIGIBLE * self.total_square

    @property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The nonzero eigenvalues of Z'Z, and Z'y in the basis of their eigenvectors, each (rank,)."""
        kept = self.values > self.least
        return self.values[kept], self.values[kept].sqrt() * self.part[kept]

    def ridge_weight(self, alpha: float) -> Tensor:
        """The weights that minimise ½ Σ w r² + ½ alpha |weight|² for residuals r, (p,); of least norm if alpha is 0."""
        dual = self._solve(self.target, alpha)
        weight = self._weight(dual)
        for _ in range(_REFINEMENTS):
            dual = dual + self._solve(self._residual(weight) - alpha * dual, alpha)
            weight = self._weight(dual)
        return weight

    def _solve(self, right: Tensor, alpha: float) -> Tensor:
        """(K + alpha I)⁻¹ right, (n,), without the null space of Z', whose large part would leave rounding errors."""
        inverse = torch.where(self.values > self.least, 1 / (self.values + alpha), torch.zeros_like(self.values))
        return self.vectors @ (inverse * (self.vectors.T @ right))

    def _weight(self, dual: Tensor) -> Tensor:
        weight = torch.zeros_like(self.mean_z)
        for columns in self._columns():
            z = self._standardised(columns).sub_(self.mean_z[columns])
            weight[columns] = (self.root * dual) @ z
        return weight

    def _residual(self, weight: Tensor) -> Tensor:
        """√w · residual of a fit through the means, (n,)."""
        fitted = torch.zeros_like(self.target)
        for columns in self._columns():
            fitted += self._standardised(columns).sub_(self.mean_z[columns]) @ weight[columns]
        return self.target - self.root * fitted

    def _columns(self) -> Iterator[slice]:
        """Blocks of features.

        Raises:
            LeftOutError: the time limit is exceeded.
        """
        for start in range(0, self.problem.num_active, _COLUMNS):
            if self.problem.meter is not None:
                self.problem.meter.check()
            yield slice(start, start + _COLUMNS)

    def _standardised(self, columns: slice) -> Tensor:
        """Standardised values of some of the active features, (n, count)."""
        problem = self.problem
        active = problem.active[columns]
        whole = problem.num_active == problem.rows.x.shape[1]
        x = problem.rows.x[:, columns] if whole else problem.rows.x[:, active]
        return (x.double() - problem.mean[active]).div_(problem.scale[active])
