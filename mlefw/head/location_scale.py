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
    location_information: float = 1.0
    """Expected information on the location in one row of scale 1."""
    scale_information: ClassVar[float]
    """Expected information on the logarithm of the scale in one row."""

    def __init__(
        self,
        scale: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
        *,
        link: str | None = None,
    ) -> None:
        super().__init__(loc="predicted", scale=scale, scale_floor=scale_floor, start=start, link=link)
        is_linear = self.first_link is inverse_link.identity
        self.convex = is_linear and not isinstance(scale, str)
        # In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
        self.unimodal = is_linear and scale != "predicted"
        self.natural = self.squared and is_linear and scale != "predicted"

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """The location of no row may go to infinity, on either side; of other links than the identity none is known."""
        if self.first_link is not inverse_link.identity:
            return {}
        always = torch.ones_like(y, dtype=torch.bool)
        return {"loc": Rises(always, always)}

    def information(self, eta: Tensor) -> Tensor:
        """diag(c / scale², scale_information) in (loc, log scale): a location orthogonal to the scale, by symmetry.

        c is `location_information`, times the squared slope of the inverse link of the location.
        """
        precision = self.location_information * self.params(eta)["scale"].expand(eta.shape[:-1]) ** -2
        if self.first_link is not inverse_link.identity:
            loc = eta[..., 0]
            precision = precision * torch.exp(2 * self.first_link.log_abs_det_jacobian(loc, self.first_link(loc)))
        diagonal = torch.stack([precision, torch.full_like(precision, self.scale_information)], -1)
        return torch.diag_embed(diagonal[..., : eta.shape[-1]])
