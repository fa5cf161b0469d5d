"""The beta head: shares between zero and one."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.link import SHARE
from mlefw.distribution.parameter import ParameterSource
from mlefw.distribution.special import stirling_error
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_FAR, _TINY = 300.0, 1e-150
"""Exponent and shape beyond which a product of the two may overflow or underflow."""


class OpenUnitInterval(Constraint):
    """0 < y < 1."""

    lower_bound, upper_bound = 0.0, 1.0

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies inside, elementwise."""
        return (value > 0) & (value < 1)

    def __repr__(self) -> str:
        """The words that error messages use."""
        return "numbers between 0 and 1, neither of the two included"


class Beta(TorchBeta):
    """Beta distribution by the logit of its mean and its precision, with a log-density free of cancellation.

    Shapes: logit_mean, precision (*batch,).
    """

    def __init__(self, logit_mean: Tensor, precision: Tensor) -> None:
        self.logit_mean, self.precision = logit_mean, precision
        super().__init__(precision * logit_mean.sigmoid(), precision * (-logit_mean).sigmoid(), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return self.logit_mean.sigmoid()

    @property
    def variance(self) -> Tensor:
        """The variance mean (1 − mean) / (1 + precision), (*batch,)."""
        return self.logit_mean.sigmoid() * (-self.logit_mean).sigmoid() / (1 + self.precision)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,): a normaliser in Stirling's form, and precision times a divergence."""
        log_mean, log_rest = logsigmoid(self.logit_mean), logsigmoid(-self.logit_mean)
        log_y, log_other = value.log(), torch.log1p(-value)
        d, e = log_y - log_mean, log_other - log_rest
        log_phi = self.precision.log()
        divergence = _divergence(self.concentration1, d, self.precision * value)
        divergence = divergence + _divergence(self.concentration0, e, self.precision * (1 - value))
        errors = _error(self.concentration1, log_phi + log_mean) + _error(self.concentration0, log_phi + log_rest)
        normaliser = errors - stirling_error(self.precision) + 0.5 * math.log(2 * math.pi)
        return 0.5 * (log_phi + log_mean + log_rest) - normaliser - divergence - log_y - log_other

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        return drawn(self.concentration1, self.concentration0, sample_shape)


def drawn(a: Tensor, b: Tensor, sample_shape: _size) -> Tensor:
    """Draws of beta variables with shapes a and b, (*batch,): (*sample_shape, *batch).

    They are shares of two gamma variables, and the numbers that torch's own draws are; of those torch would read a
    value for each call from the device.
    """
    shapes = torch.stack([a, b], -1)
    gamma = torch._standard_gamma(shapes.expand(*sample_shape, *shapes.shape).contiguous())
    tiny = torch.finfo(gamma.dtype).tiny
    first, second = gamma.clamp(min=tiny).unbind(-1)
    return (first / (first + second)).clamp(tiny, 1 - torch.finfo(gamma.dtype).eps / 2)


def _divergence(a: Tensor, d: Tensor, reached: Tensor) -> Tensor:
    """The product a (exp(d) − 1 − d), of which a exp(d) is `reached`, also where a underflows and exp(d) overflows."""
    far = d > _FAR
    near = torch.where(far, torch.zeros_like(d), d)
    return torch.where(far, reached - a * (1 + d), a * (torch.expm1(near) - near))


def _error(a: Tensor, log_a: Tensor) -> Tensor:
    """The error of Stirling's formula for lgamma(a), which is −log a where a is nearly zero, from a and log a."""
    tiny = a < _TINY
    known = stirling_error(torch.where(tiny, torch.ones_like(a), a))
    return torch.where(tiny, -0.5 * log_a - 0.5 * math.log(2 * math.pi), known)


class BetaHead(FactorizedHead):
    """Shares that are neither 0 nor 1: rates, proportions of area, scores on a bounded scale.

    Choose it over `gaussian` where the target is bounded on both sides and its spread falls towards the ends. For
    shares that are counts out of a known total, give the counts to `bernoulli`, one row for each outcome with its
    number as weight.

    Domain: 0 < y < 1.
    Link: mean = sigmoid(eta_1), or by `link` Φ(eta_1) (probit), 1 − exp(−exp(eta_1)) (cloglog), exp(−exp(−eta_1))
        (loglog) or ½ + atan(eta_1) / π (cauchit); precision φ = exp(eta_2); variance = mean (1 − mean) / (1 + φ).
    NLL: lgamma(a) + lgamma(b) − lgamma(φ) − (a − 1) log y − (b − 1) log(1 − y), a = mean φ, b = (1 − mean) φ.

    Source: Ferrari & Cribari-Neto (2004).
    """

    also_known_as: ClassVar = "beta regression"
    inverse_links: ClassVar = {"mean": inverse_link.sigmoid, "precision": inverse_link.exp}
    links: ClassVar = SHARE
    sharpening: ClassVar = frozenset({"precision"})
    support = OpenUnitInterval()
    outside: ClassVar = (
        "rows at exactly 0 or 1 have no density: give them a model of their own (head=bernoulli), "
        "or move them inside, (y (n - 1) + 1/2) / n (Smithson & Verkuilen, 2006)"
    )

    def __init__(self, precision: ParameterSource = "shared", start: Start = "null", link: str = "logit") -> None:
        super().__init__(mean="predicted", precision=precision, start=start, link=link)
        self.lone = SHARE[link].log_concave

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough mean and precision by the method of moments."""
        most = mean * (1 - mean)
        return {"mean": mean, "precision": min(max(most / max(spread**2, 1e-6 * most) - 1, 0.1), 1e4)}

    def distribution(self, eta: Tensor) -> Beta:
        """The beta distribution for a complete eta, without forming the mean first."""
        return Beta(SHARE[self.link_name].log_odds(eta[..., 0]), self.params(eta)["precision"].expand(eta.shape[:-1]))

    def build(self, mean: Tensor, precision: Tensor) -> Beta:  # type: ignore[override]
        """The beta distribution with this mean and precision."""
        return Beta(inverse_link.sigmoid.inv(mean), precision.expand_as(mean))

    def information(self, eta: Tensor) -> Tensor:
        """The expected information in (eta_1, log precision), by trigamma functions."""
        here = self.distribution(eta)
        m, rest, phi = here.mean, (-here.logit_mean).sigmoid(), here.precision
        first, second = (torch.special.polygamma(1, a) for a in (here.concentration1, here.concentration0))
        located = (phi * m * rest).square() * (first + second)
        both = phi.square() * m * rest * (m * first - rest * second)
        spread = phi.square() * (m.square() * first + rest.square() * second - torch.special.polygamma(1, phi))
        slope = SHARE[self.link_name].log_slope(eta[..., 0], here.logit_mean).exp()
        located, both = slope.square() * located, slope * both
        whole = torch.stack([torch.stack([located, both], -1), torch.stack([both, spread], -1)], -1)
        return whole[..., : eta.shape[-1], : eta.shape[-1]]
