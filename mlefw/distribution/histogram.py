"""A density that is constant in each of a number of bins, with exponential tails or without tails."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.constraints import Constraint
from torch.types import _size

from mlefw.distribution.cdf import tail
from mlefw.distribution.precision import promote
from mlefw.distribution.quantile import Level, quantile


class Histogram(Distribution):
    """Bin k, from edge k up to and without edge k + 1, with probability softmax(logits)_k, and a uniform density in it.

    With tails the first and the last bin have no outer edge: y falls off from their inner edge exponentially, with
    given mean distances. Without tails the last edge belongs to the last bin.

    Shapes: logits (*batch, num_bins); edges (num_bins + 1,), increasing; tails (2,), the mean distances from the second
    edge downwards and from the last but one upwards, or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, logits: Tensor, edges: Tensor, tails: Tensor | None = None) -> None:
        self.log_mass = _log_softmax(promote(logits))
        self.edges = edges.to(self.log_mass.dtype)
        self.tails = None if tails is None else tails.to(self.log_mass.dtype)
        super().__init__(logits.shape[:-1], validate_args=False)

    @property
    def support(self) -> Constraint:
        """All numbers, or those from the first to the last edge."""
        if self.tails is not None:
            return constraints.real
        return constraints.interval(float(self.edges[0]), float(self.edges[-1]))

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch,)."""
        return (self.log_mass.exp() * self._moments()[0]).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch,)."""
        middle, square = self._moments()
        return (self.log_mass.exp() * (square + (middle - self.mean.unsqueeze(-1)).square())).sum(-1)

    def bin_of(self, value: Tensor) -> Tensor:
        """The bin of each value, int64; a value on an edge is in the bin to its right."""
        return torch.bucketize(value.contiguous(), self.edges[1:-1], right=True)

    def log_within(self, value: Tensor) -> Tensor:
        """Log-density of each value within its bin, of which the mass in the bin is 1."""
        k = self.bin_of(value)
        found = -_at(self.edges.diff().log(), k)
        if self.tails is None:
            return torch.where((value >= self.edges[0]) & (value <= self.edges[-1]), found, -torch.inf)
        below, above = self._beyond(value, k)
        found = torch.where(k == 0, -self.tails[0].log() - below, found)
        return torch.where(k == len(self.edges) - 2, -self.tails[1].log() - above, found)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        return _at(self.log_mass, self.bin_of(value)) + self.log_within(value)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y), (*batch,)."""
        return tail(self, value, False)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles for probabilities in (0, 1), (*batch,)."""
        p = self.log_mass.exp()
        k = (p.cumsum(-1) < value.unsqueeze(-1)).sum(-1).clamp(max=p.shape[-1] - 1)
        mass = _at(p, k).clamp(min=torch.finfo(p.dtype).tiny)
        below = ((value - _at(_sums_below(p), k)) / mass).clamp(0, 1)
        found = _at(self.edges, k) + below * _at(self.edges.diff(), k)
        if self.tails is None:
            return found
        above = ((1 - value - _at(_sums_above(p), k)) / mass).clamp(0, 1)
        tiny = torch.finfo(p.dtype).tiny
        found = torch.where(k == 0, self.edges[1] + self.tails[0] * below.clamp(min=tiny).log(), found)
        last = self.edges[-2] - self.tails[1] * above.clamp(min=tiny).log()
        return torch.where(k == p.shape[-1] - 1, last, found)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion, (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.log_mass.dtype, device=self.log_mass.device)
        with torch.no_grad():
            return self.icdf(u.clamp(min=torch.finfo(u.dtype).tiny))

    def crps(self, y: Tensor) -> Tensor:
        """CRPS, (*batch,), in the unit of y: ∫ F² below y and ∫ (1 − F)² above it, bin by bin in closed form."""
        p, width, k = self.log_mass.exp(), self.edges.diff(), self.bin_of(y)
        below, above = _sums_below(p), _sums_above(p)
        lower = width / 3 * _squares(below, below + p)
        upper = width / 3 * _squares(above, above + p)
        if self.tails is not None:
            lower = torch.cat([p[..., :1].square() * self.tails[0] / 2, lower[..., 1:]], -1)
            upper = torch.cat([upper[..., :-1], p[..., -1:].square() * self.tails[1] / 2], -1)
        whole = _at(_sums_below(lower), k) + _at(_sums_above(upper), k)
        inside = y if self.tails is not None else y.clamp(self.edges[0], self.edges[-1])
        reached, rest = tail(self, inside, False), tail(self, inside, True)
        left = (inside - _at(self.edges, k)) / 3 * _squares(_at(below, k), reached)
        right = (_at(self.edges, k + 1) - inside) / 3 * _squares(_at(above, k), rest)
        part = left + right + (y - inside).abs()
        if self.tails is None:
            return whole + part
        first = _in_tail(self.edges[1] - y, self.tails[0], p[..., 0], reached)
        last = _in_tail(y - self.edges[-2], self.tails[1], p[..., -1], rest)
        return whole + torch.where(k == 0, first, torch.where(k == p.shape[-1] - 1, last, part))

    def _beyond(self, value: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Distances from the inner edges of the outer bins in units of their tails; 0 for values in other bins."""
        assert self.tails is not None
        below = torch.where(k == 0, self.edges[1] - value, 0.0) / self.tails[0]
        above = torch.where(k == len(self.edges) - 2, value - self.edges[-2], 0.0) / self.tails[1]
        return below, above

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of y in each bin, each (num_bins,)."""
        middle, square = (self.edges[1:] + self.edges[:-1]) / 2, self.edges.diff().square() / 12
        if self.tails is None:
            return middle, square
        ends = self.edges[1] - self.tails[0], self.edges[-2] + self.tails[1]
        middle = torch.cat([ends[0].reshape(1), middle[1:-1], ends[1].reshape(1)])
        return middle, torch.cat([self.tails[:1].square(), square[1:-1], self.tails[1:].square()])


@quantile.register
def _(distribution: Histogram, level: Level) -> Tensor:
    p = level if isinstance(level, Tensor) else distribution.log_mass.new_tensor(level)
    return distribution.icdf(p.expand(distribution.batch_shape))


@tail.register
def _(distribution: Histogram, y: Tensor, above: bool) -> Tensor:
    k, p, edges = distribution.bin_of(y), distribution.log_mass.exp(), distribution.edges
    share = (_at(edges, k + 1) - y if above else y - _at(edges, k)) / _at(edges.diff(), k)
    share = share.clamp(0, 1)
    if distribution.tails is not None:
        low, high = (torch.exp(-one) for one in distribution._beyond(y, k))
        share = torch.where(k == 0, 1 - low if above else low, share)
        share = torch.where(k == p.shape[-1] - 1, high if above else 1 - high, share)
    return _at(_sums_above(p) if above else _sums_below(p), k) + _at(p, k) * share


def _log_softmax(logits: Tensor) -> Tensor:
    """The logarithms of the masses, (*batch, num_bins), with full relative precision near a mass of one."""
    largest, index = logits.max(dim=-1, keepdim=True)
    others = (logits - largest).exp().scatter(-1, index, 0.0).sum(-1, keepdim=True)
    return logits - largest - torch.log1p(others)


def _in_tail(distance: Tensor, length: Tensor, mass: Tensor, rest: Tensor) -> Tensor:
    """The score's integral over an exponential tail of this mass, at a y that leaves `rest` of the mass beyond it."""
    return distance - 2 * length * (mass - rest) + length / 2 * (mass.square() - rest.square()) + length / 2 * rest**2


def _squares(start: Tensor, end: Tensor) -> Tensor:
    """Three times the mean square of a function that is linear between two values."""
    return start.square() + start * end + end.square()


def _sums_below(p: Tensor) -> Tensor:
    """Sums over the bins below each, (*batch, num_bins)."""
    return torch.cat([torch.zeros_like(p[..., :1]), p[..., :-1].cumsum(-1)], -1)


def _sums_above(p: Tensor) -> Tensor:
    """Sums over the bins above each, (*batch, num_bins)."""
    return _sums_below(p.flip(-1)).flip(-1)


def _at(values: Tensor, k: Tensor) -> Tensor:
    """The entry k, (*shape,), of values (*batch, num_bins), where the shapes of batches broadcast."""
    shape = torch.broadcast_shapes(values.shape[:-1], k.shape)
    index = k.expand(shape).unsqueeze(-1)
    return values.expand(*shape, values.shape[-1]).gather(-1, index).squeeze(-1)


@register_kl(Histogram, Histogram)  # type: ignore[untyped-decorator]
def _divergence(p: Histogram, q: Histogram) -> Tensor:
    """KL(p, q) of two distributions over the bins, (*batch,).

    Raises:
        NotImplementedError: the bins differ.
    """
    known = p.tails is None if q.tails is None else p.tails is not None and torch.equal(p.tails, q.tails)
    if not known or not torch.equal(p.edges, q.edges):
        raise NotImplementedError("the two histograms have different bins")
    return (p.log_mass.exp() * (p.log_mass - q.log_mass)).sum(-1)
