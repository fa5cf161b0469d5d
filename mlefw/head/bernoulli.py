"""The Bernoulli head: binary cross-entropy."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, constraints, register_kl
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.distribution.special import log_normal_cdf
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Rises, Start


class LogitBernoulli(Bernoulli):
    """Bernoulli distribution whose log-mass keeps full relative precision near probability one, for both outcomes."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        return logsigmoid((2 * value - 1) * self.logits)


@register_kl(LogitBernoulli, LogitBernoulli)  # type: ignore[untyped-decorator]
def _divergence(p: LogitBernoulli, q: LogitBernoulli) -> Tensor:
    """KL(p, q), (*batch,), from log-probabilities: torch's own is infinite where a probability rounds to 0 or 1."""
    ones = p.probs * (logsigmoid(p.logits) - logsigmoid(q.logits))
    zeros = torch.sigmoid(-p.logits) * (logsigmoid(-p.logits) - logsigmoid(-q.logits))
    return ones + zeros


class _Probit(Transform):
    """Maps eta to the log-odds of Φ(eta), Φ being the standard normal distribution function."""

    domain, codomain, bijective, sign = constraints.real, constraints.real, True, 1

    def _call(self, x: Tensor) -> Tensor:
        return log_normal_cdf(x) - log_normal_cdf(-x)


class _ComplementaryLogLog(Transform):
    """Maps eta to the log-odds of 1 − exp(−exp(eta)), the probability of at least one event of a Poisson process."""

    domain, codomain, bijective, sign = constraints.real, constraints.real, True, 1

    def _call(self, x: Tensor) -> Tensor:
        # log expm1(exp(x)). Both branches are evaluated: each is clamped so that its gradient is finite off its side.
        large, small = x.clamp(0.0, _FAR).exp(), x.clamp(-_FAR, 0.0).exp()
        high = large + torch.log1p(-torch.exp(-large))
        return torch.where(x > 0, high, x + torch.log(torch.expm1(small) / small))


_FAR = 700.0
"""Exponent near which exp overflows in double precision (709)."""

LINKS: Mapping[str, Transform] = {
    "logit": inverse_link.identity,
    "probit": _Probit(),
    "cloglog": _ComplementaryLogLog(),
}
"""The transform from eta to log-odds for each value of `link`."""


def log_slope(link: str, eta: Tensor, logits: Tensor) -> Tensor:
    """The logarithm of d log-odds / d eta under a link, (*batch,), for eta (*batch,) and its log-odds."""
    if link == "probit":
        return -0.5 * eta.square() - 0.5 * math.log(2 * math.pi) - logsigmoid(logits) - logsigmoid(-logits)
    return eta - logsigmoid(logits) if link == "cloglog" else torch.zeros_like(eta)


class BernoulliHead(FactorizedHead):
    """A binary target; eta is the log-odds of y = 1, or another function of its probability.

    Choose `probit` where y says whether a normal quantity passed a threshold, and `cloglog` where y says whether any
    event of a Poisson process happened: coefficients are then log rate ratios, and a log exposure is an offset.

    Domain: y in {0, 1}.
    Link: probability = sigmoid(eta) (logit), the normal distribution function of eta (probit), or 1 − exp(−exp(eta))
        (cloglog); never formed: the density is computed from log-odds.
    NLL: softplus(−(2y − 1) log-odds).
    """

    also_known_as: ClassVar = "binary cross-entropy, log loss; logistic, probit and cloglog regression"
    inverse_links: ClassVar = {"logits": inverse_link.identity}
    support = constraints.boolean
    target: ClassVar = "binary"
    convex = True

    def __init__(self, link: str = "logit", start: Start = "null") -> None:
        if link not in LINKS:
            raise UsageError(f"head.link={link!r}: expected one of {', '.join(LINKS)}")
        super().__init__(logits="predicted", start=start)
        self.link_name = link

    @property
    def log_link(self) -> bool:
        """Whether eta is the logarithm of a rate."""
        return self.link_name == "cloglog"

    def set_units(self, mean: float, spread: float) -> None:
        """Do nothing: log-odds have no unit."""

    def distribution(self, eta: Tensor) -> LogitBernoulli:
        """The Bernoulli distribution for a complete eta."""
        return self.build(LINKS[self.link_name](eta[..., 0]))

    def build(self, logits: Tensor) -> LogitBernoulli:  # type: ignore[override]
        """Bernoulli(logits)."""
        return LogitBernoulli(logits=logits, validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """The expected information p (1 − p) · (d log-odds / d eta)², (*batch, 1, 1)."""
        column = eta[..., 0]
        logits = LINKS[self.link_name](column)
        log_variance = logsigmoid(logits) + logsigmoid(-logits)
        return (log_variance + 2 * log_slope(self.link_name, column, logits)).exp()[..., None, None]

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """Eta may go to infinity where y = 1, and to minus infinity where y = 0, whatever the link."""
        return {"logits": Rises(y == 1, y == 0)}

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """Twice the NLL, (*batch,): the NLL of a perfect prediction of one outcome is 0."""
        return 2 * self.nll_complete(eta, y)
