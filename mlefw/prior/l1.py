"""The Laplace prior: the lasso, exact zeros."""

import math

from torch import Tensor

from mlefw.prior.base import Prior, check_scale


class L1Prior(Prior):
    """Each weight ~ Laplace(0, scale): −log p(w) = Σ |w| / scale + d log(2 scale) (Tibshirani, 1996)."""

    convex = True

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = check_scale("prior.scale", scale)
        self.rate = 1 / self.scale

    def forward(self, w: Tensor) -> Tensor:
        """−log p(w), a scalar, in nats."""
        return w.abs().sum() / self.scale + w.numel() * math.log(2 * self.scale)

    def smooth_part(self, w: Tensor) -> Tensor:
        """Zero: only `prox` handles |w|, so that coefficients become exactly zero."""
        return w.new_zeros(())
