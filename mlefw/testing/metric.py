"""Conformance checks of a metric."""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric
from mlefw.testing.conformance import Check, hold

Figures = Mapping[str, float]
"""Figures of a metric by their names."""
Predict = Callable[[Tensor], Distribution]
"""Maps row indices (k,) to predictive distributions of batch shape (k,)."""


@dataclass(frozen=True)
class MetricCase:
    """A metric, predictions of rows, their targets y (n, *event_shape), and weights (n,), some of them zero."""

    metric: Metric
    predict: Predict
    y: Tensor
    weight: Tensor
    tolerance: float = 1e-12
    """Relative tolerance of figures that have to be equal."""

    def fresh(self) -> Metric:
        """A copy of the metric after a reset."""
        metric = deepcopy(self.metric)
        metric.reset()
        return metric

    @torch.no_grad()
    def add(self, metric: Metric, index: Tensor, weight: Tensor) -> None:
        """Update `metric` with the rows at `index` (k,) and weights (k,)."""
        metric.update(self.predict(index), self.y[index], weight)

    def whole(self) -> Figures:
        """The figures of all rows in one update."""
        metric = self.fresh()
        self.add(metric, torch.arange(len(self.y)), self.weight)
        return figures(metric)


def check_metric(metric: Metric, predict: Predict, y: Tensor, weight: Tensor | None = None) -> None:
    """Check a metric against all rules of its kind.

    Args:
        metric: the metric, which is not changed.
        predict: maps row indices (k,) to predictive distributions of batch shape (k,).
        y: targets, (n, *event_shape), of about a hundred rows.
        weight: whole numbers (n,), float64; by default 0 to 3 in turn.

    Raises:
        ConformanceError: the metric breaks rules; the message names them, and what was found and expected.
    """
    weight = torch.arange(len(y), dtype=torch.float64).remainder(4) if weight is None else weight
    with torch.no_grad():
        hold(metric, MetricCase(metric, predict, y, weight), CHECKS)


def figures(metric: Metric) -> dict[str, float]:
    """The figures that a metric computes, by name, as floats."""
    return {name: float(value) for name, value in metric.compute().items()}


def figures_are_named_numbers(case: MetricCase) -> Iterator[str]:
    """`compute` returns scalar tensors by name."""
    metric = case.fresh()
    case.add(metric, torch.arange(len(case.y)), case.weight)
    for name, value in metric.compute().items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.shape != ():
            yield f"compute has {name!r}: {type(value).__name__} {getattr(value, 'shape', '')}, expected a 0-d tensor"


def sums_are_declared_and_in_float64(case: MetricCase) -> Iterator[str]:
    """Every state is a float64 sum declared by `add_sum`; no other state is merged over blocks and devices."""
    metric = case.fresh()
    undeclared = sorted(set(metric._defaults) - set(metric.sum_names))
    if undeclared:
        yield f"the states {undeclared} were not declared by add_sum"
    for name in metric.sum_names:
        if (dtype := getattr(metric, name).dtype) != torch.float64:
            yield f"the state {name} is {dtype}, expected float64"


def blocks_and_order_do_not_matter(case: MetricCase) -> Iterator[str]:
    """Updates in blocks of any size and order give the figures of a single update with all rows."""
    expected = case.whole()
    order = torch.randperm(len(case.y), generator=torch.Generator().manual_seed(3))
    for size in (1, 7, max(1, len(order) - 1)):
        metric = case.fresh()
        for index in order.split(size):
            case.add(metric, index, case.weight[index])
        yield from _compared(case, figures(metric), expected, f"in blocks of {size} rows", len(order))


def sums_of_blocks_add_up(case: MetricCase) -> Iterator[str]:
    """The added states of two parts of the rows give the figures of all rows, as merging of devices requires."""
    index = torch.arange(len(case.y))
    first, second, merged = case.fresh(), case.fresh(), case.fresh()
    for metric, part in ((first, index[: len(index) // 3]), (second, index[len(index) // 3 :])):
        case.add(metric, part, case.weight[part])
    case.add(merged, index[:1], 0 * case.weight[:1])
    for name in merged.sum_names:
        setattr(merged, name, getattr(first, name) + getattr(second, name))
    yield from _compared(case, figures(merged), case.whole(), "from the sums of two parts", len(index))


def weight_two_is_the_row_twice(case: MetricCase) -> Iterator[str]:
    """Weights are frequencies: a row of weight k counts as k rows, and one of weight 0 as none."""
    index = torch.repeat_interleave(torch.arange(len(case.y)), case.weight.long())
    metric = case.fresh()
    case.add(metric, index, torch.ones(len(index), dtype=torch.float64))
    yield from _compared(case, case.whole(), figures(metric), "with weights, and of repeated rows", len(index), 10)


def reset_forgets_everything(case: MetricCase) -> Iterator[str]:
    """After `reset` a metric gives the figures of a new one."""
    metric = case.fresh()
    case.add(metric, torch.arange(len(case.y)), 3 * case.weight.flip(0))
    metric.reset()
    case.add(metric, torch.arange(len(case.y)), case.weight)
    if figures(metric) != case.whole():
        yield f"after a reset the figures are {figures(metric)}, expected {dict(case.whole())}"


def _compared(
    case: MetricCase, found: Figures, expected: Figures, how: str, count: int, factor: float = 1
) -> Iterator[str]:
    if found.keys() != expected.keys():
        yield f"{how} there are figures {sorted(found)} and {sorted(expected)}: expected the same"
        return
    for name, value in expected.items():
        # The rounding error of a mean is multiplied by the number of rows in a p-value.
        room = factor * case.tolerance * (count if name.endswith("_p_value") else 1)
        both_undefined = math.isnan(found[name]) and math.isnan(value)
        if not both_undefined and not math.isclose(found[name], value, rel_tol=room, abs_tol=case.tolerance / 100):
            yield f"{how} {name} is {found[name]:.10g} and {value:.10g}: expected the same"


CHECKS: tuple[Check[MetricCase], ...] = (
    figures_are_named_numbers,
    sums_are_declared_and_in_float64,
    blocks_and_order_do_not_matter,
    sums_of_blocks_add_up,
    weight_two_is_the_row_twice,
    reset_forgets_everything,
)
