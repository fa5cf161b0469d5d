"""The zero-inflated heads: counts with more zeros than a Poisson or negative binomial explains."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.cdf import tail
from mlefw.distribution.crps import crps
from mlefw.distribution.link import SHARE
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start
from mlefw.head.negative_binomial import NegativeBinomial
from mlefw.head.poisson import LogPoisson

_INFLATION = Limit("inflation", -6.0, "there are no more zeros than without inflation, whose head is the limit")


class ZeroInflated(Distribution):
    """Zero with probability sigmoid(logits), else a draw from a distribution of counts.

    Shapes: logits, and the batch shape of counts, (*batch,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.nonnegative_integer

    def __init__(self, counts: Distribution, logits: Tensor) -> None:
        self.counts, self.logits = counts, logits
        super().__init__(counts.batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return (-self.logits).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        return (-self.logits).sigmoid() * (self.counts.variance + self.logits.sigmoid() * self.counts.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        zero, counted = value == 0, self.counts.log_prob(value)
        none = torch.where(zero, counted, torch.full_like(counted, -1.0))
        # A mass of zero near one is one minus its complement, which has all its digits.
        other = (-self.logits).sigmoid() * -torch.expm1(none)
        likely = other < 0.5
        near = torch.log1p(-torch.where(likely, other, torch.zeros_like(other)))
        far = torch.logaddexp(logsigmoid(self.logits), logsigmoid(-self.logits) + none)
        return torch.where(zero, torch.where(likely, near, far), logsigmoid(-self.logits) + counted)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        drawn = self.counts.sample(sample_shape)
        return torch.where(torch.rand_like(drawn) < self.logits.sigmoid(), torch.zeros_like(drawn), drawn)


@tail.register
def _(distribution: ZeroInflated, y: Tensor, above: bool) -> Tensor:
    counted = (-distribution.logits).sigmoid() * tail(distribution.counts, y, above)
    # The additional zeros are above every y below 0, and below or at every other one.
    return torch.where((y < 0) == above, counted + distribution.logits.sigmoid(), counted)


@crps.register
def _(distribution: ZeroInflated, y: Tensor) -> Tensor:
    """CRPS from that of the counts X, for which E|X − X'| / 2 = E X − CRPS(X, 0)."""
    counts, zero, counted = distribution.counts, distribution.logits.sigmoid(), (-distribution.logits).sigmoid()
    half = counts.mean - crps(counts, torch.zeros_like(y))
    return zero * y + counted * (crps(counts, y) + half - zero * counts.mean - counted * half)


class ZeroInflatedPoissonHead(FactorizedHead):
    """Poisson counts with extra zeros from a separate cause: no claim made, no trip taken, a machine switched off.

    Choose it over `poisson` where the metric `zeros_observed` exceeds `zeros_expected`, and over `negative_binomial`
    where the counts above zero are not overdispersed. The likelihood can have several maxima.

    Domain: y in {0, 1, 2, …}.
    Link: rate = exp(eta_1) of the counts, a log exposure is an offset of eta; inflation π = sigmoid(eta_2)
        (`zero=logit`; also probit, cloglog, loglog and cauchit).
    NLL: −log(π + (1 − π) exp(−rate)) at 0, else −log(1 − π) + rate − y eta_1 + lgamma(y + 1).

    Source: Lambert (1992).
    """

    lone = True
    also_known_as: ClassVar = "zero-inflated Poisson (ZIP) regression"
    second_part: ClassVar = "inflation"
    zero: str = "logit"
    inverse_links: ClassVar = {"rate": inverse_link.exp, "inflation": inverse_link.sigmoid}
    support = constraints.nonnegative_integer
    limits: ClassVar = (_INFLATION,)

    def __init__(self, inflation: ParameterSource = "shared", start: Start = "null", zero: str = "logit") -> None:
        super().__init__(rate="predicted", inflation=inflation, start=start)
        self.zero = _checked(zero)

    def inverse_link_of(self, name: str) -> Transform:
        """The map of eta to the inflation that `zero` names; else that of the parameter."""
        return _inverse(self.zero) if name == "inflation" else super().inverse_link_of(name)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough rate and inflation by the method of moments."""
        mean = max(mean, 1e-6)
        rate = min(max(mean, spread**2 / mean + mean - 1), 20 * mean)
        return {"rate": rate, "inflation": min(max(1 - mean / rate, 0.02), 0.95)}

    def distribution(self, eta: Tensor) -> ZeroInflated:
        """The zero-inflated Poisson distribution for a complete eta, without forming the parameters first."""
        return ZeroInflated(LogPoisson(eta[..., 0]), _inflation_logits(self, eta))

    def build(self, rate: Tensor, inflation: Tensor) -> ZeroInflated:  # type: ignore[override]
        """The zero-inflated Poisson distribution with this rate and inflation."""
        return ZeroInflated(LogPoisson(rate.log()), inverse_link.sigmoid.inv(inflation).expand_as(rate))


class ZeroInflatedNegativeBinomialHead(FactorizedHead):
    """Negative binomial counts with extra zeros from a separate cause.

    Choose it where neither `zero_inflated_poisson` nor `negative_binomial` fits. Inflation and dispersion both explain
    zeros, so it takes many rows to tell them apart.

    Domain: y in {0, 1, 2, …}.
    Link: mean = exp(eta_1) of the counts; dispersion α = exp(eta_2); inflation π = sigmoid(eta_3)
        (`zero=logit`; also probit, cloglog, loglog and cauchit).
    NLL: −log(π + (1 − π) f(0)) at 0, else −log(1 − π) − log f(y), f being the mass of `negative_binomial`.

    Source: Greene (1994).
    """

    lone = True
    also_known_as: ClassVar = "zero-inflated negative binomial (ZINB) regression"
    second_part: ClassVar = "inflation"
    zero: str = "logit"
    inverse_links: ClassVar = {
        "mean": inverse_link.exp,
        "dispersion": inverse_link.exp,
        "inflation": inverse_link.sigmoid,
    }
    support = constraints.nonnegative_integer
    limits: ClassVar = (
        Limit("dispersion", -6.0, "the counts vary no more than a Poisson: head=zero_inflated_poisson is the limit"),
        _INFLATION,
    )

    def __init__(
        self,
        dispersion: ParameterSource = "shared",
        inflation: ParameterSource = "shared",
        start: Start = "null",
        zero: str = "logit",
    ) -> None:
        super().__init__(mean="predicted", dispersion=dispersion, inflation=inflation, start=start)
        self.zero = _checked(zero)

    def inverse_link_of(self, name: str) -> Transform:
        """The map of eta to the inflation that `zero` names; else that of the parameter."""
        return _inverse(self.zero) if name == "inflation" else super().inverse_link_of(name)

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough parameters: an inflation of 0.2, and a dispersion by the method of moments."""
        mean = max(mean, 1e-6)
        return {"mean": 1.2 * mean, "dispersion": min(max((spread**2 - mean) / mean**2, 0.1), 10.0), "inflation": 0.2}

    def distribution(self, eta: Tensor) -> ZeroInflated:
        """The zero-inflated negative binomial distribution for a complete eta."""
        log_dispersion = self.params(eta)["dispersion"].log().expand(eta.shape[:-1])
        if "dispersion" not in self.fixed:
            log_dispersion = eta[..., (self.eta_names + self.shared_names).index("dispersion")]
        return ZeroInflated(NegativeBinomial(eta[..., 0], log_dispersion), _inflation_logits(self, eta))

    def build(self, mean: Tensor, dispersion: Tensor, inflation: Tensor) -> ZeroInflated:  # type: ignore[override]
        """The zero-inflated negative binomial distribution with this mean, dispersion and inflation."""
        counts = NegativeBinomial(mean.log(), dispersion.log().expand_as(mean))
        return ZeroInflated(counts, inverse_link.sigmoid.inv(inflation).expand_as(mean))


def _checked(zero: str) -> str:
    """The name of a link of the inflation.

    Raises:
        UsageError: there is no such link.
    """
    if zero not in SHARE:
        raise UsageError(f"head.zero={zero!r}: expected one of {', '.join(SHARE)}")
    return zero


def _inverse(zero: str) -> Transform:
    return inverse_link.sigmoid if zero == "logit" else SHARE[zero]


def _inflation_logits(head: "ZeroInflatedPoissonHead | ZeroInflatedNegativeBinomialHead", eta: Tensor) -> Tensor:
    if "inflation" in head.fixed:
        return inverse_link.sigmoid.inv(eta.new_tensor(head.fixed["inflation"])).expand(eta.shape[:-1])
    return SHARE[head.zero].log_odds(eta[..., (head.eta_names + head.shared_names).index("inflation")])
