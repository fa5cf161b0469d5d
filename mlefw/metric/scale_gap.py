"""The loss of likelihood due to a wrong scale."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace

from mlefw.metric.base import Metric, normal_scores, sums


class ScaleGap(Metric):
    """`scale_ratio`: the best common factor on all scales; `scale_gap_nats`: the mean NLL that it would save.

    - Gaussian: √R and ½ (R − 1 − log R), R being the mean of u², u = (y − loc) / scale.
    - Laplace: a and a − 1 − log a, a being the mean of |u|.
    - Any other continuous distribution: as for a Gaussian, with the normal scores u = Φ⁻¹(F(y)), which are standard
      normal under a true model (Berkowitz, 2001).

    A calibrated scale has ratio 1 and gap 0; a ratio above 1 means that intervals are too narrow.
    """

    totals: Tensor
    absolute: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 2)
        self.add_sum("absolute")

    def update(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Add the rows of a block."""
        if isinstance(distribution, Laplace):
            self.absolute = self.absolute + 1
            self.totals = self.totals + sums(weight, ((y - distribution.loc) / distribution.scale).abs())
        else:
            self.totals = self.totals + sums(weight, normal_scores(distribution, y).square())

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        mean = self.totals[1] / self.totals[0]
        gap = mean - 1 - torch.log(mean)
        if self.absolute > 0:
            return {"scale_gap_nats": gap, "scale_ratio": mean}
        return {"scale_gap_nats": gap / 2, "scale_ratio": mean.sqrt()}
