"""The Gaussian head: mean squared error with its scale, constant or varying with x."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal, constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start


class Gaussian(Normal):
    """Normal distribution whose log-density standardises first, so that neither y² nor scale² can overflow."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = (value - self.loc) / self.scale
        return -0.5 * u * u - self.scale.log() - 0.5 * math.log(2 * math.pi)


class GaussianHead(FactorizedHead):
    """Gaussian observation noise; `scale: predicted` makes it heteroscedastic (Nix & Weigend, 1994).

    Choose it first, for any number: its means are those of least squares, whatever the noise. Where the spread of the
    target varies with its features choose a predicted scale (`heteroscedastic`); where a few rows are far off,
    `student_t` or `huber`.

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y).
    NLL: ½ log 2π + log scale + ½ ((y − loc) / scale)².
    """

    also_known_as: ClassVar = "mean squared error (MSE), least squares; with a predicted scale the Gaussian NLL loss"
    inverse_links: ClassVar = {"loc": inverse_link.identity, "scale": inverse_link.exp}
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.real

    def __init__(self, scale: ParameterSource = "shared", scale_floor: float = 1e-3, start: Start = "null") -> None:
        super().__init__(loc="predicted", scale=scale, scale_floor=scale_floor, start=start)
        self.convex = not isinstance(scale, str)
        # In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
        self.unimodal = scale != "predicted"

    def build(self, loc: Tensor, scale: Tensor) -> Gaussian:  # type: ignore[override]
        """Normal(loc, scale)."""
        return Gaussian(loc, scale.expand_as(loc), validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """diag(1 / scale², 2) in (loc, log scale)."""
        precision = self.params(eta)["scale"].expand(eta.shape[:-1]) ** -2
        return torch.diag_embed(torch.stack([precision, 2 * torch.ones_like(precision)], -1)[..., : eta.shape[-1]])

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """(y − loc)², over the variance where that is given; None where the scale is predicted."""
        if "scale" in self.eta_names:
            return None
        params = self.params(eta)
        square = (y - params["loc"]).square()
        return square if "scale" in self.shared_names else square / params["scale"].square()
