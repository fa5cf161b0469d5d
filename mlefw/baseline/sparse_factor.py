"""Factors of symmetric positive definite matrices, sparse where most entries are zero."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csc_array
from scipy.sparse.linalg import SuperLU, splu

Array = NDArray[np.float64]

_DENSE = 0.2
"""Share of entries that are not zero above which a dense factor is faster."""
_FEW = 60
"""Size below which a dense factor is faster."""


class Factor(ABC):
    """A factor of a positive definite matrix."""

    half_log_det: float
    """Half the logarithm of the determinant."""

    @abstractmethod
    def solve(self, right: Array) -> Array:
        """The inverse times a vector or matrix."""


class _Dense(Factor):
    def __init__(self, lower: Array) -> None:
        self.lower, self.half_log_det = lower, float(np.log(lower.diagonal()).sum())

    def solve(self, right: Array) -> Array:
        found: Array = cho_solve((self.lower, True), right, check_finite=False)
        return found


class _Sparse(Factor):
    def __init__(self, factor: SuperLU) -> None:
        self.factor, self.half_log_det = factor, 0.5 * float(np.log(factor.U.diagonal()).sum())

    def solve(self, right: Array) -> Array:
        found: Array = self.factor.solve(right)
        return found


def factor_of(matrix: csc_array) -> Factor | None:
    """The factor of a symmetric matrix; None unless it is positive definite.

    A sparse matrix is eliminated on its diagonal, in an order that keeps zeros (Liu, 1985): groups within groups, and
    a group for each row, add next to none. It is positive definite just where all pivots are positive.
    """
    size = matrix.shape[0]
    if size < _FEW or matrix.nnz > _DENSE * size**2:
        try:
            return _Dense(np.asarray(cho_factor(matrix.toarray(), lower=True, check_finite=False)[0]))
        except np.linalg.LinAlgError:
            return None
    try:
        found = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:
        return None
    is_symmetric = np.array_equal(found.perm_r, found.perm_c)
    return _Sparse(found) if is_symmetric and bool((found.U.diagonal() > 0).all()) else None
