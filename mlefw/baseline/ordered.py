"""Whether ordered classes are separated: thresholds and a line that no row ever loses by."""

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack
from torch import Tensor

from mlefw.baseline.problem import Problem

_LONG = 1e6
"""Longest step, in standard deviations of the features."""
_GROWN = 0.5
"""Between the two numbers that the growth of a distance can be."""


def certain_rows(problem: Problem, seconds: float) -> Tensor | None:
    """Which rows (n,) become certain along a direction of recession of a proportional odds model; None without one.

    A direction moves weights and thresholds so that no row comes nearer to a threshold of its class. The program
    counts the distances that grow, by one each or by what they can (Konis, 2007, for two classes).
    """
    z, y = problem.design(problem.rows).numpy(), problem.rows.y.numpy()
    if seconds <= 0 or z.size > 5e6:
        return None
    most, width = problem.head.shared_dim + 1, z.shape[1]
    # Columns: weights and intercept, then the thresholds after the first, which is held at zero.
    upper, lower = y < most, y > 0
    above = np.concatenate([-z[upper], _threshold(y[upper], most)], 1)
    below = np.concatenate([z[lower], -_threshold(y[lower] - 1, most)], 1)
    distances = np.concatenate([above, below])
    rise = np.concatenate([np.zeros((most - 1, width)), np.diff(np.eye(most), axis=0)[:, 1:]], 1)
    count, free = len(distances), distances.shape[1]
    growth = vstack([eye_array(count), csr_array((most - 1, count))])
    result = linprog(
        np.concatenate([np.zeros(free), -np.ones(count)]),
        A_ub=hstack([csr_array(-np.concatenate([distances, rise])), growth]),
        b_ub=np.zeros(count + most - 1),
        bounds=[(-_LONG, _LONG)] * free + [(0.0, 1.0)] * count,
        options={"time_limit": seconds},
    )
    if result.status != 0 or -result.fun < _GROWN:
        return None
    grown = result.x[free:] > _GROWN
    certain = np.ones(len(y), dtype=bool)
    certain[upper] &= grown[: len(above)]
    certain[lower] &= grown[len(above) :]
    return torch.from_numpy(certain)


def _threshold(index: np.ndarray, most: int) -> np.ndarray:
    """Which of the thresholds after the first a row looks at, as ones: (n, most − 1)."""
    return np.eye(most)[index][:, 1:]
