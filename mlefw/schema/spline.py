"""Bases of smooth terms, each with the matrix of its roughness penalty: natural cubic splines and P-splines."""

import numpy as np
from scipy.interpolate import BSpline

Array = np.ndarray


def knots_of(x: Array, count: int, basis: str) -> Array:
    """The knots of a basis of `count` functions.

    Natural cubic splines have them at quantiles of the distinct values; P-splines at equal distances, three beyond each
    end of the range.

    Args:
        x: values in the training rows, (n,).
        count: number of basis functions.
        basis: `cr` or `ps`.
    """
    distinct = np.unique(x)
    if basis == "cr":
        return np.quantile(distinct, np.linspace(0, 1, count))
    low, high = distinct[0], distinct[-1]
    # A little wider than the range, so that no value lies on the edge of the last interval.
    low, high = low - 1e-3 * (high - low), high + 1e-3 * (high - low)
    step = (high - low) / (count - 3)
    return low + step * np.arange(-3, count + 1)


def basis_columns(x: Array, knots: Array, basis: str) -> Array:
    """The basis functions at some values, (n, count); beyond the knots they go on as straight lines."""
    return _cubic(x, knots) if basis == "cr" else _b_spline(x, knots)


def penalty_matrix(knots: Array, basis: str) -> Array:
    """The penalty of the coefficients, (count, count).

    For `cr` it is the integral of the squared second derivative (Wood, 2017, section 5.3); for `ps` the sum of squared
    second differences (Eilers & Marx, 1996).
    """
    if basis == "cr":
        differences, bands = _second_derivatives(knots)
        found: Array = differences.T @ np.linalg.solve(bands, differences)
        return found
    second = np.diff(np.eye(len(knots) - 4), n=2, axis=0)
    return np.asarray(second.T @ second)


def centred(columns: Array, weight: Array, penalty: Array) -> tuple[Array, Array]:
    """Maps of basis functions to penalised columns and to free ones, (count, rank) and (count, num_free).

    Each column sums to zero over the rows. In the penalised ones the penalty is the squared length of their
    coefficients, so that these are like random effects with one variance (Wood, 2017, section 5.4).

    Args:
        columns: the basis functions in the training rows, (n, count).
        weight: weights of the rows, (n,).
        penalty: the penalty of the coefficients of the basis, (count, count).
    """
    sums = weight @ columns
    inside = np.linalg.qr(sums[:, None], mode="complete")[0][:, 1:]
    values, vectors = np.linalg.eigh(inside.T @ penalty @ inside)
    rank = int((values > 1e-9 * values.max()).sum())
    wiggly, straight = vectors[:, ::-1][:, :rank], vectors[:, ::-1][:, rank:]
    return inside @ wiggly / np.sqrt(values[::-1][:rank]), inside @ straight


def _second_derivatives(knots: Array) -> tuple[Array, Array]:
    """D (k − 2, k) and the tridiagonal B (k − 2, k − 2): second derivatives at inner knots are B⁻¹ D times values."""
    gap = np.diff(knots)
    size = len(knots)
    differences, bands = np.zeros((size - 2, size)), np.zeros((size - 2, size - 2))
    for i in range(size - 2):
        differences[i, i], differences[i, i + 2] = 1 / gap[i], 1 / gap[i + 1]
        differences[i, i + 1] = -1 / gap[i] - 1 / gap[i + 1]
        bands[i, i] = (gap[i] + gap[i + 1]) / 3
        if i + 1 < size - 2:
            bands[i, i + 1] = bands[i + 1, i] = gap[i + 1] / 6
    return differences, bands


def _cubic(x: Array, knots: Array) -> Array:
    size, gap = len(knots), np.diff(knots)
    differences, bands = _second_derivatives(knots)
    second = np.zeros((size, size))
    second[1:-1] = np.linalg.solve(bands, differences)
    values = np.eye(size)
    j = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, size - 2)
    inside = np.clip(x, knots[0], knots[-1])
    left, right, width = knots[j + 1] - inside, inside - knots[j], gap[j]
    found = (left / width)[:, None] * values[j] + (right / width)[:, None] * values[j + 1]
    found += ((left**3 / width - width * left) / 6)[:, None] * second[j]
    found += ((right**3 / width - width * right) / 6)[:, None] * second[j + 1]
    first = (values[1] - values[0]) / gap[0] - gap[0] / 6 * second[1]
    last = (values[-1] - values[-2]) / gap[-1] + gap[-1] / 6 * second[-2]
    beyond = x - inside
    return np.asarray(found + np.minimum(beyond, 0)[:, None] * first + np.maximum(beyond, 0)[:, None] * last)


def _b_spline(x: Array, knots: Array) -> Array:
    low, high = knots[3], knots[-4]
    inside = np.clip(x, low, high)
    found = BSpline.design_matrix(inside, knots, 3).toarray()
    beyond = x - inside
    if not beyond.any():
        return np.asarray(found)
    slopes = BSpline(knots, np.eye(len(knots) - 4), 3).derivative()(inside)
    return np.asarray(found + beyond[:, None] * slopes)
