"""The elastic net prior: a Gaussian times a Laplace density, normalised."""

import math

from scipy.special import erfcx
from torch import Tensor

from mlefw.prior.base import Prior, check_scale


class ElasticNetPrior(Prior):
    """Each weight has density exp(−|w| / l1_scale − w² / (2 l2_scale²)) / Z (Zou & Hastie, 2005).

    Z = l2_scale √(2π) erfcx(l2_scale / (l1_scale √2)).
    """

    convex = True

    def __init__(self, l2_scale: float, l1_scale: float) -> None:
        super().__init__()
        self.l2_scale = check_scale("prior.l2_scale", l2_scale)
        self.l1_scale = check_scale("prior.l1_scale", l1_scale)
        self.rate = 1 / self.l1_scale
        tail = float(erfcx(self.l2_scale / (self.l1_scale * math.sqrt(2))))
        self.log_normalizer = math.log(self.l2_scale) + 0.5 * math.log(2 * math.pi) + math.log(tail)

    def forward(self, w: Tensor) -> Tensor:
        """−log p(w), a scalar, in nats."""
        return w.abs().sum() / self.l1_scale + self.smooth_part(w) + w.numel() * self.log_normalizer

    def smooth_part(self, w: Tensor) -> Tensor:
        """The Gaussian exponent, a scalar."""
        return 0.5 * (w / self.l2_scale).square().sum()
