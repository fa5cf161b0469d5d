"""The Laplace head: mean absolute error with its scale."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Laplace, constraints

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start


class LaplaceHead(FactorizedHead):
    """Laplace observation noise: the location is the median of y given x.

    Choose it where medians are wanted, or errors cost in proportion to their size; for noise with heavy tails
    `student_t` and `huber` are smooth.

    Domain: y real.
    Link: loc = eta_1; scale = max(exp(eta_2), floor), the floor being `scale_floor` · sd(y).
    NLL: log 2 + log scale + |y − loc| / scale.
    """

    also_known_as: ClassVar = "mean absolute error (MAE), L1 loss; median regression, least absolute deviations"
    inverse_links: ClassVar = {"loc": inverse_link.identity, "scale": inverse_link.exp}
    collapsible: ClassVar = frozenset({"scale"})
    support = constraints.real

    def __init__(self, scale: ParameterSource = "shared", scale_floor: float = 1e-3, start: Start = "null") -> None:
        super().__init__(loc="predicted", scale=scale, scale_floor=scale_floor, start=start)
        self.convex = not isinstance(scale, str)
        # In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
        self.unimodal = scale != "predicted"

    def build(self, loc: Tensor, scale: Tensor) -> Laplace:  # type: ignore[override]
        """Laplace(loc, scale)."""
        return Laplace(loc, scale.expand_as(loc), validate_args=False)

    def rounded_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """The NLL with |u| rounded to √(u² + kink²) − kink, u being the residual in scales."""
        distribution = self.build(**self.params(eta))
        u = (y - distribution.loc) / distribution.scale
        rounded: Tensor = (u * u + self.kink**2).sqrt() - self.kink + (2 * distribution.scale).log()
        return rounded

    def information(self, eta: Tensor) -> Tensor:
        """diag(1 / scale², 1) in (loc, log scale); the observed curvature in loc is zero almost everywhere."""
        precision = self.params(eta)["scale"].expand(eta.shape[:-1]) ** -2
        return torch.diag_embed(torch.stack([precision, torch.ones_like(precision)], -1)[..., : eta.shape[-1]])
