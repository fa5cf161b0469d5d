"""Directions of recession, along which no row's NLL ever rises, found or excluded by a linear program."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import svd
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack

from mlefw.baseline.interior_point import Array

_LONG = 1e6
"""Longest step, in standard deviations of the features."""
_GROWN = 0.5
"""Threshold between 0 and 1, the two values that the counted growth of a distance takes at the optimum."""
_RANK = 1e-11
"""Share of the largest singular value below which a singular value is rounding error."""
_MOST = 5e6
"""Number of matrix entries above which a linear program is not attempted."""


class Search(NamedTuple):
    """Result of a linear program.

    Attributes:
        direction: a direction along which every distance grows that can grow, (q,); None if none was found.
        grown: whether each distance grows along the direction, (m,).
        decided: whether the program was solved, so that a direction of None means that there is none.
    """

    direction: Array | None
    grown: Array
    decided: bool


def search(still: Array, grows: Array, kept: Array, seconds: float) -> Search:
    """The direction d with still · d = 0, kept · d ≥ 0, grows · d ≥ 0 and as many positive grows · d as possible.

    These directions form a convex cone: the sum of two of them moves whatever either moves, so that one direction
    moves everything that can move, and the rows that it does not move form the limiting model (Geyer, 2009). The
    program maximises Σ min(1, growth of a distance) (Konis, 2007; Correia et al., 2019).

    Args:
        still: combinations that must not change, (e, q).
        grows: distances that must not decrease, and are counted if they grow, (m, q).
        kept: distances that must not decrease, and are not counted, (k, q).
        seconds: time limit.
    """
    count, none = len(grows), np.zeros(len(grows), dtype=bool)
    basis = null_space(still)
    if not basis.shape[1]:
        return Search(None, none, True)
    if (count + len(kept)) * basis.shape[1] > _MOST or seconds <= 0:
        return Search(None, none, False)
    inside, rest = _moved(grows, basis), _moved(kept, basis)
    if not inside.any():
        return Search(None, none, True)
    growth = vstack([eye_array(count), csr_array((len(rest), count))])
    found = linprog(
        np.concatenate([np.zeros(basis.shape[1]), -np.ones(count)]),
        A_ub=hstack([csr_array(-np.concatenate([inside, rest])), growth]),
        b_ub=np.zeros(count + len(rest)),
        bounds=[(-_LONG, _LONG)] * basis.shape[1] + [(0.0, 1.0)] * count,
        options={"time_limit": seconds},
    )
    if found.status != 0 or -found.fun < _GROWN:
        return Search(None, none, found.status == 0)
    grown = found.x[basis.shape[1] :] > _GROWN
    even = _evened(inside, rest, grown, seconds)
    return Search(basis @ (found.x[: basis.shape[1]] if even is None else even), grown, True)


def _evened(inside: Array, rest: Array, grown: Array, seconds: float) -> Array | None:
    """The direction, (q,), that maximises the least growth, each relative to the norm of its row; None if it fails.

    The direction that maximises the count may move one row a million times as far as another, which then seems fixed.
    """
    size = np.linalg.norm(inside[grown], axis=1)
    kept = np.concatenate([inside[~grown], rest])
    rows = np.concatenate([np.c_[-inside[grown], size], np.c_[-kept, np.zeros(len(kept))]])
    found = linprog(
        np.append(np.zeros(inside.shape[1]), -1.0),
        A_ub=rows,
        b_ub=np.zeros(len(rows)),
        bounds=[(-1.0, 1.0)] * inside.shape[1] + [(0.0, None)],
        options={"time_limit": seconds},
    )
    return found.x[:-1] if found.status == 0 and -found.fun > 1e-9 else None


def null_space(still: Array) -> Array:
    """An orthonormal basis of the directions d with still · d = 0, (q, k)."""
    q = still.shape[1]
    if not len(still):
        return np.eye(q)
    size = np.sqrt(np.square(still).sum(0))
    size[size == 0] = 1.0
    triangle = np.linalg.qr(still / size, mode="r") if len(still) > q else still / size
    _, values, vectors = svd(triangle)
    rank = int((values > _RANK * values.max(initial=0.0)).sum())
    basis: Array = np.linalg.qr(vectors[rank:].T / size[:, None])[0]
    return basis


def _moved(rows: Array, basis: Array) -> Array:
    """Rows · basis, with entries of rounding size set to zero."""
    inside = rows @ basis
    rounding = 1e-12 * np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(np.abs(inside) > rounding, inside, 0.0)
