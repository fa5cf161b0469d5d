"""The truncated head: only values between bounds enter the sample."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from mlefw.distribution.censored import log_tail
from mlefw.distribution.parameter import Limit
from mlefw.distribution.trials import GivenTrials, Successes
from mlefw.distribution.truncated import Truncated, within
from mlefw.errors import UsageError
from mlefw.head.component import ComponentHead
from mlefw.head.head import Head, Rises, Start
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.trials import TrialsHead

_MOST = 1000
"""Largest bound of counts, whose masses are summed."""
_SERIES = Limit(
    "dispersion",
    8.0,
    "the counts vary as those of the logarithmic series, which is the limit as the dispersion goes to infinity",
    beside="mean",
    opposite=True,
)


class TruncatedHead(ComponentHead):
    """A number of which only values between bounds are seen: trips of those who travel, claims above a deductible.

    Choose it where rows outside the bounds are missing from the data, however many there were; where they are there,
    with the bound in place of their value, choose `censored`. Parameters and predictions: parameters are those of the
    component, without bounds; predictions are of what is seen, between the bounds.

    `lower=1` around counts leaves zeros out. Around `binomial` with data.trials it is what is seen of families of
    which one member at least is affected.

    Domain: lower <= y <= upper; one of the two may be missing.
    Link: the component's.
    NLL: the component's + log(F(upper) − F(lower)); of counts, F is taken just below the lower bound.

    Args:
        component: the head for the number without bounds.
        lower: the least value that is seen; None for no bound.
        upper: the greatest value that is seen; None for no bound.
        start: where training starts, `null` or `zero`.

    Source: Cohen (1950); Grogger & Carson (1991) for counts.
    """

    also_known_as: ClassVar = "truncated regression; zero-truncated Poisson and negative binomial"
    outside: ClassVar = "values outside the bounds cannot be seen: choose other bounds, or take these rows out"

    def __init__(
        self, component: Head, lower: float | None = 1, upper: float | None = None, start: Start = "null"
    ) -> None:
        super().__init__(component, start)
        self.lower, self.upper = self._bounds(component, lower, upper)
        self._check(component)
        self.takes_trials, self.event_shape = component.takes_trials, component.event_shape
        self.support = self._support(component)
        # A truncated exponential family is one with the same natural parameters.
        self.convex = component.convex and component.natural
        self.unimodal = component.unimodal and component.natural
        series = isinstance(component, NegativeBinomialHead) and component.power == 2 and (self.lower or 0) >= 1
        self.limits = (*component.limits, *([_SERIES] if series and upper is None else []))  # type: ignore[misc]
        self.lone = component.lone

    def distribution(self, eta: Tensor) -> Distribution:
        """The truncated distribution for a complete eta."""
        whole = self.component.distribution(eta)
        if isinstance(whole, GivenTrials):
            return GivenTrials(
                lambda trials: Truncated(whole.given(trials), self.lower, self.upper), whole.batch_shape, whole.device
            )
        return Truncated(whole, self.lower, self.upper)

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """As the component says, but that counts at a bound are likely as their mean goes beyond it."""
        part, stated = self.parts[0], dict(self.parts[0].recession(y))
        first = part.eta_names[0]
        if not part.support.is_discrete or first not in stated:
            return stated
        count = part.parted(y)[0] if isinstance(part, TrialsHead) else y
        at_lower, at_upper = (torch.zeros_like(count, dtype=torch.bool) for _ in range(2))
        at_lower = at_lower if self.lower is None else count <= self.lower
        at_upper = at_upper if self.upper is None else count >= self.upper
        return stated | {first: Rises(stated[first].down & ~at_lower, stated[first].up & ~at_upper)}

    def _bounds(self, component: Head, lower: Any, upper: Any) -> tuple[float | None, float | None]:
        """The bounds, None where the component has none of its values beyond."""
        asked = lower
        for name, bound in (("lower", lower), ("upper", upper)):
            if bound is not None and (isinstance(bound, bool) or not math.isfinite(bound)):
                raise UsageError(f"head.{name}={bound}: expected a number, or null for no bound")
            if bound is not None and component.support.is_discrete and not (bound == int(bound) and bound <= _MOST):
                raise UsageError(f"head.{name}={bound}: expected a whole number up to {_MOST} around counts")
        if lower is not None and upper is not None and not lower < upper:
            raise UsageError(f"head.lower={lower} is not below head.upper={upper}: expected a range of values")
        if lower is not None and lower <= float(getattr(component.support, "lower_bound", -math.inf)):
            lower = None
        if lower is None and upper is None:
            raise UsageError(
                f"head.lower={asked} leaves nothing out of what {type(component).__name__} allows, and there is no "
                "head.upper: expected a bound, such as head.lower=1 around counts"
            )
        return lower, upper

    def _check(self, component: Head) -> None:
        kind = type(component).__name__
        if component.target != "numeric" or type(component).rounded_nll is not Head.rounded_nll:
            raise UsageError(f"head.component: {kind} is not a head for one smooth number")
        if component.event_shape and not component.takes_trials:
            raise UsageError(f"head.component: {kind} is a head of several numbers")
        if component.support.is_discrete:
            return
        columns = component.eta_dim + component.shared_dim
        try:
            log_tail(component.distribution(torch.zeros(1, columns).double()), torch.ones(1).double(), True)
        except NotImplementedError as error:
            raise UsageError(
                f"head.component: {error}: expected gaussian, lognormal, weibull, exponential or a head of counts"
            ) from error

    def _support(self, component: Head) -> Constraint:
        if isinstance(component, TrialsHead):
            return Successes(component.trials, int(self.lower or 0), None if self.upper is None else int(self.upper))
        return within(component.support, self.lower, self.upper)
