"""The beta-binomial head: successes out of trials that are alike within a row."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.awaited import awaited
from mlefw.distribution.cdf import tail
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.distribution.special import log_rising
from mlefw.head.beta import drawn
from mlefw.head.binomial import Binomial
from mlefw.head.head import Start
from mlefw.head.trials import TrialsHead

_BLOCK = 64
"""Most counts that are summed over at a time."""


class BetaBinomial(Distribution):
    """A binomial count whose probability has a beta distribution, by the logits of its mean and of the correlation.

    Shapes: trials, logits and logit_correlation (*batch,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, trials: Tensor, logits: Tensor, logit_correlation: Tensor) -> None:
        self.trials, self.logits, self.logit_correlation = torch.broadcast_tensors(trials, logits, logit_correlation)
        self.binomial = Binomial(self.trials, self.logits)
        super().__init__(self.logits.shape, validate_args=False)

    @property
    def support(self) -> Constraint:
        """The whole numbers from 0 to the number of trials."""
        return constraints.integer_interval(0, self.trials)

    @property
    def mean(self) -> Tensor:
        """The mean trials · m, (*batch,)."""
        return self.binomial.mean

    @property
    def variance(self) -> Tensor:
        """The variance trials · m (1 − m) (1 + (trials − 1) · correlation), (*batch,)."""
        return self.binomial.variance * (1 + (self.trials - 1) * self.logit_correlation.sigmoid())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,): that of the binomial distribution, and three sums that vanish with the correlation."""
        # With g = ρ / (1 − ρ) they are those of log(m + g j) − log m, log(1 − m + g j) − log(1 − m) and log(1 + g j).
        log_g, rest = self.logit_correlation, self.trials - value
        ones = log_rising(log_g - logsigmoid(self.logits), value)
        others = log_rising(log_g - logsigmoid(-self.logits), rest)
        return self.binomial.log_prob(value) + ones + others - log_rising(log_g, self.trials)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        precision = (-self.logit_correlation).clamp(max=50.0).exp()
        least = torch.finfo(precision.dtype).tiny
        a, b = ((precision * share.sigmoid()).clamp(min=least) for share in (self.logits, -self.logits))
        share = drawn(a, b, sample_shape)
        return torch.binomial(self.trials.expand_as(share).contiguous(), share)


@tail.register
def _(distribution: BetaBinomial, y: Tensor, above: bool) -> Tensor:
    trials = distribution.trials
    y = y.floor().clamp(min=-1).expand(torch.broadcast_shapes(y.shape, trials.shape))
    last = trials.expand_as(y) if above else torch.minimum(y, trials)
    total = torch.zeros_like(last)
    for k in _counts(last):
        inside = (k > y) & (k <= last) if above else k <= last
        total = total + torch.where(inside, distribution.log_prob(torch.minimum(k, trials)).exp(), 0.0).sum(0)
    return total


def _counts(last: Tensor) -> Iterator[Tensor]:
    """The counts from 0 to the largest of `last` (*batch,), in blocks (k, 1, …, 1)."""
    end = int(awaited(last.max())) + 1 if last.numel() else 0
    for start in range(0, end, _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, end), dtype=last.dtype, device=last.device)
        yield block.view(-1, *(1 for _ in last.shape))


class BetaBinomialHead(TrialsHead):
    """Successes out of trials that are alike within a row: pups of a litter, answers of a class, seeds of a plant.

    Choose it over `binomial` where the metric `dispersion` is above one. The binomial distribution is its limit as the
    correlation goes to zero. The column data.trials holds the number of trials, or `trials` is that of every row.

    Domain: y in {0, 1, …, trials}.
    Link: mean m = sigmoid(eta_1), the expected share; correlation ρ of two trials of a row = sigmoid(eta_2);
        variance = trials m (1 − m) (1 + (trials − 1) ρ).
    NLL: −log C(trials, y) − Σ_{j<y} log(m + g j) − Σ_{j<trials−y} log(1 − m + g j) + Σ_{j<trials} log(1 + g j),
        g = ρ / (1 − ρ).

    Source: Skellam (1948); Prentice (1986).
    """

    lone = True
    also_known_as: ClassVar = "beta-binomial regression"
    inverse_links: ClassVar = {"mean": inverse_link.sigmoid, "correlation": inverse_link.sigmoid}
    limits: ClassVar = (
        Limit(
            "correlation",
            -9.0,
            "the counts vary no more than independent trials: the binomial model (head=binomial) is the limit",
            start=-6.0,
        ),
        Limit("correlation", 9.0, "all trials of a row end alike: head=bernoulli, a trial for each row, is the limit"),
    )

    def __init__(
        self, correlation: ParameterSource = "shared", trials: int | None = None, start: Start = "null"
    ) -> None:
        super().__init__(trials, start, mean="predicted", correlation=correlation)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """The mean share, and a correlation of 0.1."""
        return {"mean": min(max(mean, 1e-6), 1 - 1e-6), "correlation": 0.1}

    def distribution(self, eta: Tensor) -> Distribution:
        """The beta-binomial distribution for a complete eta, without forming mean and correlation first."""
        return self._of_logits(eta[..., 0], self._logit_correlation(eta))

    def build(self, mean: Tensor, correlation: Tensor) -> Distribution:  # type: ignore[override]
        """The beta-binomial distribution with this mean share and correlation."""
        logits, other = inverse_link.sigmoid.inv(mean), inverse_link.sigmoid.inv(correlation)
        return self._of_logits(logits, other.expand_as(mean))

    def information(self, eta: Tensor) -> Tensor | None:
        """The expected information, (*batch, columns, columns), a sum over all counts; None without `trials`."""
        if self.trials is None:
            return None
        return self._information(eta, eta.new_full(eta.shape[:-1], self.trials))

    def information_given(self, eta: Tensor, y: Tensor) -> Tensor:
        """The expected information given the numbers of trials of y, (*batch, columns, columns)."""
        return self._information(eta, self.parted(y)[1])

    def _logit_correlation(self, eta: Tensor) -> Tensor:
        if "correlation" in self.fixed:
            given = eta.new_tensor(self.fixed["correlation"])
            return inverse_link.sigmoid.inv(given).expand(eta.shape[:-1])
        return eta[..., 1]

    def _of_logits(self, logits: Tensor, logit_correlation: Tensor) -> Distribution:
        return self.counted(lambda trials: BetaBinomial(trials, logits, logit_correlation), logits)

    def _information(self, eta: Tensor, trials: Tensor) -> Tensor:
        """Σ over counts y of mass · score score'."""
        total = eta.new_zeros(*eta.shape, eta.shape[-1])
        for k in _counts(trials):
            count = torch.minimum(k, trials)
            with torch.enable_grad():
                leaf = eta.detach().expand(len(k), *eta.shape).requires_grad_()
                log_mass = BetaBinomial(trials, leaf[..., 0], self._logit_correlation(leaf)).log_prob(count)
                (score,) = torch.autograd.grad(log_mass.sum(), leaf)
            mass = torch.where(k <= trials, log_mass.detach().exp(), 0.0)
            total = total + torch.einsum("k...,k...i,k...j->...ij", mass, score, score)
        return total
