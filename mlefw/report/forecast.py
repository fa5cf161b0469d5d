"""Predictive distributions of a sample of rows as plain arrays, for pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from mlefw.distribution.conformal import Conformal
from mlefw.metric.base import central_90, pit_bounds
from mlefw.objective.objective import Objective
from mlefw.rows.clustered import Units
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape

MAX_ROWS = 50_000
"""Most rows in a sample, taken evenly over the split; more would not change a picture."""

MAX_CELLS = 20_000_000
"""Most values, rows times classes, in a sample."""


@dataclass(frozen=True)
class Sample:
    """A sample of the rows of a split, with a description and the name and labels of the target.

    `observation` is what one observation is, in a word.
    """

    split: str
    index: Tensor
    rows: Rows
    description: str
    target: str
    labels: tuple[str, ...] | None
    observation: str = "row"

    @classmethod
    def of(
        cls,
        splits: Mapping[str, Rows],
        target: str,
        labels: Sequence[str] | None,
        shape: RowShape | None = None,
        units: Mapping[str, Units] | None = None,
    ) -> "Sample":
        """A sample of the validation rows, else of the test or training rows, without rows of weight 0.

        Pictures test calibration as if observations were independent. So where they may depend on each other, there is
        one of each row, or of each unit of several rows; positions take turns. Of sequential forecasts, which are given
        all earlier observations, there are all.

        Args:
            splits: rows by split.
            target: name of the target.
            labels: labels of the target; None for a number.
            shape: the shape of a row; None for rows of one observation.
            units: the units of rows that depend on each other, by split, where they are not the rows.
        """
        split = next(name for name in ("validation", "test", "train") if name in splits)
        weights = splits[split].row_weight
        held = weights.nonzero().squeeze(1)
        held = held if len(held) else torch.arange(splits[split].num_rows)
        is_sequential = shape is not None and shape.is_sequential
        has_units = bool(units and split in units) and not is_sequential
        if units and has_units:
            held = held[_first_of_each(units[split].of_row[held])]
        count = len(held)
        positions = math.prod(splits[split].positions)
        most = min(MAX_ROWS, max(1000, MAX_CELLS // max(1, len(labels or ()))))
        most = min(count, max(1, most // positions))
        index = held[torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()]
        rows = splits[split].take(index)
        rows = _one_of_each(rows) if rows.positions and not is_sequential else rows
        observation = "row" if shape is None else shape.observation
        what = "training" if split == "train" else split
        some = "" if len(index) == count else f"{len(index):,} of "
        if rows.positions or has_units:
            number = f"n = {int((rows.weight > 0).sum()):,}"
            number += (
                f" in {some}{count:,} rows" if is_sequential else f", one of each {'group' if has_units else 'row'}"
            )
        elif not bool((rows.weight == 1).all()):
            number = f"Σw = {float(weights.sum()):,.6g}"
        else:
            number = f"n = {some}{count:,}"
        known = None if labels is None else tuple(labels)
        return cls(split, index, rows, f"{what} {observation}s ({number})", target, known, observation)


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
        covering: bounds like those of the PIT, whose distance from ½ is half of the level of the narrowest central
            interval that contains the observation; None where that is the PIT.
    """

    y: np.ndarray
    weight: np.ndarray
    probabilities: np.ndarray | None = None
    mean: np.ndarray | None = None
    interval: tuple[np.ndarray, np.ndarray] | None = None
    pit: tuple[np.ndarray, np.ndarray] | None = None
    covering: tuple[np.ndarray, np.ndarray] | None = None


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
    covering = None
    if isinstance(distribution, Conformal):
        level = _array(distribution.central_level(target))[defined]
        # An interval contains the observation only above that level.
        middle = 0.5 + np.where(reached < 0.5, -0.5, 0.5) * np.nextafter(level, 1)
        covering = (middle, middle)
    return Forecast(y[defined], weight[defined], mean=mean, interval=(lower, upper), pit=pit, covering=covering)


def _first_of_each(code: Tensor) -> Tensor:
    """Where each value of a tensor, (n,), is for the first time, ascending."""
    _, place = code.unique(return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(code)).scatter_reduce(0, place, torch.arange(len(code)), "amin")
    return first.sort().values


def _one_of_each(rows: Rows) -> Rows:
    """The rows with one observation each: of the k that row i has, number i modulo k; the others have weight zero."""
    flat = rows.weight.flatten(1)
    rank = (flat > 0).cumsum(1) - 1
    chosen = torch.arange(len(flat)) % (flat > 0).sum(1).clamp(min=1)
    kept = torch.where((flat > 0) & (rank == chosen.unsqueeze(1)), flat, 0.0)
    return rows._replace(weight=kept.view(rows.weight.shape))


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().cpu().double().numpy())
