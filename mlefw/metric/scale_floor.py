"""The share of rows whose predicted scale is at its floor."""

from torch import Tensor
from torch.distributions import Distribution

from mlefw.metric.base import Metric


class ScaleFloorRate(Metric):
    """`scale_floor_rate`: share of rows whose scale is at or below `floor`, the least scale of the head.

    More than a few percent mean that training exploits an unbounded likelihood.
    """

    population: Tensor
    floored: Tensor

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.add_sum("population")
        self.add_sum("floored")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        scale: Tensor | None = getattr(distribution, "scale", None)
        if scale is None:
            return
        self.population = self.population + weight.sum()
        self.floored = self.floored + (weight * (scale <= self.floor * (1 + 1e-12))).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figure; empty for distributions without a scale."""
        return {"scale_floor_rate": self.floored / self.population} if self.population > 0 else {}
