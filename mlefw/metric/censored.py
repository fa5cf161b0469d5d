"""Calibration with censored observations."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, central_90

_LEVELS = (50, 80, 90, 95)
_NUM_BINS = 20


class CensoredCalibration(Metric):
    """`pit_rmse`, `coverage_50`, …, `width_90` and `sharpness` of a censored number, and `censored_share`.

    The probability integral transform of a censored number lies between F(low) and F(high), and is uniform on that
    range under a true model: the row is spread over the range (Czado et al., 2009, for discrete targets). Its coverage
    is the share of the range inside the central interval, so that a true model covers the nominal share.
    """

    totals: Tensor
    counts: Tensor
    inside: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 4)
        self.add_sum("counts", _NUM_BINS)
        self.add_sum("inside", len(_LEVELS))

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        censored: Any = distribution
        lower, upper = censored.pit_bounds(y)
        weight = promote(weight)
        exact = y[..., 0] == y[..., 1]
        mass = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
        edges = torch.linspace(0, 1, _NUM_BINS + 1, dtype=lower.dtype, device=lower.device).unsqueeze(-1)
        below = torch.where(exact, (lower <= edges).to(mass.dtype), ((edges - lower) / mass).clamp(0, 1))
        below[0], below[-1] = 0.0, 1.0
        self.counts = self.counts + (below @ weight).diff()
        edge = (1 - torch.tensor(_LEVELS, dtype=lower.dtype, device=lower.device).unsqueeze(-1) / 100) / 2
        overlap = torch.minimum(upper, 1 - edge) - torch.maximum(lower, edge)
        hit = ((lower >= edge) & (lower <= 1 - edge)).to(mass.dtype)
        self.inside = self.inside + torch.where(exact, hit, (overlap / mass).clamp(0, 1)) @ weight
        low, high = central_90(censored.latent, y)
        rows = torch.stack([torch.ones_like(low), high - low, censored.latent.variance, (~exact).to(low.dtype)])
        self.totals = self.totals + rows @ weight

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        population, width, variance, num_censored = self.totals
        deviation = self.counts / population - 1 / _NUM_BINS
        figures = {"pit_rmse": deviation.square().mean().sqrt()}
        figures |= {f"coverage_{level}": share / population for level, share in zip(_LEVELS, self.inside, strict=True)}
        figures |= {"width_90": width / population, "sharpness": torch.sqrt(variance / population)}
        return figures | {"censored_share": num_censored / population}
