"""Recalibration by a common factor on the scales of a location-scale forecast."""

from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal

from mlefw.calibrate.base import RANGE, Calibration, scalar
from mlefw.distribution.precision import promote
from mlefw.head.gaussian import Gaussian


class Scale(Calibration):
    """Scale · c, with the c in [0.05, 20] that minimises the NLL.

    In closed form, with u = (y − loc) / scale: c² = Σ w u² / Σ w for a Gaussian, c = Σ w |u| / Σ w for a Laplace.
    """

    takes: ClassVar = "a location and a scale: head=gaussian, gaussian_fixed, heteroscedastic or laplace"

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", scalar(1.0))

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is a Gaussian or a Laplace."""
        return isinstance(distribution, Normal | Laplace)

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit c in closed form."""
        assert isinstance(distribution, Normal | Laplace)
        u, share = promote((y - distribution.loc) / distribution.scale), weight / weight.sum()
        mean = share @ u.abs() if isinstance(distribution, Laplace) else (share @ u.square()).sqrt()
        self.factor.fill_(mean.clamp(*RANGE))

    def forward(self, distribution: Distribution) -> Distribution:
        """The distribution with its location unchanged and c times its scale."""
        assert isinstance(distribution, Normal | Laplace)
        kind = Laplace if isinstance(distribution, Laplace) else Gaussian
        return kind(distribution.loc, self.factor * distribution.scale, validate_args=False)

    def floor(self, floor: Tensor) -> Tensor:
        """The least scale after recalibration, c · floor."""
        return floor * self.factor
