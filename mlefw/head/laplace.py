"""The Laplace head: mean absolute error with its scale."""

from typing import ClassVar

from torch import Tensor
from torch.distributions import Laplace, constraints

from mlefw.head.location_scale import LocationScaleHead


class LaplaceHead(LocationScaleHead):
    """Laplace observation noise: the location is the median of y given x.

    Choose it where medians are wanted, or errors cost in proportion to their size; for noise with heavy tails
    `student_t` and `huber` are smooth.

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y).
    NLL: log 2 + log scale + |y − loc| / scale.
    """

    also_known_as: ClassVar = "mean absolute error (MAE), L1 loss; median regression, least absolute deviations"
    scale_information: ClassVar = 1.0
    support = constraints.real

    def build(self, loc: Tensor, scale: Tensor) -> Laplace:  # type: ignore[override]
        """Laplace(loc, scale)."""
        return Laplace(loc, scale.expand_as(loc), validate_args=False)

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL with |u| smoothed to √(u² + kink²) − kink, u being the residual in units of the scale, (*batch,)."""
        distribution = self.build(**self.params(eta))
        u = (y - distribution.loc) / distribution.scale
        rounded: Tensor = (u * u + self.kink**2).sqrt() - self.kink + (2 * distribution.scale).log()
        return rounded
