"""Base class of heads whose density is a standard one, shifted by a location and stretched by a scale."""

from typing import ClassVar

import torch
from torch import Tensor

from mlefw import inverse_link
from mlefw.distribution.parameter import ParameterSource
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start


class LocationScaleHead(FactorizedHead):
    """A predicted location and a scale, of y or of a transform of it, with a symmetric log-concave density.

    A concrete head states `support` and `scale_information`, and writes `build`.
    """

    inverse_links: ClassVar = {"loc": inverse_link.identity, "scale": inverse_link.exp}
    collapsible: ClassVar = frozenset({"scale"})
    squared: ClassVar[bool] = False
    """Whether the log-density is a quadratic function of y or its logarithm, so that the family is exponential."""
    scale_information: ClassVar[float]
    """Expected information on the logarithm of the scale in one row."""

    def __init__(self, scale: ParameterSource = "shared", scale_floor: float = 1e-3, start: Start = "null") -> None:
        super().__init__(loc="predicted", scale=scale, scale_floor=scale_floor, start=start)
        self.convex = not isinstance(scale, str)
        # In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
        self.unimodal = scale != "predicted"
        self.natural = self.squared and scale != "predicted"

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The location of no row may go to infinity, on either side."""
        always = torch.ones_like(y, dtype=torch.bool)
        return {"loc": Rises(always, always)}

    def information(self, eta: Tensor) -> Tensor:
        """diag(1 / scale², scale_information) in (loc, log scale): a location orthogonal to the scale, by symmetry."""
        precision = self.params(eta)["scale"].expand(eta.shape[:-1]) ** -2
        diagonal = torch.stack([precision, torch.full_like(precision, self.scale_information)], -1)
        return torch.diag_embed(diagonal[..., : eta.shape[-1]])
