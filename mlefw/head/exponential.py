"""The exponential head: memoryless waiting times."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Exponential as TorchExponential
from torch.distributions import constraints

from mlefw import inverse_link
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start


class Exponential(TorchExponential):
    """Exponential distribution by log mean (*batch,), whose log-density is accurate for tiny and huge means."""

    def __init__(self, log_mean: Tensor) -> None:
        self.log_mean = log_mean
        super().__init__((-log_mean).exp(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        return -self.log_mean - torch.exp(value.log() - self.log_mean)


class ExponentialHead(FactorizedHead):
    """Waiting times whose chance to end does not depend on how long they have lasted.

    Choose it as the simplest model of durations; `weibull` and `gamma` contain it (shape or dispersion 1).

    Domain: y > 0.
    Link: mean = exp(eta).
    NLL: eta + y exp(−eta).
    """

    also_known_as: ClassVar = "exponential (survival) regression"
    inverse_links: ClassVar = {"mean": inverse_link.exp}
    support = constraints.positive
    outside: ClassVar = "durations of 0 were rounded down: give half the unit of the clock, or choose head=gaussian"
    convex = True

    def __init__(self, start: Start = "null") -> None:
        super().__init__(mean="predicted", start=start)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """The mean of the target."""
        return {"mean": mean}

    def distribution(self, eta: Tensor) -> Exponential:
        """The exponential distribution for a complete eta, without forming the mean first."""
        return Exponential(eta[..., 0])

    def build(self, mean: Tensor) -> Exponential:  # type: ignore[override]
        """The exponential distribution with this mean."""
        return Exponential(mean.log())

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The log mean of no row may go to infinity, on either side."""
        always = torch.ones_like(y, dtype=torch.bool)
        return {"mean": Rises(always, always)}

    def information(self, eta: Tensor) -> Tensor:
        """The expected information in log mean, which is 1 everywhere, (*batch, 1, 1)."""
        return torch.ones_like(eta)[..., None]

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """2 (y / mean − 1 − log(y / mean))."""
        ratio = y.log() - eta[..., 0]
        return 2 * (torch.expm1(ratio) - ratio)
