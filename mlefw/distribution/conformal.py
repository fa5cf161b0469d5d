"""Distributions whose intervals and quantiles are conformal: held-out rows say how far into the tails they reach.

A conformity score is the mass of a tail that a held-out observation cuts off. With one part this is split conformal
prediction (Papadopoulos et al., 2002; Lei et al., 2018) on the probability integral transform, as in distributional
conformal prediction (Chernozhukov, Wüthrich & Zhu, 2021). With a part for each fold it is CV+ (Barber et al., 2021).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, is_discrete, survival, tail
from mlefw.distribution.crps import row_crps
from mlefw.distribution.far_quantile import from_above, from_below
from mlefw.distribution.precision import promote

Discrete = Literal["conservative", "randomised"]
"""The score of an observation with a probability of its own, such as a count (see `tails`)."""

NUDGE = 1e-9
"""Share by which a mass is made smaller before a quantile is taken, so that rounding never leaves out an observation
whose score equals the threshold, as happens often among counts."""

_LEAST = 1e-290
"""Mass of a tail below which no place in it is looked for."""

_INTEGER = 1e-9
"""Rounding that (n + 1) · level may have, such as 20 · 0.35, before it counts as beyond a whole number."""


def has_masses(density: Distribution) -> bool:
    """Whether single values have a probability: of counts, and of densities with an atom at their lower end."""
    return is_discrete(density) or getattr(density, "atom", None) is not None


def tails(density: Distribution, y: Tensor) -> tuple[Tensor, Tensor]:
    """P(Y <= y) and P(Y >= y), each (n,), to full relative precision in its own tail; they overlap at a mass."""
    below, above = promote(cdf(density, y)), promote(survival(density, y))
    if is_discrete(density):
        return below, promote(survival(density, y - 1))
    if (atom := getattr(density, "atom", None)) is not None:
        return below, torch.where(y <= atom, torch.ones_like(above), above)
    return below, above


class Scores:
    """The conformity scores of held-out rows: the masses of the tails that they cut off.

    Args:
        below: mass of the lower tail up to each observation, (n,).
        above: mass of the upper tail from each observation, (n,).
        count: how often each row occurs, (n,), whole numbers of at least 1.
    """

    def __init__(self, below: Tensor, above: Tensor, count: Tensor) -> None:
        self.below, self.above, self.count = below, above, count
        self.num = round(float(count.sum()))

    @cached_property
    def sorted(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name the sorted masses, (n,), with the number of rows up to each: `below`, `above`, and `central`.

        The last is the smaller of the two and ½: an observation lies in the interval between the quantiles at t and
        1 − t exactly if its `central` mass is at least t.
        """
        half = torch.full_like(self.below, 0.5)
        central = torch.minimum(torch.minimum(self.below, self.above), half)
        found = {}
        for name, mass in (("below", self.below), ("above", self.above), ("central", central)):
            order = mass.argsort()
            found[name] = mass[order], self.count[order].cumsum(0)
        return found

    def smallest(self, name: str, rank: int) -> float:
        """The mass of a rank from 1 among the rows, made smaller by `NUDGE`; 0 for rank 0, the largest beyond all."""
        mass, count = self.sorted[name]
        if rank < 1 or not len(mass):
            return 0.0
        place = int(torch.searchsorted(count, float(rank))) if rank <= self.num else len(mass) - 1
        return float(mass[place]) * (1 - NUDGE)

    def reached(self, name: str, mass: Tensor) -> Tensor:
        """The number of rows whose mass is at most that given, of the shape of `mass`."""
        known, count = self.sorted[name]
        upto = torch.searchsorted(known * (1 - NUDGE), mass.contiguous(), right=True)
        return torch.cat([count.new_zeros(1), count])[upto]


class Part(NamedTuple):
    """A density, and the scores that held-out rows have under the model that predicts it."""

    density: Distribution
    scores: Scores


