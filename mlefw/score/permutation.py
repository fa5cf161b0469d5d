"""Permutation importance in nats: what the NLL rises by when rows exchange the values of a feature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
"""Rows that exchange values with each other in a conditional permutation."""

_RIDGE = 1e-9
"""Share of the variance of each column that is added to it, so that copies of a column leave a solution."""


@dataclass(frozen=True)
class Importance:
    """The rise of the mean NLL over rows and permutations, in nats per row.

    Attributes:
        nats: the rise.
        se: its standard error over the rows that are scored, paired: of the mean of each row's own rise.
        se_permutations: its standard error over permutations of these rows; NaN for a single one.
    """

    nats: float
    se: float
    se_permutations: float


def importance(
    nll_with: Callable[[np.ndarray], np.ndarray],
    nll: np.ndarray,
    weight: np.ndarray,
    donors: Sequence[np.ndarray],
    group: np.ndarray | None = None,
) -> Importance:
    """The importance of a feature.

    Args:
        nll_with: maps positions of donors, (n,), to the NLL of each row with the feature of its donor, (n,) in nats.
        nll: NLL of each row as it is, (n,).
        weight: frequencies, (n,).
        donors: for each repeat the row that each row takes the feature from.
        group: number of the group of each row, (n,), within which rows depend on each other; None where none do.

    Source: Breiman (2001); Fisher, Rudin & Dominici (2019).
    """
    rises = np.stack([nll_with(donor) - nll for donor in donors])
    of_row, of_repeat = rises.mean(0), rises @ weight / weight.sum()
    nats, num_repeats = float(of_repeat.mean()), len(donors)
    spread = float(of_repeat.std(ddof=1) / np.sqrt(num_repeats)) if num_repeats > 1 else float("nan")
    return Importance(nats, standard_error(of_row - nats, weight, group), spread)


def standard_error(away: np.ndarray, weight: np.ndarray, group: np.ndarray | None = None) -> float:
    """The standard error of a weighted mean from deviations from it, (n,); of independent rows, or groups of rows."""
    total = float(weight.sum())
    if group is None:
        return float(np.sqrt(weight @ away**2 / total / (total - 1))) if total > 1 else float("nan")
    sums = np.bincount(group, weight * away)
    count = len(np.unique(group))
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / total) if count > 1 else float("nan")


def marginal(weight: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A donor for each row among all rows, (n,): a random permutation, or draws by weight where weights differ."""
    if (weight == weight[0]).all():
        return random.permutation(len(weight))
    return random.choice(len(weight), len(weight), p=weight / weight.sum())


def conditional(order: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A donor for each row among its neighbours in an order of the rows, (n,), never the row itself.

    Rows in order form strata of `NEIGHBOURS`, the first and last of a random size; in each, all take the value of the
    row a random number of places further in a random order. A row that is alone in its stratum keeps its value.
    """
    num_rows = len(order)
    stratum = (np.arange(num_rows) + int(random.integers(NEIGHBOURS))) // NEIGHBOURS
    mixed = order[np.lexsort((random.random(num_rows), stratum))]
    first = np.searchsorted(stratum, np.arange(stratum[-1] + 1))
    size = np.diff([*first, num_rows])
    shift = random.integers(1, np.maximum(size, 2))
    place = first[stratum] + (np.arange(num_rows) - first[stratum] + shift[stratum]) % size[stratum]
    donor = np.empty(num_rows, dtype=np.int64)
    donor[mixed] = mixed[place]
    return donor


class Others:
    """What the other features say about a feature: its least squares prediction from their design columns.

    Args:
        x: design columns of all features, (n, p).
        weight: frequencies, (n,).
    """

    def __init__(self, x: np.ndarray, weight: np.ndarray) -> None:
        share = weight / weight.sum()
        x = x - share @ x
        spread = np.sqrt(share @ x**2)
        self.z = x / np.where(spread > 0, spread, 1.0)
        self.gram = self.z.T @ (share[:, None] * self.z)
        self.share = share

    def order(self, columns: Sequence[int]) -> tuple[np.ndarray, float]:
        """The rows in the order of the prediction of some columns, (n,), and the share of variance it explains.

        Of several columns, as of a category, it is the direction along which their predictions vary most.
        """
        own = np.asarray(columns, dtype=int)
        rest = np.setdiff1d(np.arange(self.z.shape[1]), own)
        known = self.gram[np.ix_(rest, rest)] + _RIDGE * np.eye(len(rest))
        beta = np.linalg.solve(known, self.gram[np.ix_(rest, own)]) if len(rest) else np.zeros((0, len(own)))
        explained = beta.T @ self.gram[np.ix_(rest, own)]
        total = float(np.trace(self.gram[np.ix_(own, own)]))
        along = beta @ np.linalg.eigh((explained + explained.T) / 2)[1][:, -1] if len(rest) else np.zeros(0)
        share = float(np.trace(explained)) / total if total > 0 else 0.0
        return np.argsort(self.z[:, rest] @ along, kind="stable"), min(max(share, 0.0), 1.0)
