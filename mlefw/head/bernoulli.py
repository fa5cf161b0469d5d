"""The Bernoulli head: binary cross-entropy."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, constraints, register_kl
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.distribution.link import SHARE
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


class BernoulliHead(FactorizedHead):
    """A binary target; eta is the log-odds of y = 1, or another function of its probability.

    Choose `probit` where y says whether a normal quantity passed a threshold, and `cloglog` where y says whether any
    event of a Poisson process happened: coefficients are then log rate ratios, and a log exposure is an offset.
    `loglog` is `cloglog` with the outcomes swapped; under `cauchit` a few outcomes against all odds cost little.

    Domain: y in {0, 1}.
    Link: probability = sigmoid(eta) (logit), the normal distribution function of eta (probit), 1 − exp(−exp(eta))
        (cloglog), exp(−exp(−eta)) (loglog), or ½ + atan(eta) / π (cauchit); never formed: the density is computed from
        log-odds.
    NLL: softplus(−(2y − 1) log-odds).
    """

    also_known_as: ClassVar = "binary cross-entropy, log loss; logistic, probit and cloglog regression"
    inverse_links: ClassVar = {"logits": inverse_link.identity}
    support = constraints.boolean
    target: ClassVar = "binary"

    def __init__(self, link: str = "logit", start: Start = "null") -> None:
        if link not in SHARE:
            raise UsageError(f"head.link={link!r}: expected one of {', '.join(SHARE)}")
        super().__init__(logits="predicted", start=start)
        self.link_name = link
        # −log F and −log(1 − F) are convex where the density of the link is log-concave (Pratt, 1981).
        self.convex = SHARE[link].log_concave

    @property
    def log_link(self) -> bool:
        """Whether eta is the logarithm of a rate."""
        return self.link_name == "cloglog"

    def set_units(self, mean: float, spread: float) -> None:
        """Do nothing: log-odds have no unit."""

    def distribution(self, eta: Tensor) -> LogitBernoulli:
        """The Bernoulli distribution for a complete eta."""
        return self.build(SHARE[self.link_name].log_odds(eta[..., 0]))

    def build(self, logits: Tensor) -> LogitBernoulli:  # type: ignore[override]
        """Bernoulli(logits)."""
        return LogitBernoulli(logits=logits, validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """The expected information p (1 − p) · (d log-odds / d eta)², (*batch, 1, 1)."""
        column = eta[..., 0]
        link = SHARE[self.link_name]
        logits = link.log_odds(column)
        log_variance = logsigmoid(logits) + logsigmoid(-logits)
        return (log_variance + 2 * link.log_slope(column, logits)).exp()[..., None, None]

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """Eta may go to infinity where y = 1, and to minus infinity where y = 0, whatever the link."""
        return {"logits": Rises(y == 1, y == 0)}

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """Twice the NLL, (*batch,): the NLL of a perfect prediction of one outcome is 0."""
        return 2 * self.nll_complete(eta, y)
