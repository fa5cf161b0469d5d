"""`Metric`, the interface of a metric, and quantities of a block of rows that several metrics need."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
import torchmetrics
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from mlefw.distribution import quantile
from mlefw.distribution.conformal import density_of
from mlefw.distribution.precision import promote
from mlefw.distribution.remembered import class_probabilities as class_probabilities
from mlefw.distribution.remembered import log_prob as log_prob
from mlefw.distribution.remembered import pit_bounds as pit_bounds
from mlefw.distribution.remembered import remembered as remembered
from mlefw.rows.rows import weighted_sum

_Value = TypeVar("_Value", Tensor, float)

MOST_EXACT = 2**24
"""Number of eta values up to which figures that need all rows at once are computed."""


class Metric(torchmetrics.Metric):
    """A set of named figures of a predictive distribution against observed targets.

    `update` takes a Distribution of batch shape (n,), y (n, *event_shape) and weight (n,), which are frequencies;
    `compute` returns scalars by their names in `summary.json`. All states are sums over rows, so that figures do not
    depend on batches, their order or the number of devices. A figure that is not defined on the given rows is left
    out. Where sums of fixed size only approximate a figure, `exact` computes it from all rows at once.

    Where rows have positions (the tokens of a text, the pixels of an image), each is a row to `update`. Figures whose
    names end as `DEPENDENT` says are then left out, since they take observations for independent.
    """

    full_state_update = False
    takes_rows: ClassVar[bool] = False
    """Whether `update` takes a fourth argument: the number of rows that the given positions are of, row by row, equally
    many of each; it is called without it where each row is one observation."""
    is_averaged: ClassVar[bool] = False
    """Whether the metric is also computed for predictions averaged over uncertain parameters.

    Such a distribution is a mixture: the metric may then use only its density, distribution function and quantiles.
    """
    of_intervals: ClassVar[bool] = False
    """Whether the figures are of intervals or quantiles, and so of conformal ones after `calibrate=conformal`, which
    leaves the density, of which all other figures are, as it is."""

    def __init__(self, **kwargs: Any) -> None:
        # No synchronisation by torchmetrics: the evaluation sums the states of all metrics over devices in one call.
        super().__init__(**{"sync_on_compute": False, **kwargs})
        self.sum_names: list[str] = []

    def add_sum(self, name: str, *shape: int) -> None:
        """Register a float64 state of this shape that starts at zero and is summed over devices."""
        self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.sum_names.append(name)

    @abstractmethod
    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The figures over all rows added so far."""

    @property
    def has_exact(self) -> bool:
        """Whether `exact` has any figures."""
        return type(self).exact is not Metric.exact

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The figures that `compute` only approximates, over the given rows, in O(n) memory; for the end of a run."""
        return {}


class OfTarget(Metric):
    """The figures of one of several targets, prefixed by its name, `price/crps`; rows where it is missing count 0."""

    takes_rows: ClassVar = True
    population: Tensor

    def __init__(self, name: str, index: int, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self.name, self.index = name, index
        # A module list moves the metrics between devices with this one. Any, because its type has no element type.
        self.metrics: Any = nn.ModuleList(metrics)
        self.add_sum("population")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor, num_rows: int | None = None) -> None:
        """Add the observations of a block, of `num_rows` rows if given, to every metric."""
        part = self.part(distribution, y, weight)
        self.population += promote(part[2]).sum()
        for metric in self.metrics:
            more = [num_rows] if metric.takes_rows and num_rows is not None else []
            bare(metric.update)(seen_by(metric, part[0]), *part[1:], *more)

    def compute(self) -> dict[str, Tensor]:
        """The figures; empty if no row had the target."""
        return self._named(bare(metric.compute)() for metric in self.metrics) if self.population > 0 else {}

    @property
    def has_exact(self) -> bool:
        """Whether `exact` of any of the metrics has figures."""
        return any(metric.has_exact for metric in self.metrics)

    def exact(self, distribution: Distribution, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The exact figures of every metric over the given rows; empty if no row has the target."""
        part = self.part(distribution, y, weight)
        if not bool(part[2].any()):
            return {}
        return self._named(metric.exact(seen_by(metric, part[0]), *part[1:]) for metric in self.metrics)

    def reset(self) -> None:
        """Reset all sums to zero."""
        super().reset()
        for metric in self.metrics:
            metric.reset()

    def part(self, joint: Any, y: Tensor, weight: Tensor) -> tuple[Distribution, Tensor, Tensor]:
        """What the metrics get of the predictions, the targets and the weights of a block: those of one target."""
        column, observed = joint.of_target(y, self.index)
        return joint.marginals[self.index], column, weight * observed

    def _named(self, figures: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{self.name}/{key}": value for some in figures for key, value in some.items()}


class OfTrials(OfTarget):
    """The figures of counts out of known numbers of trials, y (n, 2), under their own names.

    Each metric gets the distribution of the count given the number of trials of its row.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        super().__init__("", 0, metrics)

    def part(self, joint: Any, y: Tensor, weight: Tensor) -> tuple[Distribution, Tensor, Tensor]:
        """What the metrics get of a block: the distribution given the trials, the counts, and the weights."""
        count, trials = y.unbind(-1)
        return joint.given(trials), count.contiguous(), weight

    def _named(self, figures: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key: value for some in figures for key, value in some.items()}


DEPENDENT = ("_p_value", "_z", "_null", "_debiased", "dispersion_se")
"""Ends of the names of figures that hold for independent observations alone."""


def of_dependent(figures: Mapping[str, _Value]) -> dict[str, _Value]:
    """The figures that hold for observations that may depend on each other within a row."""
    return {name: value for name, value in figures.items() if not name.endswith(DEPENDENT)}


def seen_by(metric: Metric, distribution: Distribution) -> Distribution:
    """What a metric gets of a distribution with conformal intervals: all of it, or its density alone."""
    return distribution if metric.of_intervals else density_of(distribution)


def bare(method: Any) -> Any:
    """`update` or `compute` of a metric without what torchmetrics does around it.

    It would add up the sums of all processes again, which the caller has done, keep the result although the sums are
    then set by hand, and warn of a metric that was never updated.
    """
    return method.__wrapped__


def sums(weight: Tensor, *values: Tensor) -> Tensor:
    """Σ w, and Σ w·value for each of the values (n,), in float64: (1 + len(values),)."""
    weight = promote(weight)
    return torch.stack([weight.sum(), *(weighted_sum(weight, promote(value)) for value in values)])


def histogram(index: Tensor, weight: Tensor, num_bins: int) -> Tensor:
    """Sum of weights in each bin, (num_bins,), for bin indices (n,)."""
    weight = promote(weight)
    return torch.zeros(num_bins, dtype=weight.dtype, device=weight.device).index_add(0, index, weight)


@remembered
def normal_scores(distribution: Distribution, y: Tensor) -> Tensor:
    """Φ⁻¹ of the PIT of a continuous distribution, (n,)."""
    return promote(quantile.normal_score(distribution, y))


@remembered
def central_90(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper end of the central 90 % interval, each (n,)."""
    return quantile.interval(distribution, 0.9)


@remembered
def confidence_and_hit(distribution: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted probability of an event and whether it happened (0 or 1), each (n,), for calibration tables.

    Bernoulli: P(y = 1) and y. Categorical: the largest probability and whether the most likely class, the first one
    among equals, is the label (Guo et al., 2017).

    Raises:
        TypeError: the distribution has no class probabilities.
    """
    if isinstance(distribution, Bernoulli):
        return promote(distribution.probs), promote(y)
    confidence, label = class_probabilities(distribution, y).max(-1)
    return confidence, promote(label == y)
