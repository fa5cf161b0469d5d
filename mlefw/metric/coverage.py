"""Coverage, width and score of central prediction intervals."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.cdf import is_discrete
from mlefw.distribution.conformal import Conformal
from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, central_90, histogram, pit_bounds, sums

_LEVELS = (50, 80, 90, 95)


class Coverage(Metric):
    """Share of targets inside central prediction intervals, and the width of the intervals.

    - `coverage_50`, `_80`, `_90`, `_95`: share of rows inside. Discrete targets: the probability that the randomised
      PIT lies in the central interval, so that a true model covers exactly the nominal share (Czado et al., 2009).
    - `coverage_50_z`, …: (share − c) / √(c (1 − c) / n), standard normal under a true model; for continuous targets
      only, because the share of a discrete target has a smaller variance.
      After `calibrate=conformal` there is none either, since the intervals have an error of their own.
    - `width_90`: mean width of the 90 % interval; `sharpness`: the root mean variance.
    - `interval_score_90`: mean of width + 2/α (distance outside), α = 0.1 (Gneiting & Raftery, 2007).
    """

    is_averaged: ClassVar = True
    of_intervals: ClassVar = True

    totals: Tensor
    inside: Tensor
    discrete: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 4)
        self.add_sum("inside", len(_LEVELS))
        self.add_sum("discrete")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        weight = promote(weight)
        if isinstance(distribution, Conformal):
            self.discrete = self.discrete + 1
            self.inside = self.inside + distribution.inside(y, [level / 100 for level in _LEVELS]) @ weight
        else:
            self._add_central(distribution, y, weight)
        low, high = central_90(distribution, y)
        outside = torch.relu(low - y) + torch.relu(y - high)
        self.totals = self.totals + sums(weight, high - low, distribution.variance, outside)

    def _add_central(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows whose PIT lies in the central interval of each level."""
        lower, upper = pit_bounds(distribution, y)
        level = torch.tensor(_LEVELS, dtype=lower.dtype, device=lower.device) / 100
        if is_discrete(distribution):
            self.discrete = self.discrete + 1
            edge = ((1 - level) / 2).unsqueeze(-1)
            overlap = torch.minimum(upper, 1 - edge) - torch.maximum(lower, edge)
            share = (overlap / (upper - lower)).clamp(0, 1)
            # A row whose probability underflows lies outside every interval.
            self.inside = self.inside + torch.where(upper > lower, share, torch.zeros_like(share)) @ weight
        else:
            narrowest = torch.bucketize((2 * upper - 1).abs(), level)
            self.inside = self.inside + histogram(narrowest, weight, len(_LEVELS) + 1)[:-1].cumsum(0)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, width, variance, outside = self.totals
        figures = {f"coverage_{level}": share / population for level, share in zip(_LEVELS, self.inside, strict=True)}
        if self.discrete == 0:
            for level in _LEVELS:
                c = level / 100
                excess = figures[f"coverage_{level}"] - c
                figures[f"coverage_{level}_z"] = excess * torch.sqrt(population / (c * (1 - c)))
        figures["width_90"] = width / population
        figures["sharpness"] = torch.sqrt(variance / population)
        figures["interval_score_90"] = (width + 20 * outside) / population
        return figures
