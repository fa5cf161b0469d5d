"""The sum of a normal and a Laplace variate."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.special import erfcx

_ROOT = math.sqrt(0.5)
_STEPS = 60


class NormalLaplace(Distribution):
    """Distribution of loc + sd · Z + scale · L, Z standard normal and L standard Laplace (Reed, 2006).

    Shapes: loc, sd, scale (*batch,).
    """

    arg_constraints = {}  # noqa: RUF012 - torch declares it as a plain attribute
    support = constraints.real

    def __init__(self, loc: Tensor, sd: Tensor, scale: Tensor) -> None:
        self.loc, self.sd, self.scale = torch.broadcast_tensors(loc, sd.clamp(min=1e-9 * scale), scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, which is loc by symmetry, (*batch,)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance sd² + 2 scale², (*batch,)."""
        return self.sd.square() + 2 * self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,): the sum of two terms, each in a form that does not overflow."""
        t, a = self._standard(value)
        near, far = self._terms(t, a)
        return torch.logaddexp(near, far) - (4 * self.scale).log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value), (*batch,), to full relative precision in the lower tail."""
        t, a = self._standard(value)
        near, far = self._terms(t, a)
        beyond = 0.5 * torch.erfc(t * _ROOT) + (near.exp() - far.exp()) / 4
        return torch.where(value > self.loc, 1 - beyond, beyond)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile, (*batch,), by Newton's method on log F: as it is concave, at most one step overshoots."""
        lower = torch.minimum(value, 1 - value)
        below = torch.zeros_like(self.loc)
        unit = (self.variance / 2).sqrt()
        for _ in range(_STEPS):
            # The ratio of F and f at loc − below, from their logarithms, as both may underflow.
            log_cdf = self.cdf(self.loc - below).log()
            step = (log_cdf - lower.log()) * (log_cdf - self.log_prob(self.loc - below)).exp()
            below = torch.relu(below + step)
            if bool((step.abs() <= 1e-14 * (below + unit)).all()):
                break
        return self.loc + torch.where(value > 0.5, below, -below)

    def _standard(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return (value - self.loc).abs() / self.sd, self.sd / self.scale

    def _terms(self, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of exp(a²/2 − a t) erfc((a − t)/√2) and exp(a²/2 + a t) erfc((a + t)/√2), t >= 0."""
        normal, gap = -0.5 * t * t, (a - t) * _ROOT
        inside = gap > 0
        left = normal + erfcx(torch.where(inside, gap, torch.zeros_like(gap))).log()
        right = 0.5 * a * a - a * t + torch.erfc(torch.where(inside, torch.zeros_like(gap), gap)).log()
        return torch.where(inside, left, right), normal + erfcx((a + t) * _ROOT).log()
