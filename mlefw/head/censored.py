"""The censored head: a number for which some rows give bounds only."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from mlefw.distribution import censored
from mlefw.distribution.censored import Censored, log_tail
from mlefw.errors import UsageError
from mlefw.head.component import ComponentHead
from mlefw.head.head import Head, Start


class CensoredHead(ComponentHead):
    """A left-, right- or interval-censored number, whose own distribution is another head: tobit, survival analysis.

    Choose it where some rows only say that y was above, below or between limits: an engine that still runs, a value
    under the detection limit, an income class. Leaving such rows out, or taking them at their limit, biases every
    estimate. Predictions are of the number itself, not of its censored observation.

    The target is two columns: data.target=[low,high]. Equal cells are an exact value; an empty cell is no bound, as is
    -inf below and inf above. Or it is a time and whether its event was observed: data.target=time data.event=status.

    Domain: low <= high, at least one of them given; the upper bound in the domain of the component.
    Link: the component's.
    NLL: the component's where the bounds are equal; else −log(F(high) − F(low)), from the logarithms of the
        tails (Tobin, 1958; Turnbull, 1976).

    Args:
        component: the head for the number itself.
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "tobit (with a Gaussian), accelerated failure time (with a Weibull or lognormal)"
    partial: ClassVar = True
    takes_offset: ClassVar = False
    outside: ClassVar = "the lower bound may not be above the upper one, and one of them has to be there"

    def __init__(self, component: Head, start: Start = "null") -> None:
        super().__init__(component, start)
        self.event_shape = torch.Size([2])
        self.support = censored.bounds(component.support)
        self.convex = component.convex
        # In (loc / scale, 1 / scale) the NLL of tails and intervals of a log-concave density is convex (Olsen, 1978).
        self.unimodal = component.unimodal
        self._check(component)

    @property
    def log_link(self) -> bool:
        """False: no exposure is taken."""
        return False

    def points(self, y: Tensor) -> Tensor:
        """A rough number for each pair of bounds (n, 2): the midpoint, or the only bound, (n,)."""
        lower, upper = y.unbind(-1)
        return torch.where(lower.isnan(), upper, torch.where(upper.isnan(), lower, 0.5 * (lower + upper)))

    def set_units(self, mean: float, spread: float) -> None:
        """Take the units of the component, and center its parameters at a rough fit of this mean and spread."""
        super().set_units(mean, spread)
        rough = self.rough(mean, spread)
        for column, name in enumerate(self.eta_names + self.shared_names):
            if name in rough:
                value = torch.tensor(rough[name], dtype=torch.float64)
                self.center[column] = self.inverse_link_of(name).inv(value)

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at the lower and at the upper bound, each (*batch,), infinite where a bound is missing."""
        lower, upper = y.unbind(-1)
        low, high = (self.component.fitted_between(bound) for bound in (lower, upper))
        if low is None or high is None:
            return None
        return low[0].masked_fill(lower.isnan(), -math.inf), high[1].masked_fill(upper.isnan(), math.inf)

    def distribution(self, eta: Tensor) -> Censored:
        """The censored distribution for a complete eta."""
        return Censored(self.component.distribution(eta))

    def _check(self, component: Head) -> None:
        if component.target != "numeric" or component.event_shape or component.support.is_discrete:
            raise UsageError(f"head.component: {type(component).__name__} is not a head for one continuous number")
        example = component.distribution(torch.zeros(1, component.eta_dim + component.shared_dim, dtype=torch.float64))
        try:
            log_tail(example, torch.ones(1, dtype=torch.float64), True)
        except NotImplementedError as error:
            raise UsageError(
                f"head.component: {error}: expected gaussian, logistic, student_t, laplace, "
                "lognormal, loglogistic, weibull, exponential or generalised_gamma"
            ) from error
