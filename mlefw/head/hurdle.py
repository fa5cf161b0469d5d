"""The hurdle head: whether a number is above zero, and how large it then is."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution import quantile
from mlefw.distribution.cdf import is_discrete, tail
from mlefw.distribution.link import SHARE
from mlefw.distribution.parameter import ParameterSource, check_source
from mlefw.errors import UsageError
from mlefw.head.component import ComponentHead
from mlefw.head.head import Head, Rises, Start
from mlefw.head.truncated import TruncatedHead


class Hurdle(Distribution):
    """Zero, or with probability sigmoid(logits) a draw from a distribution of positive numbers.

    Shapes: logits, and the batch shape of `positive`, (*batch,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, positive: Distribution, logits: Tensor) -> None:
        self.positive, self.logits = positive, logits
        super().__init__(positive.batch_shape, validate_args=False)

    @property
    def support(self) -> Constraint:
        """Zero and what is positive."""
        return constraints.nonnegative_integer if is_discrete(self.positive) else constraints.nonnegative

    @property
    def atom(self) -> float | None:
        """Zero, where it has a probability among values with a density; None among counts."""
        return None if is_discrete(self.positive) else 0.0

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return self.logits.sigmoid() * self.positive.mean

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        share, rest = self.logits.sigmoid(), (-self.logits).sigmoid()
        return share * (self.positive.variance + rest * self.positive.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the mass at zero, and of the mass or density above it, (*batch,)."""
        some = value > 0
        positive = self.positive.log_prob(torch.where(some, value, torch.ones_like(value)))
        return torch.where(some, logsigmoid(self.logits) + positive, logsigmoid(-self.logits))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        drawn = self.positive.sample(sample_shape)
        return torch.where(torch.rand_like(drawn) < self.logits.sigmoid(), drawn, torch.zeros_like(drawn))


@tail.register
def _(distribution: Hurdle, y: Tensor, above: bool) -> Tensor:
    share = distribution.logits.sigmoid()
    # Where nothing is positive yet, the distribution above zero need not be defined.
    some = y > 0
    inside = tail(distribution.positive, torch.where(some, y, torch.ones_like(y)), above)
    if above:
        return torch.where(y < 0, 1.0, torch.where(some, share * inside, share))
    zero = (-distribution.logits).sigmoid()
    return torch.where(y < 0, 0.0, torch.where(some, zero + share * inside, zero))


@quantile.quantile.register
def _(distribution: Hurdle, level: quantile.Level) -> Tensor:
    zero, share = (-distribution.logits).sigmoid(), distribution.logits.sigmoid()
    left = (level - zero) / share
    found = quantile.quantile(distribution.positive, left.clamp(2.0**-54, 1 - 2.0**-53))
    return torch.where(left > 0, found, torch.zeros_like(found))


class HurdleHead(ComponentHead):
    """Zero or more, by one mechanism, and how much more, by another: visits to a doctor, rain, money spent.

    Choose it where a zero is a decision of its own, with other causes than the size of what is above zero; where some
    zeros are counts like any other, choose a zero-inflated head. Both parts are estimated apart: a logistic regression
    of y > 0, and a regression of the positive values. Around a head of counts these are truncated at zero; around one
    of positive numbers (`gamma`, `lognormal`) it is a two-part model, whose zeros have a mass.

    Domain: y = 0, or y in the domain of the component.
    Link: the component's, a log exposure is an offset of its first eta; P(y > 0) = sigmoid(eta) of the last predicted
        column (`zero=logit`; also probit, cloglog, loglog and cauchit).
    NLL: −log(1 − P) at 0, else −log P + the component's NLL, of counts with log(1 − f(0)).

    Args:
        component: the head for the values above zero.
        nonzero: where the probability of a value above zero comes from: `predicted`, `shared` or a number.
        zero: link that maps its eta to the probability: `logit`, `probit`, `cloglog`, `loglog` or `cauchit`.
        start: where training starts, `null` or `zero`.

    Source: Mullahy (1986); Cragg (1971) for positive numbers.
    """

    also_known_as: ClassVar = "hurdle model; two-part model"
    second_part: ClassVar = "nonzero"

    def __init__(
        self,
        component: Head,
        nonzero: ParameterSource = "predicted",
        zero: str = "logit",
        start: Start = "null",
    ) -> None:
        check_source("nonzero", nonzero, inverse_link.sigmoid)
        if zero not in SHARE:
            raise UsageError(f"head.zero={zero!r}: expected one of {', '.join(SHARE)}")
        part = self._positive(component)
        names = ("nonzero",)
        super().__init__(part, start, names * (nonzero == "predicted"), names * (nonzero == "shared"))
        self.zero, self.given = zero, None if isinstance(nonzero, str) else float(nonzero)
        self.support = constraints.nonnegative_integer if part.support.is_discrete else constraints.nonnegative
        # The NLL is a sum of two, without a parameter in common.
        is_known = SHARE[zero].log_concave
        self.convex, self.unimodal = part.convex and is_known, part.unimodal and is_known
        self.limits, self.lone = part.limits, part.lone  # type: ignore[misc]

    def inverse_link_of(self, name: str) -> Transform:
        """The map of eta to the probability of a value above zero; else the component's inverse link."""
        if name != "nonzero":
            return super().inverse_link_of(name)
        return inverse_link.sigmoid if self.zero == "logit" else SHARE[self.zero]

    def distribution(self, eta: Tensor) -> Hurdle:
        """The hurdle distribution for a complete eta."""
        return Hurdle(self.component.distribution(self.of_component(eta)), self._logits(eta))

    def points(self, y: Tensor) -> Tensor:
        """The target, (*batch,)."""
        return y

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """As the component says of values above zero; a zero says nothing of its first eta."""
        some = y > 0
        found = self.component.fitted_between(torch.where(some, y, torch.ones_like(y)))
        if found is None:
            return None
        return torch.where(some, found[0], -math.inf), torch.where(some, found[1], math.inf)

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """As the component says of values above zero; a zero says nothing of its parameters."""
        some = y > 0
        stated = self.parts[0].recession(torch.where(some, y, torch.ones_like(y)))
        known = {name: Rises(some & rises.down, some & rises.up) for name, rises in stated.items()}
        return known | {"nonzero": Rises(some, ~some)}

    def _logits(self, eta: Tensor) -> Tensor:
        if self.given is not None:
            return inverse_link.sigmoid.inv(eta.new_tensor(self.given)).expand(eta.shape[:-1])
        return SHARE[self.zero].log_odds(eta[..., (self.eta_names + self.shared_names).index("nonzero")])

    def _positive(self, component: Head) -> Head:
        if component.support.is_discrete and component.target == "numeric" and not component.takes_trials:
            return TruncatedHead(component, 1)
        if component.support is constraints.positive:
            return component
        name = type(component).__name__
        raise UsageError(
            f"head.component: {name} is not a head for counts or for positive numbers"
            "\n  expected: poisson, negative_binomial, gamma, lognormal, weibull or exponential"
        )
