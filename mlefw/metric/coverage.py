"""Coverage and width of central prediction intervals."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw import predictive
from mlefw.metric.base import Metric

_LEVELS = (50, 80, 90, 95)


class Coverage(Metric):
    """`coverage_50`, `_80`, `_90`, `_95`; `width_90`, the mean width; `sharpness`, the root mean variance.

    Discrete targets: the probability that the randomised PIT falls in the central interval, so that a true model
    covers exactly the nominal share (Czado et al., 2009).
    """

    population: Tensor
    inside: Tensor
    width: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("inside", len(_LEVELS))
        self.add_sum("width")
        self.add_sum("variance")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        lower, upper = predictive.pit_bounds(distribution, y)
        level = torch.tensor(_LEVELS, dtype=lower.dtype, device=lower.device).div(100).unsqueeze(-1)
        edge = (1 - level) / 2
        if predictive.is_discrete(distribution):
            overlap = torch.minimum(upper, 1 - edge) - torch.maximum(lower, edge)
            share = (overlap / (upper - lower)).clamp(0, 1)
            # A row whose own mass underflows lies outside every interval.
            inside = torch.where(upper > lower, share, torch.zeros_like(share))
        else:
            inside = ((upper >= edge) & (upper <= 1 - edge)).to(weight.dtype)
        low, high = predictive.interval(distribution, 0.9)
        self.population += weight.sum()
        self.inside += (weight * inside).sum(-1)
        self.width += (weight * (high - low)).sum()
        self.variance += (weight * distribution.variance).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        figures = {
            f"coverage_{level}": share / self.population for level, share in zip(_LEVELS, self.inside, strict=True)
        }
        figures["width_90"] = self.width / self.population
        figures["sharpness"] = torch.sqrt(self.variance / self.population)
        return figures
