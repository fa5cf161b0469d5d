"""The Gaussian head: mean squared error with its scale, constant or varying with x."""

import math
from typing import ClassVar

from torch import Tensor
from torch.distributions import Normal, constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.head import Start
from mlefw.head.location_scale import LocationScaleHead


class Gaussian(Normal):
    """Normal distribution whose log-density standardises first, so that neither y² nor scale² can overflow."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value - self.loc) / self.scale
        return -0.5 * u * u - self.scale.log() - 0.5 * math.log(2 * math.pi)


class GaussianHead(LocationScaleHead):
    """Gaussian observation noise; `scale: predicted` makes it heteroscedastic (Nix & Weigend, 1994).

    Choose it first, for any number: its means are those of least squares, whatever the noise. Where the spread of the
    target varies with its features choose a predicted scale (`heteroscedastic`); where a few rows are far off,
    `student_t` or `huber`.

    Domain: y real.
    Link: loc = eta_1, or by `link` exp(eta_1) (log) or 1 / eta_1 (inverse); scale = max(exp(eta_2), floor), the floor
        being `scale_floor` · sd(y).
    NLL: ½ log 2π + log scale + ½ ((y − loc) / scale)².
    """

    also_known_as: ClassVar = "mean squared error (MSE), least squares; with a predicted scale the Gaussian NLL loss"
    squared: ClassVar = True
    scale_information: ClassVar = 2.0
    variance_parameter: ClassVar = ("scale", -0.5)
    links: ClassVar = inverse_link.REAL
    support = constraints.real

    def __init__(
        self,
        scale: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
        link: str = "identity",
    ) -> None:
        super().__init__(scale, scale_floor, start, link=link)

    @property
    def is_linear(self) -> bool:
        """Whether the location is eta itself, so that least squares fit it."""
        return self.first_link is inverse_link.identity

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Mean and standard deviation of the target; a mean that the link cannot give is replaced by the spread."""
        given = mean > 0 if self.log_link else mean != 0
        return super().rough(mean, spread) | ({} if self.is_linear else {"loc": mean if given else spread or 1.0})

    def build(self, loc: Tensor, scale: Tensor) -> Gaussian:  # type: ignore[override]
        """Normal(loc, scale)."""
        return Gaussian(loc, scale.expand_as(loc), validate_args=False)

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """(y − loc)², divided by a fixed scale²; None where the scale is predicted."""
        if "scale" in self.eta_names:
            return None
        params = self.params(eta)
        square = (y - params["loc"]).square()
        return square if "scale" in self.shared_names else square / params["scale"].square()
