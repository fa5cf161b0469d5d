"""The Gaussian prior: ridge, weight decay as a density."""

import math

from torch import Tensor

from mlefw.prior.base import Prior, check_scale


class L2Prior(Prior):
    """Each weight ~ Normal(0, scale): −log p(w) = Σ w² / (2 scale²) + d (½ log 2π + log scale)."""

    convex = True

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = check_scale("prior.scale", scale)

    def forward(self, w: Tensor) -> Tensor:
        """−log p(w), a scalar, in nats."""
        return 0.5 * (w / self.scale).square().sum() + w.numel() * (0.5 * math.log(2 * math.pi) + math.log(self.scale))
