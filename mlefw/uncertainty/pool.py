"""The linear opinion pool: the mixture of what several models predict of a row, whatever their heads.

Source: Stone (1961). It is the densities that are averaged, never parameters.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, MixtureSameFamily
from torch.distributions import Categorical as TorchCategorical
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw.distribution import quantile
from mlefw.distribution.cdf import is_discrete, tail
from mlefw.distribution.censored import Censored
from mlefw.distribution.joint import Joint
from mlefw.distribution.trials import GivenTrials
from mlefw.head.bernoulli import LogitBernoulli
from mlefw.head.categorical import Categorical
from mlefw.metric.dispersion import Moments, moments
from mlefw.uncertainty.marginal import average
from mlefw.uncertainty.mixture import newton


def equal(count: int) -> Tensor:
    """The log weights of members that count alike, (count,)."""
    return torch.full((count,), -math.log(count), dtype=torch.float64)


def pooled(members: Sequence[Distribution], log_weight: Tensor) -> Distribution:
    """The mixture of distributions of one batch shape; one alone is itself.

    Classes have the mean of their probabilities. All members are of classes, of counts or of densities, of one number,
    of a number between bounds, or of several targets.

    Args:
        members: M distributions.
        log_weight: logarithms of their weights, which sum to one, (M,).
    """
    if len(members) == 1:
        return members[0]
    if all(isinstance(member, Bernoulli) for member in members):
        logits = torch.stack([member.logits.double() for member in members], -1)  # type: ignore[attr-defined]
        return average(log_weight, LogitBernoulli(logits=logits, validate_args=False))
    if all(isinstance(member, Bernoulli | TorchCategorical) for member in members):
        return average(log_weight, Categorical(torch.stack([log_probabilities(member) for member in members], -2)))
    if all(isinstance(member, Joint) for member in members):
        return PooledJoint(members, log_weight)  # type: ignore[arg-type]
    if all(isinstance(member, Censored) for member in members):
        return PooledCensored(members, log_weight)  # type: ignore[arg-type]
    if all(isinstance(member, GivenTrials) for member in members):
        first = members[0].batch_shape
        return GivenTrials(
            lambda trials: pooled([m.given(trials) for m in members], log_weight),  # type: ignore[attr-defined]
            first,
            members[0].device,  # type: ignore[attr-defined]
        )
    component = SideBySide(members)
    return Pool(TorchCategorical(logits=log_weight.expand(component.batch_shape)), component, validate_args=False)


def log_probabilities(distribution: Distribution) -> Tensor:
    """Log-probabilities of the classes of a distribution that has classes, (*batch, num_classes)."""
    if isinstance(distribution, Bernoulli):
        logits = distribution.logits.double()
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], -1)
    assert isinstance(distribution, TorchCategorical)
    return distribution.logits.double().log_softmax(-1)


class _Union(Constraint):
    """What lies in any of some supports of one number."""

    event_dim = 0

    def __init__(self, supports: Sequence[Constraint]) -> None:
        self.supports = tuple(supports)
        self.is_discrete = supports[0].is_discrete

    def check(self, value: Tensor) -> Tensor:
        return torch.stack([support.check(value) for support in self.supports]).any(0)


def union(supports: Sequence[Constraint]) -> Constraint:
    """The support of a mixture."""
    return supports[0] if supports[0].event_dim else _Union(supports)


class SideBySide(Distribution):
    """The distributions of M models, each (*batch,), as one of batch shape (*batch, M)."""

    arg_constraints = {}  # noqa: RUF012 - torch asks for it, and types it as one of an instance

    def __init__(self, members: Sequence[Distribution]) -> None:
        self.members = tuple(members)
        super().__init__(torch.Size([*members[0].batch_shape, len(members)]), validate_args=False)

    @property
    def support(self) -> Constraint:
        """What any member may take."""
        return union([member.support for member in self.members])  # type: ignore[misc]

    @property
    def mean(self) -> Tensor:
        """(*batch, M)."""
        return torch.stack([member.mean for member in self.members], -1)

    @property
    def variance(self) -> Tensor:
        """(*batch, M)."""
        return torch.stack([member.variance for member in self.members], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density or log-mass under each member, minus infinity outside its support; value (*, 1) or (*, M)."""
        parts = []
        for member, y in zip(self.members, self._each(value), strict=True):
            inside = member.support.check(y)  # type: ignore[union-attr]
            known = member.log_prob(torch.where(inside, y, member.mean))
            parts.append(torch.where(inside, known, -math.inf))
        return torch.stack(parts, -1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """A draw of each member, (*sample_shape, *batch, M)."""
        return torch.stack([member.sample(sample_shape) for member in self.members], -1)

    def _each(self, value: Tensor) -> tuple[Tensor, ...]:
        """What each member is asked for."""
        return value.expand(*value.shape[:-1], len(self.members)).unbind(-1)


@tail.register
def _(distribution: SideBySide, y: Tensor, above: bool) -> Tensor:
    pairs = zip(distribution.members, distribution._each(y), strict=True)
    return torch.stack([_within(member, value, above) for member, value in pairs], -1)


def _within(member: Distribution, y: Tensor, above: bool) -> Tensor:
    """The tail of a member, which may not know it outside its support."""
    if is_discrete(member):
        return tail(member, y, above)
    lower, upper = (getattr(member.support, name, None) for name in ("lower_bound", "upper_bound"))
    under = torch.zeros_like(y, dtype=torch.bool) if lower is None else y <= lower
    over = torch.zeros_like(y, dtype=torch.bool) if upper is None else y >= upper
    known = tail(member, torch.where(under | over, member.mean, y), above)
    return torch.where(under, float(above), torch.where(over, float(not above), known))


@quantile.quantile.register
def _(distribution: SideBySide, level: quantile.Level) -> Tensor:
    if isinstance(level, Tensor):
        pairs = zip(distribution.members, distribution._each(level), strict=True)
        return torch.stack([quantile.quantile(member, p) for member, p in pairs], -1)
    return torch.stack([quantile.quantile(member, level) for member in distribution.members], -1)


class Pool(MixtureSameFamily):
    """The mixture of one number; its quantiles lie between the members' own."""


@quantile.quantile.register
def _(distribution: Pool, level: quantile.Level) -> Tensor:
    if is_discrete(distribution):
        return quantile.quantile.dispatch(MixtureSameFamily)(distribution, level)
    component = distribution.component_distribution
    each = quantile.quantile(component, level.unsqueeze(-1) if isinstance(level, Tensor) else level)
    low, high = each.amin(-1), each.amax(-1)
    p = level.expand_as(low) if isinstance(level, Tensor) else torch.full_like(low, level)
    return newton(distribution, p, low, high, (low + high) / 2)


@moments.register
def _(distribution: Pool) -> Moments | None:
    members = getattr(distribution.component_distribution, "members", ())
    known = [found for member in members if (found := moments(member)) is not None]
    if not known or len(known) < len(members):
        return None
    first, second, third, fourth = (torch.stack(column, -1) for column in zip(*known, strict=True))
    share = distribution.mixture_distribution.probs
    return (share * first).sum(-1), (share * second).sum(-1), (share * third).sum(-1), (share * fourth).sum(-1)


class PooledJoint(Joint):
    """The mixture of joint distributions: targets that are independent in each member depend on one another in it."""

    def __init__(self, members: Sequence[Joint], log_weight: Tensor) -> None:
        self.members, self.log_weight, first = tuple(members), log_weight, members[0]
        columns = zip(*(member.marginals for member in members), strict=True)
        super().__init__([pooled(column, log_weight) for column in columns], first.stand_ins, first.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of the targets that are there, together, (*batch,)."""
        return _mixed([member.log_prob(value) for member in self.members], self.log_weight)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """(*sample_shape, *batch, num_targets)."""
        every = torch.stack([member.sample(sample_shape) for member in self.members])
        chosen = TorchCategorical(logits=self.log_weight).sample(every.shape[1:-1])
        return every.gather(0, chosen[None, ..., None].expand(1, *every.shape[1:])).squeeze(0)


class PooledCensored(Censored):
    """The mixture for a number of which bounds are observed: of densities, or of the masses between the bounds."""

    def __init__(self, members: Sequence[Censored], log_weight: Tensor) -> None:
        self.members, self.log_weight = tuple(members), log_weight
        super().__init__(pooled([member.latent for member in members], log_weight))

    def log_prob(self, value: Tensor) -> Tensor:
        """(*batch,)."""
        return _mixed([member.log_prob(value) for member in self.members], self.log_weight)


def _mixed(parts: Sequence[Tensor], log_weight: Tensor) -> Tensor:
    """The log-probability of the mixture, of those of its members, each (*batch,)."""
    return torch.logsumexp(torch.stack(list(parts), -1) + log_weight, -1)
