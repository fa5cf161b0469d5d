"""The predictive distributions of rows as plain arrays, and which rows of a run to look at."""

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
"""More rows than these change no picture; they are taken evenly over the split."""


MAX_CELLS = 20_000_000
"""Rows times classes: with very many classes fewer rows are taken."""


@dataclass(frozen=True)
class Sample:
    """Rows of one split, and what they and their target are called."""

    split: str
    index: Tensor
    rows: Rows
    description: str
    target: str
    labels: tuple[str, ...] | None

    @classmethod
    def of(cls, splits: Mapping[str, Rows], target: str, labels: Sequence[str] | None) -> "Sample":
        """Validation rows, else test rows, else those of training; rows of weight zero are left out."""
        split = next(name for name in ("validation", "test", "train") if name in splits)
        held = splits[split].weight.nonzero().squeeze(1)
        held = held if len(held) else torch.arange(splits[split].num_rows)
        count = len(held)
        most = min(count, MAX_ROWS, max(1000, MAX_CELLS // max(1, len(labels or ()))))
        index = held[torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()]
        rows = splits[split].take(index)
        what = "training" if split == "train" else split
        some = "" if len(index) == count else f"{len(index):,} of "
        weighted = not bool((rows.weight == 1).all())
        number = f"Σw = {float(splits[split].weight.sum()):,.6g}" if weighted else f"n = {some}{count:,}"
        description = f"{what} rows ({number})"
        return cls(split, index, rows, description, target, None if labels is None else tuple(labels))


@dataclass(frozen=True)
class Forecast:
    """Observations (n,), weights (n,) and what was predicted of them, all float64 (a class code is an integer).

    `probabilities` (n, K) of classes (Bernoulli: of 0 and 1), or mean, 90 % interval and bounds of the PIT, each (n,).
    """

    y: np.ndarray
    weight: np.ndarray
    probabilities: np.ndarray | None = None
    mean: np.ndarray | None = None
    interval: tuple[np.ndarray, np.ndarray] | None = None
    pit: tuple[np.ndarray, np.ndarray] | None = None


@torch.no_grad()
def forecast(objective: Objective, eta: Tensor, rows: Rows) -> Forecast | None:
    """The predictive distributions at eta (n, eta_dim), or None where they are neither classes nor of one number."""
    head = objective.head
    distribution = head(eta)
    y, weight = _array(rows.y), _array(rows.weight)
    if isinstance(distribution, Bernoulli):
        p = _array(distribution.probs)
        return Forecast(y.astype(np.int64), weight, np.stack([1 - p, p], 1))
    if isinstance(distribution, Categorical):
        return Forecast(y.astype(np.int64), weight, _array(distribution.probs))
    if head.event_shape:
        return None
    try:
        # As the metrics have them, so that a picture and a figure are of the same numbers.
        target = rows.y.to(eta.device)
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
