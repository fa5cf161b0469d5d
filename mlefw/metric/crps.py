"""The continuous ranked probability score (CRPS) as a metric."""

from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution.crps import crps as crps
from mlefw.distribution.crps import row_crps
from mlefw.metric.base import Metric, sums


class Crps(Metric):
    """`crps`: mean of ∫ (F(v) − 1{y <= v})² dv, in the unit of y; for a point forecast, its absolute error.

    A distribution with a method `crps(y)` is asked for it. There are closed forms for the normal, Laplace, Student-t,
    gamma, exponential, Weibull, beta, lognormal, Bernoulli, Poisson and negative binomial distributions and normal
    mixtures (Jordan et al., 2019). Any other density is integrated numerically, to 1e-10 relative where it is smooth,
    and any other probability mass is summed.

    Source: Gneiting & Raftery (2007).
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 2)

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        self.totals = self.totals + sums(weight, row_crps(distribution, y))

    def compute(self) -> dict[str, Tensor]:
        """The figure."""
        return {"crps": self.totals[1] / self.totals[0]}
