"""The rows of a problem as maps of the free entries of theta to each column of eta, sparse where most entries are zero.

Effects of groups have a column for each group, of which a row has one: products of sparse columns take as long as the
entries that are not zero, where those of dense ones take rows times columns squared.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, diags_array, issparse, vstack

from mlefw.baseline.derivatives import row_derivatives
from mlefw.baseline.problem import Problem

Array = NDArray[np.float64]

_DENSE = 0.25
"""Share of entries that are not zero above which dense products are faster."""
_FEW = 60
"""Number of columns below which dense products are faster, whatever the entries."""
_STEP = 1e-3
"""Step of eta, in units of the head's gain, of differences of curvature, whose error is of its fourth order."""
_CHUNK = 2**22
"""Most entries of the dense products of a piece of the rows."""


class At(NamedTuple):
    """Figures of the rows at a point, each weighted: total NLL, slopes (n, K), and curvature (n, K, K), in eta."""

    value: float
    slope: Array
    curvature: Array


class EtaRows:
    """The NLL of all rows of a problem, in nats, as a function of the free entries of theta, with its derivatives.

    A normal prior of the problem belongs to it, those of the terms do not.
    """

    def __init__(self, problem: Problem) -> None:
        head, free = problem.head, problem.free
        self.head, self.y, self.weight = head, problem.rows.y, problem.rows.weight
        self.gain, self.meter = head.gain, problem.meter
        prior = replace(problem, rho=None).penalty(torch.zeros(problem.size, dtype=torch.float64)).curvature
        self.ridge = problem.population * prior[free].numpy()
        place = np.full(problem.size, -1)
        place[free.numpy()] = np.arange(int(free.sum()))
        width, etas = problem.num_active + 1, []
        parts: list[list[csr_array]] = [[] for _ in head.gain]
        for _, design, eta in problem.designs(torch.zeros(problem.size, dtype=torch.float64)):
            etas.append(eta)
            for k, found in enumerate(parts):
                own = k < head.eta_dim
                at = place[k * width : (k + 1) * width] if own else place[head.eta_dim * (width - 1) + k :][:1]
                columns = design.numpy() if own else design[:, -1:].numpy()
                found.append(_placed(float(head.gain[k]) * columns[:, at >= 0], at[at >= 0], int(free.sum())))
        self.base = torch.cat(etas)
        self.columns = [_kept(vstack(found, format="csr")) for found in parts]

    def eta(self, theta: Array) -> torch.Tensor:
        """The complete eta of every row, (n, K)."""
        return self.base + torch.from_numpy(np.stack([columns @ theta for columns in self.columns], 1))

    @torch.no_grad()
    def value(self, theta: Array) -> float:
        """The total NLL."""
        return float(self.weight @ self.head.nll_complete(self.eta(theta), self.y)) + self._prior(theta)

    def _prior(self, theta: Array) -> float:
        return 0.5 * float(self.ridge @ theta**2)

    def at(self, theta: Array) -> At:
        """Figures of the rows at a point; LeftOutError at the time limit."""
        if self.meter is not None:
            self.meter.check()
        found = self._at(self.eta(theta))
        return found._replace(value=found.value + self._prior(theta))

    def _at(self, eta: torch.Tensor) -> At:
        nll, slope, curvature = row_derivatives(self.head, eta, self.y)
        weight = self.weight.numpy()
        slopes, curvatures = weight[:, None] * slope.numpy(), weight[:, None, None] * curvature.numpy()
        return At(float(self.weight @ nll), slopes, curvatures)

    def gradient(self, slope: Array) -> Array:
        """Σ Z' s over the rows, for slopes (n, K) in eta, (num_free,); without the prior."""
        found: Array = sum(columns.T @ slope[:, k] for k, columns in enumerate(self.columns))  # type: ignore[assignment]
        return found

    def hessian(self, curvature: Array) -> csc_array:
        """Σ Z' B Z over the rows, for curvatures (n, K, K) in eta, and the prior, (num_free, num_free)."""
        is_dense = not any(issparse(columns) for columns in self.columns)
        found = np.diag(self.ridge) if is_dense else diags_array(self.ridge, format="csc")
        for k, right in enumerate(self.columns):
            for j, left in enumerate(self.columns[: k + 1]):
                weight = curvature[:, j, k]
                if weight.any():
                    weighted = diags_array(weight) @ right if issparse(right) else weight[:, None] * right
                    block = left.T @ weighted
                    block = block if is_dense else csc_array(block)
                    found = found + (block if j == k else block + block.T)
        return csc_array(found)

    def slope_of_trace(self, theta: Array, inverse: Array) -> Array:
        """The gradient of ½ tr(inverse · Hessian) in theta at a fixed matrix `inverse`, (num_free,).

        It is Z' c with c the derivative in the eta of a row of ½ Σ a b, for the curvature b of the row and a = Z
        inverse Z': so third derivatives of the NLL are needed of single rows alone, from differences of order four.
        """
        share, num_columns = self._spread(inverse), len(self.gain)
        sizes = _STEP * self.gain
        steps = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=torch.float64).view(4, 1, 1) * sizes.diag()
        moved = (self.eta(theta) + steps.reshape(-1, 1, num_columns)).reshape(-1, num_columns)
        # All differences in one call: where rows are few it takes little longer than that of one.
        y = self.y.repeat(4 * num_columns, *[1] * (self.y.ndim - 1))
        curvature = row_derivatives(self.head, moved, y)[2].numpy().reshape(4, num_columns, *share.shape)
        near, back, far, far_back = np.einsum("njl,sknjl->skn", share, curvature)
        change = (8 * (near - back) - (far - far_back)).T / (24 * sizes.numpy())
        slope = self.weight.numpy()[:, None] * change
        return self.gradient(slope)

    def _spread(self, matrix: Array) -> Array:
        """z_j matrix z_k' of each row for columns j and k of eta, (n, K, K)."""
        count, size = len(self.base), len(matrix)
        found = np.zeros((count, len(self.columns), len(self.columns)))
        step = max(_CHUNK // size, 1)
        for start in range(0, count, step):
            piece = slice(start, start + step)
            for j, left in enumerate(self.columns):
                across = left[piece] @ matrix
                for k, right in enumerate(self.columns[: j + 1]):
                    own = right[piece]
                    product = (own * across).sum(1)
                    found[piece, j, k] = found[piece, k, j] = np.asarray(product).ravel()
        return found


def _placed(columns: Array, at: NDArray[np.int64], size: int) -> csr_array:
    """A matrix with the given columns at positions among `size`, and zeros elsewhere."""
    found = csr_array(columns).tocoo()
    return csr_array((found.data, (found.row, at[found.col])), shape=(len(columns), size))


def _kept(columns: csr_array) -> csr_array | Array:
    """The matrix, dense unless most of its entries are zero."""
    rows, size = columns.shape
    return columns.toarray() if size < _FEW or columns.nnz > _DENSE * rows * size else columns
