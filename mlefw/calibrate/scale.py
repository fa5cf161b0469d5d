"""Recalibration by a common factor on the scales of a location-scale forecast."""

import math
from typing import ClassVar

from scipy.optimize import brentq
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal

from mlefw.calibrate.base import RANGE, Calibration, scalar
from mlefw.distribution.precision import promote
from mlefw.head.gaussian import Gaussian
from mlefw.head.student_t import StudentT


class Scale(Calibration):
    """Scale · c, with the c in [0.05, 20] that minimises the NLL.

    With u = (y − loc) / scale, in closed form c² = Σ w u² / Σ w for a Gaussian and c = Σ w |u| / Σ w for a Laplace. For
    a Student-t it is the one root of Σ w ((df + 1) u² / (df c² + u²) − 1), which falls in c.
    """

    takes: ClassVar = "a location and a scale: head=gaussian, gaussian_fixed, heteroscedastic, laplace or student_t"

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", scalar(1.0))

    def fits(self, distribution: Distribution) -> bool:
        """Whether the distribution is a Gaussian, a Laplace or a Student-t."""
        return isinstance(distribution, Normal | Laplace | StudentT)

    def fit(self, distribution: Distribution, y: Tensor, weight: Tensor) -> None:
        """Fit c."""
        assert isinstance(distribution, Normal | Laplace | StudentT)
        u, share = promote((y - distribution.loc) / distribution.scale), weight / weight.sum()
        if isinstance(distribution, StudentT):
            self.factor.fill_(_of_student_t(u, promote(distribution.df), share))
            return
        mean = share @ u.abs() if isinstance(distribution, Laplace) else (share @ u.square()).sqrt()
        self.factor.fill_(mean.clamp(*RANGE))

    def forward(self, distribution: Distribution) -> Distribution:
        """The distribution with its location unchanged and c times its scale."""
        assert isinstance(distribution, Normal | Laplace | StudentT)
        loc, scale = distribution.loc, self.factor * distribution.scale
        if isinstance(distribution, StudentT):
            return StudentT(distribution.df, loc, scale, validate_args=False)
        return (Laplace if isinstance(distribution, Laplace) else Gaussian)(loc, scale, validate_args=False)

    def floor(self, floor: Tensor) -> Tensor:
        """The least scale after recalibration, c · floor."""
        return floor * self.factor


def _of_student_t(u: Tensor, df: Tensor, share: Tensor) -> float:
    square = u.square()

    def slope(log_factor: float) -> float:
        """Derivative of the mean log-density by log c."""
        return float(share @ ((df + 1) * square / (df * math.exp(2 * log_factor) + square))) - 1

    low, high = (math.log(end) for end in RANGE)
    if slope(low) <= 0:
        return RANGE[0]
    return RANGE[1] if slope(high) >= 0 else math.exp(brentq(slope, low, high, xtol=1e-12))
