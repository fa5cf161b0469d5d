"""The Bernoulli head: binary cross-entropy."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, constraints, register_kl
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.head.base import FactorizedHead, Start


class LogitBernoulli(Bernoulli):
    """Bernoulli distribution whose log-mass keeps full relative precision near probability one, for both outcomes."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        return logsigmoid((2 * value - 1) * self.logits)


@register_kl(LogitBernoulli, LogitBernoulli)  # type: ignore[untyped-decorator]
def _divergence(p: LogitBernoulli, q: LogitBernoulli) -> Tensor:
    """KL(p, q) from log-probabilities, finite wherever the logits are: torch rounds probabilities to 0 and 1 first."""
    ones = p.probs * (logsigmoid(p.logits) - logsigmoid(q.logits))
    zeros = torch.sigmoid(-p.logits) * (logsigmoid(-p.logits) - logsigmoid(-q.logits))
    return ones + zeros


class BernoulliHead(FactorizedHead):
    """A binary target; eta is the log-odds of y = 1.

    Domain: y in {0, 1}.
    Link: probability = sigmoid(eta), never formed: the density is computed from eta.
    NLL: softplus(−(2y − 1) eta).
    """

    inverse_links: ClassVar = {"logits": inverse_link.identity}
    support = constraints.boolean
    target: ClassVar = "binary"
    convex = True

    def __init__(self, start: Start = "null") -> None:
        super().__init__(logits="predicted", start=start)

    def set_units(self, mean: float, spread: float) -> None:
        """Nothing to do: log-odds have no unit."""

    def build(self, logits: Tensor) -> LogitBernoulli:  # type: ignore[override]
        """Bernoulli(logits)."""
        return LogitBernoulli(logits=logits, validate_args=False)

    def information(self, eta: Tensor) -> Tensor:
        """The variance p (1 − p): the link is canonical, so the observed information is the expected one."""
        return (eta[..., 0].sigmoid() * (-eta[..., 0]).sigmoid())[..., None, None]

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """Twice the NLL: a perfect prediction of single outcomes has none."""
        return 2 * self.nll_complete(eta, y)
