"""Separation of ordered classes, found or excluded by a linear program."""

import numpy as np

from mlefw.baseline.interior_point import Array
from mlefw.baseline.problem import Problem
from mlefw.baseline.recession import Search, search


def separation(problem: Problem, seconds: float) -> Search:
    """A direction of weights and thresholds along which no row comes nearer to a threshold of its class.

    `grown` (n,) tells which rows become certain, because their distances to both thresholds grow.
    """
    z, y = problem.design(problem.rows).numpy(), problem.rows.y.numpy()
    most, width = problem.head.shared_dim + 1, z.shape[1]
    # Columns: weights and intercept, then the thresholds after the first, which is held at zero.
    upper, lower = y < most, y > 0
    above = np.concatenate([-z[upper], _threshold(y[upper], most)], 1)
    below = np.concatenate([z[lower], -_threshold(y[lower] - 1, most)], 1)
    rise = np.concatenate([np.zeros((most - 1, width)), np.diff(np.eye(most), axis=0)[:, 1:]], 1)
    found = search(np.zeros((0, above.shape[1])), np.concatenate([above, below]), rise, seconds)
    certain = np.ones(len(y), dtype=bool)
    certain[upper] &= found.grown[: len(above)]
    certain[lower] &= found.grown[len(above) :]
    return found._replace(grown=certain)


def _threshold(index: Array, most: int) -> Array:
    """One-hot rows of the threshold indices, (n, most − 1), without the first threshold, which is zero."""
    return np.eye(most)[index][:, 1:]
