"""What mlefw counts on in a metric."""

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
Predict = Callable[[Tensor], Distribution]
"""From indices of rows (k,) to their predictive distributions, of batch shape (k,)."""


@dataclass(frozen=True)
class MetricCase:
    """A metric, predictions of rows, their targets y (n, *event_shape), and weights (n,), some of them zero."""

    metric: Metric
    predict: Predict
    y: Tensor
    weight: Tensor
    tolerance: float = 1e-12
    """Relative, of figures that are to be the same."""

    def fresh(self) -> Metric:
        """A copy that has seen no row."""
        metric = deepcopy(self.metric)
        metric.reset()
        return metric

    @torch.no_grad()
    def add(self, metric: Metric, index: Tensor, weight: Tensor) -> None:
        """Add some rows."""
        metric.update(self.predict(index), self.y[index], weight)

    def whole(self) -> Figures:
        """The figures of all rows at once."""
        metric = self.fresh()
        self.add(metric, torch.arange(len(self.y)), self.weight)
        return figures(metric)


def check_metric(metric: Metric, predict: Predict, y: Tensor, weight: Tensor | None = None) -> None:
    """Hold a metric to everything that mlefw counts on.

    Args:
        metric: as it is built; it is not changed.
        predict: from indices of rows (k,) to their predictive distributions.
        y: their targets, (n, *event_shape), some hundred rows or so.
        weight: whole numbers (n,), in float64; by default 0 to 3 in turn.

    Raises:
        ConformanceError: naming the rules that are broken, and what was found in place of what.
    """
    weight = torch.arange(len(y), dtype=torch.float64).remainder(4) if weight is None else weight
    with torch.no_grad():
        hold(metric, MetricCase(metric, predict, y, weight), CHECKS)


def figures(metric: Metric) -> dict[str, float]:
    """What it computes, as numbers."""
    return {name: float(value) for name, value in metric.compute().items()}


def figures_are_named_numbers(case: MetricCase) -> Iterator[str]:
    """`compute` returns tensors of one number each by their names."""
    metric = case.fresh()
    case.add(metric, torch.arange(len(case.y)), case.weight)
    for name, value in metric.compute().items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.shape != ():
            yield f"compute has {name!r}: {type(value).__name__} {getattr(value, 'shape', '')}, expected a 0-d tensor"


def sums_are_declared_and_in_float64(case: MetricCase) -> Iterator[str]:
    """Every state is a sum in float64 that `add_sum` declared: nothing else is added up over blocks and devices."""
    metric = case.fresh()
    undeclared = sorted(set(metric._defaults) - set(metric.sum_names))
    if undeclared:
        yield f"the states {undeclared} were not declared by add_sum"
    for name in metric.sum_names:
        if (dtype := getattr(metric, name).dtype) != torch.float64:
            yield f"the state {name} is {dtype}, expected float64"


def blocks_and_order_do_not_matter(case: MetricCase) -> Iterator[str]:
    """Rows in blocks of any size and in any order have the figures of all rows at once."""
    expected = case.whole()
    order = torch.randperm(len(case.y), generator=torch.Generator().manual_seed(3))
    for size in (1, 7, max(1, len(order) - 1)):
        metric = case.fresh()
        for index in order.split(size):
            case.add(metric, index, case.weight[index])
        yield from _compared(case, figures(metric), expected, f"in blocks of {size} rows", len(order))


def sums_of_blocks_add_up(case: MetricCase) -> Iterator[str]:
    """The sums of two parts of the rows, added, have the figures of all rows: so blocks and devices are merged."""
    index = torch.arange(len(case.y))
    first, second, merged = case.fresh(), case.fresh(), case.fresh()
    for metric, part in ((first, index[: len(index) // 3]), (second, index[len(index) // 3 :])):
        case.add(metric, part, case.weight[part])
    case.add(merged, index[:1], 0 * case.weight[:1])
    for name in merged.sum_names:
        setattr(merged, name, getattr(first, name) + getattr(second, name))
    yield from _compared(case, figures(merged), case.whole(), "from the sums of two parts", len(index))


def weight_two_is_the_row_twice(case: MetricCase) -> Iterator[str]:
    """Weights are frequencies: figures with them are those of the rows repeated, and weight 0 is no row."""
    index = torch.repeat_interleave(torch.arange(len(case.y)), case.weight.long())
    metric = case.fresh()
    case.add(metric, index, torch.ones(len(index), dtype=torch.float64))
    yield from _compared(case, case.whole(), figures(metric), "with weights, and of repeated rows", len(index), 10)


def reset_forgets_everything(case: MetricCase) -> Iterator[str]:
    """After `reset` the figures are those of a new metric."""
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
        # The rounding of a mean counts once for every row in a p-value.
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
