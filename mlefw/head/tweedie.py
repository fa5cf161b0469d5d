"""The Tweedie head: numbers that are often exactly zero, and positive otherwise."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.awaited import awaited
from mlefw.distribution.cdf import tail
from mlefw.distribution.incomplete import gammainc, gammaincc
from mlefw.distribution.parameter import Limit, ParameterSource
from mlefw.distribution.quadrature import segment
from mlefw.distribution.quantile import Level, quantile
from mlefw.distribution.special import expm1_rest
from mlefw.distribution.tweedie_series import log_series
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start

_NODES, _WIDE = 64, 7.0
"""Numbers of events on either side of the mean that are summed, and their standard deviation up to which each is."""
_SHAPE, _FEW, _MANY = 15.0, 192, 768
"""Shape of the gamma variables above which E |Y − Y'| takes many nodes rather than few."""
_STEPS, _ENOUGH = 80, 1e-9
"""Most steps of the search for a quantile, and the change of its logarithm at which Newton's method has all digits."""


class Tweedie(Distribution):
    """A Poisson number of gamma variables: variance = dispersion · mean^power, 1 < power < 2; all are (*batch,).

    It has a probability at 0 and a density above.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_mean": constraints.real, "dispersion": constraints.positive}
    support = constraints.nonnegative
    atom = 0.0
    """The value that has a probability rather than a density."""

    def __init__(self, log_mean: Tensor, dispersion: Tensor, power: Tensor) -> None:
        self.log_mean, self.dispersion, self.power = log_mean, dispersion, power
        super().__init__(log_mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean exp(log_mean), (*batch,)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance dispersion · mean^power, (*batch,)."""
        return self.dispersion * (self.power * self.log_mean).exp()

    @property
    def rate(self) -> Tensor:
        """Expected number of gamma variables, −log P(Y = 0), (*batch,)."""
        left = 2 - self.power
        return (left * self.log_mean).exp() / (self.dispersion * left)

    @property
    def alpha(self) -> Tensor:
        """The shape of each gamma variable, (*batch,)."""
        return (2 - self.power) / (self.power - 1)

    @property
    def scale(self) -> Tensor:
        """The scale of the gamma variables, (*batch,)."""
        return self.dispersion * (self.power - 1) * ((self.power - 1) * self.log_mean).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density above zero, and the logarithm of the probability of zero, (*batch,)."""
        some = value > 0
        y = torch.where(some, value, torch.ones_like(value))
        left, log_y = 2 - self.power, y.log()
        # A zero has no such sum; the series is computed where it is asked for.
        log_peak = torch.where(some, left * log_y - self.dispersion.log() - left.log(), -math.inf)
        constant = 0.5 * self.alpha.log() - math.log(2 * math.pi) - log_y
        divergence = half_deviance(self.log_mean, self.power, y) / self.dispersion
        return torch.where(some, constant + log_series(log_peak, self.alpha) - divergence, -self.rate)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y: E |Y − y| − ½ E |Y − Y'|; E |Y − y| by the number of gamma variables."""
        inside = y.clamp(min=0)
        share, shape, x = _terms(self, inside)
        below = (share * gammainc(shape, x)).sum(0) + torch.exp(-self.rate)
        part = self.scale * (share * shape * gammainc(shape + 1, x)).sum(0)
        apart = inside * (2 * below - 1) + self.mean - 2 * part
        return apart + (inside - y) - 0.5 * self.scale * _mean_difference(self.rate, self.alpha)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch)."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            count = torch.poisson(self.rate.expand(shape))
            total = torch._standard_gamma((count * self.alpha).clamp(min=torch.finfo(count.dtype).tiny))
            return torch.where(count > 0, total * self.scale, torch.zeros_like(total))


def half_deviance(log_mean: Tensor, power: Tensor, y: Tensor) -> Tensor:
    """Half the unit deviance of y > 0, without cancellation near the mean, (*batch,)."""
    a = 2 - power
    ratio = y.log() - log_mean
    # exp(a t) − a exp(t) + a − 1 in a form whose two terms are of the size of their difference.
    rest = expm1_rest(a * ratio) - a * expm1_rest(ratio)
    return (a * log_mean).exp() * rest / (a * (a - 1))


def _positive_part(distribution: Tweedie, y: Tensor, above: bool) -> Tensor:
    """P(Y > y), or P(0 < Y <= y), for y >= 0: a sum over the number of gamma variables, (*batch,)."""
    share, shape, x = _terms(distribution, y)
    return (share * (gammaincc if above else gammainc)(shape, x)).sum(0)


