"""The probability integral transform (PIT), which is uniform under a calibrated model."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.cdf import is_discrete
from mlefw.distribution.precision import promote
from mlefw.metric.base import Metric, histogram, pit_bounds


class Pit(Metric):
    """`pit_rmse`: root mean square of (share of a bin − 1/20) over 20 bins; `pit_p_value`: χ² test with 19 df.

    Discrete targets, and zeros of a hurdle: the non-randomised histogram, each row spread over [P(Y < y), P(Y <= y)]
    (Czado et al., 2009); its bins are not multinomial counts, so there is no p-value.
    """

    num_bins = 20
    population: Tensor
    counts: Tensor
    discrete: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("population")
        self.add_sum("counts", self.num_bins)
        self.add_sum("discrete")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        lower, upper = pit_bounds(distribution, y)
        weight = promote(weight)
        self.population = self.population + weight.sum()
        # A continuous distribution may have an atom: what has a probability is spread over its interval.
        if is_discrete(distribution) or getattr(distribution, "atom", None) is not None:
            self.discrete = self.discrete + 1
            edges = torch.linspace(0, 1, self.num_bins + 1, dtype=lower.dtype, device=lower.device).unsqueeze(-1)
            mass = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
            below = ((edges - lower) / mass).clamp(0, 1)
            # A count whose probability underflows goes into the first or last bin.
            below[0], below[-1] = 0.0, 1.0
            self.counts = self.counts + (below @ weight).diff()
        else:
            index = (upper * self.num_bins).long().clamp(0, self.num_bins - 1)
            self.counts = self.counts + histogram(index, weight, self.num_bins)

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        deviation = self.counts / self.population - 1 / self.num_bins
        figures = {"pit_rmse": deviation.square().mean().sqrt()}
        if self.discrete == 0:
            statistic = self.population * self.num_bins * deviation.square().sum()
            df = torch.full_like(statistic, (self.num_bins - 1) / 2)
            figures["pit_p_value"] = torch.special.gammaincc(df, statistic / 2)
        return figures
