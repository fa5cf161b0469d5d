"""Directions along which no row's NLL ever rises, found or excluded by a linear program."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import svd
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack

from mlefw.baseline.interior_point import Array

_LONG = 1e6
"""Longest step, in standard deviations of the features."""
_GROWN = 0.5
"""Between the two numbers that the growth of a distance can be."""
_RANK = 1e-11
"""Share of the largest singular value below which one is rounding."""
_MOST = 5e6
"""Numbers in a program that is not begun any more."""


class Search(NamedTuple):
    """What a program found.

    Attributes:
        direction: one along which all that can grow does, (q,); None where none grows, or none was found.
        grown: which of the distances grow along it, (m,).
        decided: whether the program came to its end, so that no direction means that there is none.
    """

    direction: Array | None
    grown: Array
    decided: bool


def search(still: Array, grows: Array, kept: Array, seconds: float) -> Search:
    """The direction d with still · d = 0, kept · d ≥ 0 and grows · d ≥ 0 along which most of `grows` · d are positive.

    Such directions are a cone: the sum of two of them moves what either moves, so that one of them moves all that any
    can, and the rows that it leaves are those of the limiting model (Geyer, 2009). The program counts the distances
    that grow, by one each or by what they can (Konis, 2007; Correia et al., 2019).

    Args:
        still: combinations that must not move, (e, q).
        grows: distances that must not fall, and are counted where they grow, (m, q).
        kept: the same, but not counted, (k, q).
        seconds: the time it may take.
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
    """The direction, (q,), along which the least of all growths is largest, in units of the rows; None without one.

    A direction that only counts what grows may move one row a million times as far as another, which then seems still.
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
    """An orthonormal basis of the d with still · d = 0, (q, k)."""
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
    """Rows · basis, without what is rounding."""
    inside = rows @ basis
    rounding = 1e-12 * np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(np.abs(inside) > rounding, inside, 0.0)