def _terms(distribution: Tweedie, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of numbers of gamma variables, the shapes of their sums, and y in units of the scale."""
    rate, alpha = distribution.rate, distribution.alpha
    # Where the number varies widely every few are taken, as a trapezoidal rule.
    step = (rate.sqrt() / _WIDE).clamp(min=1.0)
    first = torch.where(step > 1, rate - _NODES * step, (rate.round() - _NODES).clamp(min=1.0))
    # For small rates few numbers have a probability, and most of the time goes into incomplete gamma functions.
    most = (
        int((rate + 9 * rate.sqrt() + 16).detach().max())
        if _is_read(rate) and bool((first == 1).all())
        else 2 * _NODES + 1
    )
    node = torch.arange(min(most, 2 * _NODES + 1), dtype=rate.dtype, device=rate.device)
    count = first + node.reshape(-1, *[1] * max(rate.ndim, y.ndim)) * step
    share = torch.exp(count * rate.log() - rate - torch.lgamma(count + 1)) * step * (count > 0.5)
    x = y / distribution.scale
    return share, torch.maximum(count * alpha, 1e-3 * alpha.detach()), x


def _is_read(value: Tensor) -> bool:
    """Whether values may say how many terms are needed: another device than the CPU would have to be waited for."""
    return bool(value.numel()) and value.device.type == "cpu"


def _mean_difference(rate: Tensor, alpha: Tensor) -> Tensor:
    """E |Y − Y'| of two draws in units of the scale of the gamma variables, (*batch,).

    Y − Y' has the characteristic function exp(−2 rate (1 − Re (1 − it)^(−alpha))), and E |Z| is (2 / π) times the
    integral of (1 − that) / t² over t > 0; here t = tan θ.
    """

    def integrand(theta: Tensor) -> Tensor:
        sine = theta.sin()
        # At the end a power of zero has a derivative in the shape all the same.
        fall = -torch.expm1(0.5 * alpha * torch.log1p(-sine.square()).clamp(min=-700.0))
        turned = fall + (1 - fall) * 2 * (0.5 * alpha * theta).sin().square()
        return -torch.expm1(-2 * rate * turned) / sine.square()

    # Powers of sums of large shapes oscillate before they vanish.
    num_nodes = _FEW if _is_read(alpha) and not bool((alpha > _SHAPE).any()) else _MANY
    ends = torch.zeros_like(rate)
    return 2 / math.pi * segment(integrand, ends + math.pi / 2, ends, num_nodes=num_nodes)


@tail.register
def _(distribution: Tweedie, y: Tensor, above: bool) -> Tensor:
    inside = _positive_part(distribution, y.clamp(min=0), above)
    inside = inside if above else inside + torch.exp(-distribution.rate)
    return torch.where(y < 0, torch.full_like(inside, float(above)), inside)


@quantile.register
def _(distribution: Tweedie, level: Level) -> Tensor:
    left = level - torch.exp(-distribution.rate)
    some = left > 0
    goal = torch.where(some, left, torch.full_like(left, 0.5)).log()
    # Near zero P(0 < Y <= y) is a power of y: Newton's method in logarithms, kept inside a bracket, takes few steps.
    low = torch.full_like(goal, -700.0)
    high = (distribution.mean + distribution.stddev * (1 - torch.as_tensor(level, dtype=goal.dtype)).rsqrt()).log()
    at = torch.minimum(distribution.log_mean, high)
    for _ in range(_STEPS):
        y = at.exp()
        mass = _positive_part(distribution, y, False)
        error = goal - mass.log()
        low, high = torch.where(error > 0, at, low), torch.where(error > 0, high, at)
        step = error * mass * torch.exp(-distribution.log_prob(y) - at)
        there = at + step
        # A step at the end of the search may leave the bracket by its rounding error.
        ends = step.abs() < _ENOUGH
        at = torch.where(ends | ((there > low) & (there < high)), there, 0.5 * (low + high))
        if awaited(ends.all()):
            break
    return torch.where(some, at.exp(), torch.zeros_like(at))


class TweedieHead(FactorizedHead):
    """Numbers that are often exactly zero and otherwise positive: rainfall of a day, claims of a policy in a year.

    Choose it where a row is a total of a random number of positive amounts, so that more events and larger ones go
    together; where whether there is anything follows features of its own, a model of each. The mean is consistent
    whatever the distribution; it hardly depends on the power.

    A power of 1 is the Poisson distribution, 2 the gamma distribution; it is kept between 1.01 and 1.99, because near 1
    the likelihood of numbers on a lattice is unbounded.

    Domain: y >= 0.
    Link: mean = exp(eta_1), a log exposure is an offset of eta, or by `link` eta_1 (identity) and the like, for which
        eta_1 has to be positive; dispersion φ = max(exp(eta_2), floor), variance = φ mean^power; power = 1.01 + 0.98
        sigmoid(eta_3). The floor is a relative spread of `scale_floor` at the mean of y.
    NLL: λ at 0, λ = mean^(2 − power) / (φ (2 − power)); above, minus the logarithm of Σ_j Poisson(j; λ) · gamma(y; j α,
        scale), α = (2 − power) / (power − 1), scale = φ (power − 1) mean^(power − 1).

    Source: Jørgensen (1987); Dunn & Smyth (2005).
    """

    also_known_as: ClassVar = "Tweedie deviance; compound Poisson–gamma regression"
    inverse_links: ClassVar = {
        "mean": inverse_link.exp,
        "dispersion": inverse_link.exp,
        "power": inverse_link.between_one_and_two,
    }
    links: ClassVar = inverse_link.POSITIVE
    collapsible: ClassVar = frozenset({"dispersion"})
    support = constraints.nonnegative
    outside: ClassVar = "amounts below zero are returns or errors: leave them out, or choose head=gaussian"
    limits: ClassVar = (
        Limit("power", -6.0, "the power goes to its least value, 1.01: amounts lie on a lattice, as counts do"),
        Limit("power", 6.0, "the power goes to its greatest value, 1.99: the gamma model (head=gamma) is near"),
    )

    def __init__(
        self,
        power: ParameterSource = 1.5,
        dispersion: ParameterSource = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
        link: str = "log",
    ) -> None:
        if not isinstance(power, str) and not 1.01 <= power <= 1.99:
            raise UsageError(f"head.power={power}: expected a number from 1.01 to 1.99, 'predicted' or 'shared'")
        super().__init__(
            mean="predicted", dispersion=dispersion, power=power, scale_floor=scale_floor, start=start, link=link
        )
        # Sums of exponentials of a log mean.
        self.convex = link == "log" and not isinstance(dispersion, str) and not isinstance(power, str)
        self.lone = link == "log"

    def set_units(self, mean: float, spread: float) -> None:
        """Set the floor and the center of the dispersion, whose unit depends on that of y, from moments of y."""
        self._set_power_units(mean, spread if spread > 0 else mean or 1.0)
        if "dispersion" in self.fixed:
            return
        power = self.fixed.get("power", 1.5)
        self.floor.fill_(self.scale_floor**2 * (mean or 1.0) ** (2 - power))
        column = (self.eta_names + self.shared_names).index("dispersion")
        self.center[column] = math.log(self.rough(mean, spread)["dispersion"])

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough mean and dispersion by the method of moments, for a power of 1.5 if it is learnt."""
        mean, power = max(mean, 1e-6), self.fixed.get("power", 1.5)
        relative = min(max((spread / mean) ** 2, 1e-3), 100.0)
        return {"mean": mean, "dispersion": relative * mean ** (2 - power), "power": power}

    def distribution(self, eta: Tensor) -> Tweedie:
        """The Tweedie distribution for a complete eta, without forming the mean first."""
        params, shape = self.params(eta), eta.shape[:-1]
        log_mean = inverse_link.log_of(self.first_link, eta[..., 0])
        return Tweedie(log_mean, params["dispersion"].expand(shape), params["power"].expand(shape))

    def build(self, mean: Tensor, dispersion: Tensor, power: Tensor) -> Tweedie:  # type: ignore[override]
        """The Tweedie distribution with this mean, dispersion and power."""
        return Tweedie(mean.log(), dispersion.expand_as(mean), power.expand_as(mean))

    def fitted_between(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first eta at which the density of y is centred, as both ends: for y = 0, that of a mean of zero."""
        if "dispersion" in self.fixed:
            return None
        eta = self.first_link.inv(y)
        return eta, eta

    def information(self, eta: Tensor) -> Tensor | None:
        """The expected information of a mean alone; None beside a learnt dispersion or power."""
        return None if eta.shape[-1] > 1 else self.information_of_mean(eta)[..., None, None]

    def information_of_mean(self, eta: Tensor) -> Tensor:
        """The expected information mean^(2 − power) / φ in log mean, times (d log mean / d eta)², (*batch,)."""
        here, log_slope = self.distribution(eta), inverse_link.log_slope(self.first_link, eta[..., 0])
        return torch.exp((2 - here.power) * here.log_mean + 2 * log_slope) / here.dispersion

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor | None:
        """The unit deviance, divided by a fixed dispersion; None where the dispersion or the power is not given."""
        if "dispersion" in self.eta_names or "power" not in self.fixed:
            return None
        here = self.distribution(eta)
        counted = half_deviance(here.log_mean, here.power, torch.where(y > 0, y, torch.ones_like(y)))
        deviance = 2 * torch.where(y > 0, counted, here.rate * here.dispersion)
        return deviance if "dispersion" in self.shared_names else deviance / here.dispersion
