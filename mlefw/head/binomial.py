"""The binomial head: successes out of a known number of trials."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Distribution, register_kl
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.distribution.link import SHARE
from mlefw.distribution.special import stirling_error
from mlefw.errors import UsageError
from mlefw.head.head import Rises, Start
from mlefw.head.trials import TrialsHead


class Binomial(TorchBinomial):
    """Binomial distribution by log-odds, whose log-mass is in saddle-point form (Loader, 2000), free of cancellation.

    Shapes: trials and logits (*batch,).
    """

    def __init__(self, trials: Tensor, logits: Tensor) -> None:
        super().__init__(trials, logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        n, zero, full = self.total_count, value == 0, value == self.total_count
        edge = zero | full
        # One trial has no inside: its branch is evaluated where it is finite.
        y, rest = torch.where(edge, torch.ones_like(value), value), torch.where(edge, torch.ones_like(value), n - value)
        normaliser = stirling_error(y) + stirling_error(rest) - stirling_error(y + rest)
        normaliser = normaliser + 0.5 * torch.log(2 * math.pi * y * (rest / (y + rest)))
        inside = -half_deviance(self.logits, y, rest) - normaliser
        return torch.where(edge, n * logsigmoid(torch.where(zero, -self.logits, self.logits)), inside)


def half_deviance(logits: Tensor, y: Tensor, rest: Tensor) -> Tensor:
    """Half the unit deviance of y > 0 successes and `rest` > 0 failures, as a sum of two terms of one sign.

    y log(y / (n p)) + rest log(rest / (n (1 − p))), n = y + rest.
    """
    n = y + rest
    d = (y / n).log() - logsigmoid(logits)
    e = (rest / n).log() - logsigmoid(-logits)
    return y * (d + torch.expm1(-d)) + rest * (e + torch.expm1(-e))


@register_kl(Binomial, Binomial)  # type: ignore[untyped-decorator]
def _divergence(p: Binomial, q: Binomial) -> Tensor:
    """KL(p, q) of equal numbers of trials, (*batch,)."""
    ones = p.probs * (logsigmoid(p.logits) - logsigmoid(q.logits))
    zeros = torch.sigmoid(-p.logits) * (logsigmoid(-p.logits) - logsigmoid(-q.logits))
    return p.total_count * (ones + zeros)


class BinomialHead(TrialsHead):
    """A number of successes out of a known number of trials: eta is the log-odds of a success, or another link.

    Choose it for counts with a ceiling: dead out of treated animals, yes out of answers, hits out of shots. Rows of
    one trial are `bernoulli`. Where the metric `dispersion` is above one, trials of a row are alike: choose
    `beta_binomial`. The column data.trials holds the number of each row, or `trials` is the number of every row; the
    mean of a prediction is the expected number of successes, so that rows to predict need the column, too.

    Domain: y in {0, 1, …, trials}.
    Link: probability = sigmoid(eta) (logit), the normal distribution function of eta (probit), or 1 − exp(−exp(eta))
        (cloglog); never formed: the density is computed from log-odds.
    NLL: −log C(trials, y) − y log(probability) − (trials − y) log(1 − probability).
    """

    also_known_as: ClassVar = "binomial generalised linear model: logistic regression of grouped data"
    inverse_links: ClassVar = {"logits": inverse_link.identity}
    convex = True

    def __init__(self, link: str = "logit", trials: int | None = None, start: Start = "null") -> None:
        if link not in SHARE:
            raise UsageError(f"head.link={link!r}: expected one of {', '.join(SHARE)}")
        super().__init__(trials, start, logits="predicted")
        self.link_name = link
        self.natural = link == "logit"

    @property
    def log_link(self) -> bool:
        """Whether eta is the logarithm of a rate."""
        return self.link_name == "cloglog"

    def distribution(self, eta: Tensor) -> Distribution:
        """The binomial distribution for a complete eta."""
        return self.build(SHARE[self.link_name].log_odds(eta[..., 0]))

    def build(self, logits: Tensor) -> Distribution:  # type: ignore[override]
        """The binomial distribution with these log-odds."""
        return self.counted(lambda trials: Binomial(trials, logits), logits)

    def information(self, eta: Tensor) -> Tensor | None:
        """The expected information of `trials` trials, (*batch, 1, 1); None where rows have their own numbers."""
        return None if self.trials is None else self._information(eta, float(self.trials))

    def information_given(self, eta: Tensor, y: Tensor) -> Tensor:
        """The expected information, (*batch, 1, 1): trials · p (1 − p) · (d log-odds / d eta)²."""
        return self._information(eta, self.parted(y)[1][..., None, None])

    def _information(self, eta: Tensor, trials: Tensor | float) -> Tensor:
        column = eta[..., 0]
        logits = SHARE[self.link_name].log_odds(column)
        log_variance = logsigmoid(logits) + logsigmoid(-logits)
        return trials * (log_variance + 2 * SHARE[self.link_name].log_slope(column, logits)).exp()[..., None, None]

    def recession(self, y: Tensor) -> dict[str, Rises]:
        """Eta may go to infinity where there are no failures, and to minus infinity where there are no successes."""
        return {"logits": self.rises(y)}

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """2 (y log(y / mean) + (trials − y) log((trials − y) / (trials − mean))), (*batch,)."""
        logits, (count, trials) = SHARE[self.link_name].log_odds(eta[..., 0]), self.parted(y)
        edge = (count == 0) | (count == trials)
        one = torch.ones_like(count)
        inside = half_deviance(logits, torch.where(edge, one, count), torch.where(edge, one, trials - count))
        outer = -trials * logsigmoid(torch.where(count == 0, -logits, logits))
        return 2 * torch.where(edge, outer, inside)
