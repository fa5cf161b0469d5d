"""Figures over the folds of a cross-validation: means over rows, and standard errors that are named for what they are.

No unbiased estimator of the variance of k-fold cross-validation exists (Bengio & Grandvalet, 2004). The naive error
takes training sets as fixed and rows as independent, and is too small; the corrected one widens the spread between
folds for the rows that their training sets share.
"""

import numpy as np

from mlefw.system.atomic import Json


def figures(
    values: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    fold: np.ndarray,
    ratio: float,
    group: np.ndarray | None = None,
    moment: np.ndarray | None = None,
) -> Json:
    """The mean of held-out values over rows, and its standard errors.

    Args:
        values: nats of held-out rows, (m,), once for each repeat.
        weight: of these rows, (m,), as frequencies.
        row: which row each is, (m,).
        fold: which fit each is of, (m,).
        ratio: rows that a fold tests over rows that it fits, on average.
        group: the group of each, (m,), where rows come in groups.
        moment: the time of each, (m,), where rows come in the order of time.

    Returns:
        `nats`, `naive_se`, `corrected_se`, and with groups `clustered_se`, with times `hac_se`; an error that is not
        defined is left out.
    """
    mean = float(weight @ values / weight.sum())
    # The repeats of a row are no more rows.
    rows, position = np.unique(row, return_inverse=True)
    count = np.bincount(position)
    of_row, shares = np.bincount(position, values) / count, np.bincount(position, weight) / count
    found = {"naive_se": naive(of_row - mean, shares)}
    means = np.array([np.average(values[fold == k], weights=weight[fold == k]) for k in np.unique(fold)])
    found["corrected_se"] = corrected(means, ratio)
    first = np.full(len(rows), -1)
    first[position[::-1]] = np.arange(len(row))[::-1]
    if group is not None:
        found["clustered_se"] = clustered(of_row - mean, shares, group[first])
    if moment is not None:
        order = np.argsort(moment[first], kind="stable")
        found["hac_se"] = newey_west((of_row - mean)[order], shares[order])
    return {"nats": mean, **{name: value for name, value in found.items() if np.isfinite(value)}}


def naive(away: np.ndarray, weight: np.ndarray) -> float:
    """Sd / √n of differences from the mean, (n,), with weights as frequencies; not a number for one row."""
    total = float(weight.sum())
    return float(np.sqrt(weight @ away**2 / total / (total - 1))) if total > 1 else float("nan")


def corrected(means: np.ndarray, ratio: float) -> float:
    """The corrected resampled error of Nadeau & Bengio (2003): √((1/J + n_test/n_train)·s²) of the means of J fits."""
    return float(np.sqrt((1 / len(means) + ratio) * means.var(ddof=1))) if len(means) > 1 else float("nan")


def clustered(away: np.ndarray, weight: np.ndarray, group: np.ndarray) -> float:
    """The error of the mean of rows, (n,), that are dependent within groups: √(G/(G-1) Σ_g (Σ w·away)²) / Σ w."""
    _, code = np.unique(group, return_inverse=True)
    sums = np.bincount(code, weight * away)
    count = len(sums)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / weight.sum()) if count > 1 else float("nan")


def newey_west(away: np.ndarray, weight: np.ndarray) -> float:
    """The error of the mean of rows in the order of time, (n,), consistent under autocorrelation (Newey & West, 1987).

    Bartlett weights up to lag ⌊4 (n/100)^(2/9)⌋.
    """
    score = weight * away
    num_rows = len(score)
    variance = float(score @ score)
    most = min(int(4 * (num_rows / 100) ** (2 / 9)), num_rows - 1)
    for lag in range(1, most + 1):
        variance += 2 * (1 - lag / (most + 1)) * float(score[lag:] @ score[:-lag])
    return float(np.sqrt(max(variance, 0.0)) / weight.sum()) if num_rows > 1 else float("nan")
