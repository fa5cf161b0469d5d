"""Links of a probability or share: from an unconstrained eta to log-odds, in which densities are computed.

A probability near 0 or 1 loses its digits; its log-odds have all of them in both tails.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid

from mlefw import inverse_link
from mlefw.distribution.special import log_normal_cdf

_FAR = 700.0
"""Exponent near which exp overflows in double precision (709)."""


class ShareLink(Transform):
    """The distribution function of a continuous variable, as a map from eta to a probability.

    Calling it forms the probability; `log_odds` keeps its digits.

    Attributes:
        log_concave: whether the density of the variable is log-concave, so that −log F and −log(1 − F) are convex.
        words: what eta is of a parameter, with `{}` for its name.
    """

    domain, codomain, bijective, sign = constraints.real, constraints.unit_interval, True, 1
    log_concave: bool = True
    words: str

    @abstractmethod
    def log_odds(self, x: Tensor) -> Tensor:
        """The logarithm of F(x) / (1 − F(x))."""

    @abstractmethod
    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        """The logarithm of d log-odds / d x; `log_odds` are those at x."""

    def _call(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.log_odds(x))


class _Logit(ShareLink):
    words = "logit {}"

    def log_odds(self, x: Tensor) -> Tensor:
        return x

    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log() - torch.log1p(-y)


class _Probit(ShareLink):
    """Φ, the standard normal distribution function."""

    words = "probit {}"

    def log_odds(self, x: Tensor) -> Tensor:
        return log_normal_cdf(x) - log_normal_cdf(-x)

    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        log_variance = logsigmoid(log_odds) + logsigmoid(-log_odds)
        return -0.5 * x.square() - 0.5 * math.log(2 * math.pi) - log_variance

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.special.ndtri(y)


class _ComplementaryLogLog(ShareLink):
    """1 − exp(−exp(x)), the probability of at least one event of a Poisson process; of least extreme values."""

    words = "complementary log-log {}"

    def log_odds(self, x: Tensor) -> Tensor:
        # log expm1(exp(x)). Both branches are evaluated: each is clamped so that its gradient is finite off its side.
        large, small = x.clamp(0.0, _FAR).exp(), x.clamp(-_FAR, 0.0).exp()
        high = large + torch.log1p(-torch.exp(-large))
        return torch.where(x > 0, high, x + torch.log(torch.expm1(small) / small))

    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        return x - logsigmoid(log_odds)

    def _inverse(self, y: Tensor) -> Tensor:
        return (-torch.log1p(-y)).log()


class _LogLog(ShareLink):
    """exp(−exp(−x)), the distribution function of greatest extreme values: `cloglog` of the opposite outcome."""

    words = "log-log {}"

    def log_odds(self, x: Tensor) -> Tensor:
        return -CLOGLOG.log_odds(-x)

    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        return -x - logsigmoid(-log_odds)

    def _inverse(self, y: Tensor) -> Tensor:
        return -(-y.log()).log()


class _Cauchit(ShareLink):
    """½ + atan(x) / π: heavy tails, so that a few outcomes against all odds cost little."""

    words, log_concave = "cauchit {}", False

    def log_odds(self, x: Tensor) -> Tensor:
        one = torch.ones_like(x)
        # The angle of (−x, 1) is π F(x), with all digits in both tails.
        return torch.atan2(one, -x).log() - torch.atan2(one, x).log()

    def log_slope(self, x: Tensor, log_odds: Tensor) -> Tensor:
        # |x| before it is squared, which could overflow.
        size = x.abs().clamp(min=1.0)
        square = 2 * size.log() + torch.log(size**-2 + (x / size).square())
        return -math.log(math.pi) - square - logsigmoid(log_odds) - logsigmoid(-log_odds)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.tan(math.pi * (y - 0.5))


CLOGLOG: ShareLink = _ComplementaryLogLog()
SHARE: Mapping[str, ShareLink] = {
    "logit": _Logit(),
    "probit": _Probit(),
    "cloglog": CLOGLOG,
    "loglog": _LogLog(),
    "cauchit": _Cauchit(),
}
"""Links of a probability or share by name (McCullagh & Nelder, 1989; Koenker & Yoon, 2009)."""


def log_odds_of(link: Transform, x: Tensor) -> Tensor:
    """The log-odds of the share that an inverse link makes of x."""
    return link.log_odds(x) if isinstance(link, ShareLink) else inverse_link.sigmoid.inv(link(x))
