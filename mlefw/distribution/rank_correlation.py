"""Spearman's correlation of weighted rows."""

import numpy as np


def rank_correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Spearman's correlation of a and b, each (n,), by mid-ranks with frequency weights (n,); 0 if one is constant."""
    ranks = []
    for values in (a, b):
        distinct, index = np.unique(values, return_inverse=True)
        if len(distinct) < 2:
            return 0.0
        count = np.bincount(index, weight)
        rank = (np.cumsum(count) - count / 2)[index]
        ranks.append(rank - weight @ rank / weight.sum())
    first, second = ranks
    scale = float(weight @ first**2) * float(weight @ second**2)
    return float(weight @ (first * second)) / scale**0.5 if scale > 0 else 0.0
