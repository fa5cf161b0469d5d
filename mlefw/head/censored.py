"""The censored head: a number of which only bounds are known in some rows."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from mlefw.distribution import censored
from mlefw.distribution.censored import Censored, log_tail
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start


class CensoredHead(Head):
    """A number with left, right or interval bounds, around a head of that number: tobit, survival, detection limits.

    Choose it where some rows only say that y was above, below or between limits: an engine that still runs, a value
    under the detection limit, an income class. Such rows count as what they say; left out or taken at their limit
    they bias every estimate. Predictions are those of the number itself, not of what is censored of it.

    The target is two columns: data.target=[low,high]. Equal cells are an exact value; an empty cell is no bound, as is
    -inf below and inf above. Or it is a time and whether its event was observed: data.target=time data.event=status.

    Domain: low <= high, one of them there; the upper end in the domain of the component.
    Link: that of the component.
    NLL: that of the component where the bounds are equal; else −log(F(high) − F(low)), from the logarithms of the
        tails (Tobin, 1958; Turnbull, 1976).

    Args:
        component: the head of the number.
        start: as for any head.
    """

    also_known_as: ClassVar = "tobit (with a Gaussian), accelerated failure time (with a Weibull or lognormal)"
    partial: ClassVar = True
    takes_offset: ClassVar = False
    outside: ClassVar = "the lower bound may not be above the upper one, and one of them has to be there"

    def __init__(self, component: Head, start: Start = "null") -> None:
        super().__init__(component.eta_names, component.shared_names, start)
        # A tuple: what is trained, moved and stored are the buffers and parameters of the whole.
        self.parts = (component,)
        self.event_shape = torch.Size([2])
        self.support = censored.bounds(component.support)
        self.convex = component.convex
        # In (loc / scale, 1 / scale) tails and intervals of a log-concave density are convex, too (Olsen, 1978).
        self.unimodal = component.unimodal
        self._check(component)
        self._take_over()

    @property
    def component(self) -> Head:
        """The head of the number, with the floor of the whole."""
        part = self.parts[0]
        part.floor = self.floor
        return part

    def points(self, y: Tensor) -> Tensor:
        """A number for each pair of bounds (n, 2), rough: the middle, or the one bound there is."""
        lower, upper = y.unbind(-1)
        return torch.where(lower.isnan(), upper, torch.where(upper.isnan(), lower, 0.5 * (lower + upper)))

    def set_units(self, mean: float, spread: float) -> None:
        """Those of the component, whose parameters start where they fit such a number roughly."""
        part = self.parts[0]
        part.set_units(mean, spread)
        self._take_over()
        rough: dict[str, float] = getattr(part, "rough", lambda *_: {})(mean, spread)
        for column, name in enumerate(self.eta_names + self.shared_names):
            if name in rough:
                value = torch.tensor(rough[name], dtype=torch.float64)
                self.center[column] = part.inverse_link_of(name).inv(value)

    def inverse_link_of(self, name: str) -> Transform:
        """That of the component."""
        return self.parts[0].inverse_link_of(name)

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """From the lower bound to the upper one."""
        lower, upper = y.unbind(-1)
        low, high = (self.component.fitted_between(bound) for bound in (lower, upper))
        if low is None or high is None:
            return None
        return low[0].masked_fill(lower.isnan(), -math.inf), high[1].masked_fill(upper.isnan(), math.inf)

    def lowest(self) -> Tensor:
        """That of the component."""
        return self.component.lowest()

    def least_scale(self, eta: Tensor) -> Tensor | None:
        """That of the component."""
        return self.component.least_scale(eta)

    def distribution(self, eta: Tensor) -> Censored:
        """The distribution of the bounds for a complete eta."""
        return Censored(self.component.distribution(eta))

    def _take_over(self) -> None:
        part: Any = self.parts[0]
        self.center.copy_(part.center)
        self.gain.copy_(part.gain)
        self.floor = part.floor.clone()

    def _check(self, component: Head) -> None:
        if component.target != "numeric" or component.event_shape or component.support.is_discrete:
            raise UsageError(f"head.component: {type(component).__name__} is no head of one continuous number")
        tried = component.distribution(torch.zeros(1, component.eta_dim + component.shared_dim, dtype=torch.float64))
        try:
            log_tail(tried, torch.ones(1, dtype=torch.float64), True)
        except NotImplementedError as error:
            raise UsageError(
                f"head.component: {error}: expected gaussian, laplace, lognormal, weibull or exponential"
            ) from error
