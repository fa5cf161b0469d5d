"""Predictive distributions of a sample of rows as plain arrays, for pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from mlefw.metric.base import central_90, pit_bounds
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows

MAX_ROWS = 50_000
"""Most rows in a sample, taken evenly over the split; more would not change a picture."""

MAX_CELLS = 20_000_000
"""Most values, rows times classes, in a sample."""


@dataclass(frozen=True)
class Sample:
    """A sample of the rows of a split, with a description and the name and labels of the target."""

    split: str
    index: Tensor
    rows: Rows
    description: str
    target: str
    labels: tuple[str, ...] | None

    @classmethod
    def of(cls, splits: Mapping[str, Rows], target: str, labels: Sequence[str] | None) -> "Sample":
        """A sample of the validation rows, else of the test or training rows, without rows of weight 0."""
        split = next(name for name in ("validation", "test", "train") if name in splits)
        weights = splits[split].row_weight
        held = weights.nonzero().squeeze(1)
        held = held if len(held) else torch.arange(splits[split].num_rows)
        count = len(held)
        positions = math.prod(splits[split].positions)
        most = min(count, MAX_ROWS, max(1000, MAX_CELLS // max(1, len(labels or ()))))
        most = max(1, most // positions) if positions > 1 else most
        index = held[torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()]
        rows = splits[split].take(index)
        what = "training" if split == "train" else split
        some = "" if len(index) == count else f"{len(index):,} of "
        weighted = not bool((rows.weight == 1).all())
        number = f"Σw = {float(weights.sum()):,.6g}" if weighted else f"n = {some}{count:,}"
        description = f"{what} rows ({number})"
        return cls(split, index, rows, description, target, None if labels is None else tuple(labels))


@dataclass(frozen=True)
class Forecast:
    """Observations and their predictive distributions, in float64 (class codes in int64).

    Either `probabilities`, or all of `mean`, `interval` and `pit` are given.

    Attributes:
        y: observations, (n,).
        weight: frequencies, (n,).
        probabilities: probabilities of classes, (n, K); of 0 and 1 for a Bernoulli.
        mean: predicted means, (n,).
        interval: ends of the central 90 % interval, each (n,).
        pit: bounds of the probability integral transform, each (n,).
    """

    y: np.ndarray
    weight: np.ndarray
    probabilities: np.ndarray | None = None
    mean: np.ndarray | None = None
    interval: tuple[np.ndarray, np.ndarray] | None = None
    pit: tuple[np.ndarray, np.ndarray] | None = None


@torch.no_grad()
def forecast(objective: Objective, eta: Tensor, rows: Rows) -> Forecast | None:
    """The predictive distributions at eta (n, *positions, eta_dim), one observation after the other.

    None if the target is neither a class nor one number.
    """
    head = objective.head
    eta, observed, weights = objective.observations(rows, eta)
    if rows.positions:
        kept = weights > 0
        eta, observed, weights = eta[kept.to(eta.device)], observed[kept], weights[kept]
    distribution = head(eta)
    y, weight = _array(observed), _array(weights)
    if isinstance(distribution, Bernoulli):
        p = _array(distribution.probs)
        return Forecast(y.astype(np.int64), weight, np.stack([1 - p, p], 1))
    if isinstance(distribution, Categorical):
        return Forecast(y.astype(np.int64), weight, _array(distribution.probs))
    if head.event_shape:
        return None
    try:
        # The functions that metrics use, so that pictures agree with figures.
        target = observed.to(eta.device)
        low, high = central_90(distribution, target)
        before, until = pit_bounds(distribution, target)
    except NotImplementedError:
        return None
    arrays = [_array(value) for value in (distribution.mean, low, high, before, until)]
    defined = np.all([np.isfinite(values) for values in arrays], axis=0)
    if not defined.any():
        return None
    mean, lower, upper, below, reached = (values[defined] for values in arrays)
    pit = (np.clip(below, 0, 1), np.clip(reached, 0, 1))
    return Forecast(y[defined], weight[defined], mean=mean, interval=(lower, upper), pit=pit)


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().cpu().double().numpy())
