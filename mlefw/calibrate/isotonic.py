"""Isotonic recalibration of binary forecasts."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from mlefw.calibrate.base import Calibration, logit
from mlefw.distribution.binary_forecasts import ForecastTable
from mlefw.distribution.precision import promote
from mlefw.errors import UsageError
from mlefw.head.bernoulli import LogitBernoulli


class Isotonic(Calibration):
    """The best non-decreasing step function of the forecast, by pooling adjacent violators (Zadrozny & Elkan, 2002).

    A block of n rows, k of them with y = 1, gets the probability (k + ½) / (n + 1) (Krichevsky & Trofimov, 1981), so
    that no forecast is 0 or 1, and no NLL above log(2n + 2). Blocks that are out of order after that are pooled again.
    A step lies halfway between the logits of two blocks.

    Args:
        min_rows: least number of validation rows to fit the map on, which has a parameter for each block.
    """

    takes: ClassVar = "a binary target: head=bernoulli"

    edges: Tensor
    log_odds: Tensor

    def __init__(self, min_rows: int = 1000) -> None:
        super().__init__()
        if min_rows < 1:
            raise UsageError(f"calibrate.min_rows={min_rows}: expected a whole number of at least 1")
        self.min_rows = min_rows
        self.register_buffer("edges", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("log_odds", torch.zeros(1, dtype=torch.float64))

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is a Bernoulli."""
        return isinstance(distribution, Bernoulli)

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit the steps: pool, add half a row of each class to every block, and pool again."""
        columns = (logit(distribution), promote(weight), promote(y))
        table = ForecastTable.of(*(column.cpu().numpy() for column in columns))
        first = isotonic_regression(table.hits / table.weight, weights=table.weight).blocks[:-1]
        hits = np.add.reduceat(table.hits, first) + 0.5
        rows = np.add.reduceat(table.weight, first) + 1
        again = isotonic_regression(hits / rows, weights=rows).blocks[:-1]
        hits, rows = np.add.reduceat(hits, again), np.add.reduceat(rows, again)
        starts = first[again][1:]
        self.edges = torch.from_numpy((table.logit[starts - 1] + table.logit[starts]) / 2).to(self.edges)
        self.log_odds = torch.from_numpy(np.log(hits) - np.log(rows - hits)).to(self.log_odds)

    def forward(self, distribution: Distribution) -> Distribution:
        """The Bernoulli distribution with the log-odds of the block that contains the forecast."""
        block = torch.bucketize(logit(distribution), self.edges, right=True)
        return LogitBernoulli(logits=self.log_odds[block], validate_args=False)

    def figures(self) -> dict[str, float]:
        """The number of blocks `num_blocks`, and the least and largest probability, `lowest` and `highest`."""
        ends = torch.sigmoid(self.log_odds[[0, -1]]).tolist()
        return {"num_blocks": len(self.log_odds), "lowest": ends[0], "highest": ends[1]}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the steps from a stored state.

        Raises:
            UsageError: the state is damaged, or not a non-decreasing step function.
        """
        super().restore(state)
        rising = bool((self.edges.diff() > 0).all()) and bool((self.log_odds.diff() >= 0).all())
        if len(self.log_odds) != len(self.edges) + 1 or not rising:
            raise UsageError("Isotonic: the stored steps are not those of a non-decreasing function")
