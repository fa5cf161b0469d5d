"""Effects of a feature on a prediction: accumulated local effects of numbers, partial dependence on levels."""

from dataclasses import dataclass

import numpy as np

from mlefw.score.permutation import standard_error


@dataclass(frozen=True)
class Curve:
    """The effect of a feature on a quantity, less its mean over the rows.

    Attributes:
        at: values of the feature, (k,); of a category numbers of its levels.
        effect: the effect at each, (k,), in the unit of the quantity.
        se: standard error of each over the rows that it is averaged over, (k,); it knows nothing of the error of the
            model.
    """

    at: np.ndarray
    effect: np.ndarray
    se: np.ndarray

    @property
    def reach(self) -> float:
        """The difference between the largest and the smallest effect."""
        return float(np.ptp(self.effect)) if len(self.effect) else 0.0


def edges_of(values: np.ndarray, weight: np.ndarray, num_bins: int) -> np.ndarray:
    """Ends of bins with about equal shares of the rows, at values that occur, increasing, (num_bins + 1,) or fewer."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weight[order]) / weight.sum()
    places = np.searchsorted(upto, np.linspace(0, 1, num_bins + 1)).clip(max=len(values) - 1)
    return np.unique(values[order][places])


def bin_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value from 0, (n,): its upper end belongs to it, and the lowest value to the first bin."""
    return np.searchsorted(edges[1:-1], values, side="left")


def accumulated(rise: np.ndarray, where: np.ndarray, edges: np.ndarray, weight: np.ndarray) -> Curve:
    """Accumulated local effects: sums over bins of the mean rise from one end of a bin to the other.

    Args:
        rise: of each row, the quantity at the upper end of its bin less that at the lower end, (n,).
        where: the bin of each row, (n,).
        edges: ends of the bins, (k,).
        weight: frequencies, (n,).

    Source: Apley & Zhu (2020), equations 15 and 16.
    """
    num_bins = len(edges) - 1
    total = np.bincount(where, weight, num_bins)
    safe = np.where(total > 0, total, 1.0)
    mean = np.bincount(where, weight * rise, num_bins) / safe
    variance = np.bincount(where, weight * (rise - mean[where]) ** 2, num_bins) / safe / np.maximum(total - 1, 1.0)
    # An effect is a sum of mean rises up to it, less its mean over the rows, which count as midway in their bins.
    share = total / total.sum()
    beyond = share[::-1].cumsum()[::-1] - share / 2
    reached = (np.arange(num_bins + 1)[:, None] > np.arange(num_bins)).astype(float)
    coefficient = reached - beyond
    return Curve(edges, coefficient @ mean, np.sqrt(coefficient**2 @ variance))


def dependence(values: np.ndarray, weight: np.ndarray, share: np.ndarray, group: np.ndarray | None) -> Curve:
    """Partial dependence: the mean of a quantity with all rows at each level, less its mean over the levels.

    Args:
        values: the quantity of each row at each level, (number of levels, n).
        weight: frequencies, (n,).
        share: share of the rows that have each level, (number of levels,).
        group: number of the group of each row, (n,), as for `standard_error`.

    Source: Friedman (2001).
    """
    values = values - share @ values
    mean = values @ weight / weight.sum()
    se = np.array([standard_error(row - one, weight, group) for row, one in zip(values, mean, strict=True)])
    return Curve(np.arange(float(len(mean))), mean, se)
