"""A distribution that is known by its quantiles at a few levels."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from mlefw.distribution.cdf import tail


class Quantiles(Distribution):
    """Quantiles at given levels: uniform between two of them, with an exponential tail on either side.

    The density of a tail is at the outermost quantile that of the interval beside it: with levels p, q, … from below
    the mean distance below the first quantile is p / (q − p) times its distance from the second. Columns that are not
    in order are sorted (Chernozhukov, Fernández-Val & Galichon, 2010), so that quantiles never cross.

    `log_prob` is not the log-density of this distribution, by which no quantile could be estimated, but the mean over
    the levels of the log-density of an asymmetric Laplace distribution, from the columns as they are.

    Shapes: loc and scale (*batch, num_levels), levels (num_levels,), increasing.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, loc: Tensor, scale: Tensor, levels: Sequence[float]) -> None:
        self.raw, self.raw_scale, self.levels = loc, scale, tuple(levels)
        self.at = loc.sort(-1).values
        self.p = torch.tensor(self.levels, dtype=loc.dtype, device=loc.device)
        self.width, self.mass = self.at.diff(), self.p.diff()
        # Quantiles may be equal; a tail then has no length.
        tiny = torch.finfo(loc.dtype).tiny ** 0.5
        self.below = (self.width[..., 0] * (self.p[0] / self.mass[0])).clamp(min=tiny)
        self.above = (self.width[..., -1] * ((1 - self.p[-1]) / self.mass[-1])).clamp(min=tiny)
        super().__init__(loc.shape[:-1], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        ends = self.p[0] * (self.at[..., 0] - self.below) + (1 - self.p[-1]) * (self.at[..., -1] + self.above)
        return ends + ((self.at[..., 1:] - self.width / 2) * self.mass).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        mean = self.mean
        inner = self.at[..., 1:] - self.width / 2 - mean.unsqueeze(-1)
        low, high = self.at[..., 0] - self.below - mean, self.at[..., -1] + self.above - mean
        ends = self.p[0] * (low.square() + self.below.square())
        ends = ends + (1 - self.p[-1]) * (high.square() + self.above.square())
        return ends + ((inner.square() + self.width.square() / 12) * self.mass).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The mean over the levels of log(level (1 − level) / scale) − ρ((y − loc) / scale), (*batch,)."""
        u = (value.unsqueeze(-1) - self.raw) / self.raw_scale
        loss = torch.maximum(self.p * u, (self.p - 1) * u)
        return ((self.p * (1 - self.p)).log() - self.raw_scale.log() - loss).mean(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1), (*batch,)."""
        share = ((value.unsqueeze(-1) - self.p[:-1]) / self.mass).clamp(0, 1)
        inner = self.at[..., 0] + (share * self.width).sum(-1)
        low, high = value / self.p[0], (1 - value) / (1 - self.p[-1])
        inner = inner + self.below * low.clamp(max=1).log()
        return inner - self.above * high.clamp(max=1).log()

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.at.dtype, device=self.at.device)
        with torch.no_grad():
            return self.icdf(u.clamp(min=torch.finfo(u.dtype).tiny))

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y: ∫ F² below y and ∫ (1 − F)² above it, piece by piece in closed form."""
        low, high = self.p[:-1], self.p[1:]
        middle = torch.minimum(torch.maximum(y.unsqueeze(-1), self.at[..., :-1]), self.at[..., 1:])
        left = middle - self.at[..., :-1]
        share = left / self.width.clamp(min=torch.finfo(self.at.dtype).tiny)
        reached = low + share * self.mass
        inner = left / 3 * _squares(low, reached) + (self.width - left) / 3 * _squares(1 - high, 1 - reached)
        first = _of_tail(torch.relu(self.at[..., 0] - y), self.below, self.p[0])
        return inner.sum(-1) + first + _of_tail(torch.relu(y - self.at[..., -1]), self.above, 1 - self.p[-1])


@tail.register
def _(distribution: Quantiles, y: Tensor, above: bool) -> Tensor:
    own = distribution
    inner = torch.minimum(torch.maximum(y.unsqueeze(-1), own.at[..., :-1]), own.at[..., 1:]) - own.at[..., :-1]
    equal = (y.unsqueeze(-1) >= own.at[..., 1:]).to(own.at.dtype)
    share = torch.where(own.width > 0, inner / torch.where(own.width > 0, own.width, 1.0), equal)
    low = own.p[0] * torch.exp(-torch.relu(own.at[..., 0] - y) / own.below)
    high = (1 - own.p[-1]) * torch.exp(-torch.relu(y - own.at[..., -1]) / own.above)
    if above:
        rest = high + ((1 - share) * own.mass).sum(-1) + (own.p[0] - low)
        return torch.where(y > own.at[..., -1], high, rest)
    whole = low + (share * own.mass).sum(-1) + (1 - own.p[-1] - high)
    return torch.where(y < own.at[..., 0], low, whole)


def _squares(start: Tensor, end: Tensor) -> Tensor:
    """Three times the mean square of a function that is linear between two values."""
    return start.square() + start * end + end.square()


def _of_tail(distance: Tensor, length: Tensor, mass: Tensor) -> Tensor:
    """The score's integral over an exponential tail of this mean length and mass, with y at a distance into it."""
    gone = torch.exp(-distance / length)
    return distance - 2 * mass * length * (1 - gone) + mass.square() * length / 2
