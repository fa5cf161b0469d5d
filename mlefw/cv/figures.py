"""Means over held-out rows of a cross-validation, with standard errors of several kinds.

No unbiased estimator of the variance of k-fold cross-validation exists (Bengio & Grandvalet, 2004). The naive error
takes training sets as fixed and rows as independent, and is too small. The corrected error enlarges the variance
between folds, because training sets share rows.
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
    is_clustered: bool = False,
) -> Json:
    """The mean of held-out values over rows, and its standard errors.

    Args:
        values: a value of each held-out row, (m,) in nats, such as its NLL; rows appear once for each repeat.
        weight: weights of the rows as frequencies, (m,).
        row: position of each row in the table, (m,).
        fold: number of the fold of each value, (m,).
        ratio: number of test rows over number of training rows, averaged over folds.
        group: group of each row, (m,), if `data.split` is `group`.
        moment: time of each row, (m,), if `data.split` is `time`.
        is_clustered: whether rows have several observations, so that a row is one unit and not as many as its weight.

    Returns:
        The mean `nats`, and standard errors in nats: `naive_se`, `corrected_se`, with groups `clustered_se`, with times
        `hac_se`. An error that is not defined is left out.
    """
    mean = float(weight @ values / weight.sum())
    # Values of a row in several repeats are averaged first: repeats are no additional rows.
    rows, position = np.unique(row, return_inverse=True)
    count = np.bincount(position)
    of_row, shares = np.bincount(position, values) / count, np.bincount(position, weight) / count
    found = {"naive_se": clustered(of_row - mean, shares, rows) if is_clustered else naive(of_row - mean, shares)}
    means = np.array([np.average(values[fold == k], weights=weight[fold == k]) for k in np.unique(fold)])
    found["corrected_se"] = corrected(means, ratio)
    # Index of the first value of each row; in a reversed assignment the last one, the earliest value, stays.
    first = np.full(len(rows), -1)
    first[position[::-1]] = np.arange(len(row))[::-1]
    if group is not None:
        found["clustered_se"] = clustered(of_row - mean, shares, group[first])
    if moment is not None:
        order = np.argsort(moment[first], kind="stable")
        found["hac_se"] = newey_west((of_row - mean)[order], shares[order])
    return {"nats": mean, **{name: value for name, value in found.items() if np.isfinite(value)}}


def naive(away: np.ndarray, weight: np.ndarray) -> float:
    """Standard deviation / √n of deviations from the mean, (n,), with weights as frequencies; NaN for one row."""
    total = float(weight.sum())
    return float(np.sqrt(weight @ away**2 / total / (total - 1))) if total > 1 else float("nan")


def corrected(means: np.ndarray, ratio: float) -> float:
    """The corrected standard error √((1/J + n_test/n_train)·s²) of the means of J folds; NaN for one fold.

    Source: Nadeau & Bengio (2003), corrected resampled t-test.
    """
    return float(np.sqrt((1 / len(means) + ratio) * means.var(ddof=1))) if len(means) > 1 else float("nan")


def clustered(away: np.ndarray, weight: np.ndarray, group: np.ndarray) -> float:
    """Standard error of a mean over rows that are dependent within groups: √(G/(G-1) Σ_g (Σ w·away)²) / Σ w.

    Args:
        away: deviations from the mean, (n,).
        weight: frequencies, (n,).
        group: group of each row, (n,); the error is NaN for one group.
    """
    _, code = np.unique(group, return_inverse=True)
    sums = np.bincount(code, weight * away)
    count = len(sums)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / weight.sum()) if count > 1 else float("nan")


def newey_west(away: np.ndarray, weight: np.ndarray) -> float:
    """Standard error of a mean over rows in the order of time, consistent under autocorrelation; NaN for one row.

    It has Bartlett weights up to lag ⌊4 (n/100)^(2/9)⌋.

    Args:
        away: deviations from the mean in the order of time, (n,).
        weight: frequencies, (n,).

    Source: Newey & West (1987).
    """
    score = weight * away
    num_rows = len(score)
    variance = float(score @ score)
    most = min(int(4 * (num_rows / 100) ** (2 / 9)), num_rows - 1)
    for lag in range(1, most + 1):
        variance += 2 * (1 - lag / (most + 1)) * float(score[lag:] @ score[:-lag])
    return float(np.sqrt(max(variance, 0.0)) / weight.sum()) if num_rows > 1 else float("nan")
