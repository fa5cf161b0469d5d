"""Sums over blocks of rows: those of all rows at once, and none that another accumulator has."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from mlefw.metric.accumulator import Accumulator
from mlefw.metric.base import Metric
from mlefw.metric.crps import Crps
from mlefw.metric.nll import Nll
from mlefw.metric.pit import Pit

LOC, Y = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.arange(50.0, dtype=torch.float64).remainder(3)


class OfAllRows(Metric):
    """Has no sums."""

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Nothing adds up."""

    def compute(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def add(accumulator: Accumulator, rows: slice) -> None:
    block = accumulator.of_block(Normal(LOC[rows], 1.5), Y[rows], WEIGHT[rows])
    accumulator.add(block)
    # Recorded kernels write their next results there.
    for state in block:
        state.fill_(torch.nan)


def by_hand(rows: slice) -> dict[str, float]:
    figures: dict[str, Tensor] = {}
    for metric in (Nll(), Crps(), Pit()):
        metric.update(Normal(LOC[rows], 1.5), Y[rows], WEIGHT[rows])
        figures |= metric.compute()
    return {name: value.item() for name, value in figures.items()}


def test_blocks_add_up_and_figures_begin_anew() -> None:
    accumulator = Accumulator([Nll(), OfAllRows(), Crps(), Pit()])
    for rows in (slice(0, 50), slice(10, 40)):
        for start in range(rows.start, rows.stop, 7):
            add(accumulator, slice(start, min(start + 7, rows.stop)))
        found = {name: value.item() for name, value in accumulator.figures().items()}
        assert found == pytest.approx(by_hand(rows), rel=1e-12)
        assert accumulator.sums is None


def test_accumulators_may_share_their_metrics() -> None:
    metrics = [Nll(), Crps(), Pit()]
    one, other = Accumulator(metrics), Accumulator(metrics)
    add(one, slice(0, 20))
    add(other, slice(20, 50))
    for accumulator, rows in ((one, slice(0, 20)), (other, slice(20, 50))):
        found = {name: value.item() for name, value in accumulator.figures().items()}
        assert found == pytest.approx(by_hand(rows), rel=1e-12)


def test_a_metric_without_sums_has_none() -> None:
    accumulator = Accumulator([OfAllRows()])
    add(accumulator, slice(0, 50))
    assert accumulator.figures() == {}