class Conformal(Distribution):
    """A density with the intervals and quantiles of conformal prediction; all else is that of the density.

    - The central interval of level c lies between the quantiles at t and 1 − t, t being the m-th smallest central mass
      of the n scores, m = ⌊(1 − c)(n + 1)⌋. It covers a new observation with a probability of at least c.
    - The quantile at p < ½ is that at the m-th smallest lower mass, m = ⌊p (n + 1)⌋: an observation is below it with a
      probability of at most p. The quantile at p >= ½ has at most 1 − p above it in the same way.
    - For m = 0 there are too few rows for the promise, and the end is that of the support.

    Args:
        density: the predicted density or mass, of one number.
        parts: the model with its scores; of several folds the density and the scores of each.
        discrete: how observations with a probability of their own are scored.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, density: Distribution, parts: Sequence[Part], discrete: Discrete = "conservative") -> None:
        self.density, self.parts, self.discrete = density, tuple(parts), discrete
        self.num = sum(part.scores.num for part in parts)
        super().__init__(density.batch_shape, validate_args=False)

    def __getattr__(self, name: str) -> Any:
        """Parameters, and whatever else the density has."""
        if name.startswith("__") or "density" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.density, name)

    @property
    def support(self) -> Any:
        """The support of the density."""
        return self.density.support

    @property
    def mean(self) -> Tensor:
        """The mean of the density, (*batch,)."""
        return self.density.mean

    @property
    def variance(self) -> Tensor:
        """The variance of the density, (*batch,)."""
        return self.density.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, (*batch,), which the scores do not change."""
        return self.density.log_prob(value)

    def crps(self, y: Tensor) -> Tensor:
        """The CRPS of the density, (*batch,)."""
        return row_crps(self.density, y)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws from the density, (*sample_shape, *batch)."""
        return self.density.sample(sample_shape)

    def rank(self, share: float) -> int:
        """⌊share · (n + 1)⌋, the rank of the mass that at most this share of observations undercuts."""
        return int(share * (self.num + 1) + _INTEGER)

    def inside(self, y: Tensor, levels: Sequence[float]) -> Tensor:
        """Whether the central interval of each level contains y: 0 or 1, (number of levels, *batch).

        Of randomised scores of counts, it is the probability that the randomised score is inside.
        """
        if self.discrete == "randomised" and has_masses(self.density):
            return torch.stack([self._share(y, level) for level in levels])
        least = self._least(y)
        return torch.stack([(least >= self.rank(1 - level)).double() for level in levels])

    def central_level(self, y: Tensor) -> Tensor:
        """The level above which the central interval contains y, (*batch,), from 0 to n / (n + 1)."""
        return (self.num - self._least(y)) / (self.num + 1)

    def _least(self, y: Tensor) -> Tensor:
        """The number of scores that y reaches on the side on which it reaches fewer, (*batch,)."""
        counts = [torch.zeros_like(promote(y)) for _ in range(2)]
        for density, scores in self.parts:
            for side, mass in enumerate(tails(density, y)):
                counts[side] = counts[side] + scores.reached("central", mass)
        return torch.minimum(*counts)

    def _share(self, y: Tensor, level: float) -> Tensor:
        """The share of the interval [P(Y < y), P(Y <= y)] that lies between t and 1 − t, (*batch,)."""
        (part,) = self.parts
        t = part.scores.smallest("central", self.rank(1 - level))
        below, above = tails(part.density, y)
        mass = (below + above - 1).clamp(min=torch.finfo(below.dtype).tiny)
        cut = (t - (below - mass)).clamp(min=0) + (t - (above - mass)).clamp(min=0)
        return (1 - cut / mass).clamp(0, 1)

    def mass_beyond(self, p: float) -> float:
        """The mass of the tail of the density beyond the quantile at p, the lower tail for p < ½; of one part.

        0 where the quantile is the end of the support.
        """
        (part,) = self.parts
        name, share = ("above", 1 - p) if p >= 0.5 else ("below", p)
        return part.scores.smallest(name, self.rank(share))

    def end(self, name: str, rank: int, is_upper: bool) -> Tensor:
        """An end, (*batch,): the observation that cuts off the mass of this rank among the scores called `name`."""
        if rank < 1:
            return self._outermost(is_upper)
        take = from_above if is_upper else from_below
        if len(self.parts) == 1:
            mass = self.parts[0].scores.smallest(name, rank)
            return take(self.density, mass) if mass > 0 else self._outermost(is_upper)
        # At the outermost of these a fold alone reaches its share of the rank, and at the innermost all have all rows.
        share = -(-rank // len(self.parts))
        far = [take(part.density, max(part.scores.smallest(name, share), _LEAST)) for part in self.parts]
        near = [take(part.density, max(part.scores.smallest(name, part.scores.num), _LEAST)) for part in self.parts]
        outer, inner = torch.stack(far), torch.stack(near)
        outer, inner = (outer.amax(0), inner.amin(0)) if is_upper else (outer.amin(0), inner.amax(0))
        return self._between(outer, inner, name, rank, is_upper)

    def _between(self, outer: Tensor, inner: Tensor, name: str, rank: int, is_upper: bool) -> Tensor:
        """The outermost place between two at which the folds together reach a rank, by bisection."""

        def reached(y: Tensor) -> Tensor:
            sides = [scores.reached(name, tails(density, y)[is_upper]) for density, scores in self.parts]
            return torch.stack(sides).sum(0) >= rank

        discrete, at_outer = is_discrete(self.density), reached(outer)
        # A mass that underflows is as good as none: the end is then beyond every number that could be found.
        vanishes = any(part.scores.smallest(name, 1) < _LEAST for part in self.parts)
        beyond = self._outermost(is_upper) if vanishes else outer
        for _ in range(100):
            middle = (outer + inner) / 2
            middle = (middle.ceil() if is_upper else middle.floor()) if discrete else middle
            if bool(((middle == outer) | (middle == inner)).all()):
                break
            there = reached(middle)
            inner, outer = torch.where(there, middle, inner), torch.where(there, outer, middle)
        return torch.where(at_outer, beyond, inner)

    def _outermost(self, is_upper: bool) -> Tensor:
        bound = getattr(self.support, "upper_bound" if is_upper else "lower_bound", None)
        bound = (torch.inf if is_upper else -torch.inf) if bound is None else bound
        return torch.as_tensor(bound, dtype=torch.float64).expand_as(self.mean).clone()


def density_of(distribution: Distribution) -> Distribution:
    """The density below conformal intervals; any other distribution as it is."""
    return distribution.density if isinstance(distribution, Conformal) else distribution


@tail.register
def _(distribution: Conformal, y: Tensor, above: bool) -> Tensor:
    return tail(distribution.density, y, above)


@quantile.quantile.register
def _(distribution: Conformal, level: quantile.Level) -> Tensor:
    if isinstance(level, Tensor):
        found = torch.zeros_like(promote(distribution.mean)) + torch.zeros_like(level)
        for one in level.unique().tolist():
            found = torch.where(level == one, quantile.quantile(distribution, one), found)
        return found
    if level >= 0.5:
        return distribution.end("above", distribution.rank(1 - level), True)
    lower = distribution.end("below", distribution.rank(level), False)
    # Of masses the promises on either side of ½ overlap: none of the lower quantiles may lie above the median.
    return torch.minimum(lower, quantile.quantile(distribution, 0.5)) if has_masses(distribution.density) else lower


@quantile.interval.register
def _(distribution: Conformal, level: float) -> tuple[Tensor, Tensor]:
    rank = distribution.rank(1 - level)
    return distribution.end("central", rank, False), distribution.end("central", rank, True)
