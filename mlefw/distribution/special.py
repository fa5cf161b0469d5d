"""The logarithm of the normal distribution function, and incomplete gamma and beta functions with their inverses.

The incomplete functions are scipy's on the CPU where those are accurate, and by quadrature elsewhere: torch has no
incomplete beta function, and scipy's incomplete gamma function ends its series early in the tails of a large shape
(1.7 % off at 6 standard deviations for a shape of 1e7).

The quadrature is accurate to 1e-11 relative in the smaller tail for shapes from 0.001 to 1e14, with a fixed number of
nodes. It integrates the log-concave density of the logarithm (gamma) or logit (beta) outwards from the argument,
relative to the density at the argument, which is in saddle-point form (Loader, 2000).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlefw.distribution.quadrature import half_line

Array = NDArray[np.float64]


def log_normal_cdf(x: Tensor) -> Tensor:
    """The logarithm of the standard normal distribution function, with derivatives that are accurate far in the tail.

    The second derivative of torch.special.log_ndtr is off by half its size at −1e4.
    """
    left, right = x.clamp(max=0.0), x.clamp(min=0.0)
    root = math.sqrt(0.5)
    below = (0.5 * torch.special.erfcx(-root * left)).log() - 0.5 * left * left
    return torch.where(x < 0, below, torch.log1p(-0.5 * torch.erfc(root * right)))


_LARGE = 1e4
"""Shape above which scipy's incomplete gamma function is not used."""


def gammainc(a: Tensor, x: Tensor) -> Tensor:
    """Regularised lower incomplete gamma function P(a, x), float64.

    torch.special.gammainc is off by 1e-9 relative for a above 20.
    """
    return _of_gamma("gammainc", a, x)


def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function Q(a, x) = 1 − P(a, x), float64."""
    return _of_gamma("gammaincc", a, x)


def betainc(a: Tensor, b: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Regularised incomplete beta function I_x(a, b), float64; `other` is 1 − x, to full relative precision."""
    if x.device.type != "cpu":
        return beta_tails(a, b, x, other)[0]
    return _scipy("betainc", a, b, x, other)


def gammaincinv(a: Tensor, p: Tensor) -> Tensor:
    """The x with P(a, x) = p, float64."""
    return _of_gamma("gammaincinv", a, p)


def betaincinv(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """The x with I_x(a, b) = p, float64."""
    if p.device.type == "cpu":
        return _scipy("betaincinv", a, b, p)
    return _search(lambda s: beta_tails(a, b, s.sigmoid(), (-s).sigmoid())[0], p).sigmoid()


def t_quantile(df: Tensor, p: Tensor) -> Tensor:
    """The quantiles of Student's t, float64."""
    if p.device.type == "cpu":
        return _scipy("stdtrit", df, p)
    half, tail = torch.full_like(df, 0.5), 2 * torch.minimum(p, 1 - p)
    # The logit of x = 1 / (1 + u² / df): neither x nor its complement has all the digits everywhere.
    logit = _search(lambda s: beta_tails(df / 2, half, s.sigmoid(), (-s).sigmoid())[0], tail)
    return torch.sign(p - 0.5) * (df * (-logit).exp()).sqrt()


def gamma_tails(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """P(a, x) and Q(a, x) by quadrature, on any device."""
    a, x = torch.broadcast_tensors(a.double(), x.double())
    inside = x.clamp(torch.finfo(x.dtype).tiny, 1e300)
    # The density of the logarithm decays too slowly below a shape under 1: there use P(a, x) = P(a + 1, x) plus one
    # term, x^a exp(−x) / Γ(a + 1).
    slow = (a < 1) & (inside < 1)
    shape = torch.where(slow, a + 1, a)
    sign = torch.where(inside <= shape, -1.0, 1.0).to(x.dtype)
    scale = 1 / ((shape - inside).abs() + inside.sqrt())
    density = torch.exp(
        0.5 * torch.log(shape / (2 * math.pi))
        - shape * _deviance((inside - shape) / shape, inside / shape)
        - stirling_error(shape)
    )
    # The exponent sign · shape · t − x · expm1(sign · t), rearranged to avoid the cancellation of its two large terms.
    left = sign * (shape - inside)
    tail = density * half_line(lambda t: torch.exp(left * t - inside * expm1_rest(sign * t)), scale)
    tail = tail + torch.where(slow, density / shape * torch.exp(shape.log() - inside.log()), torch.zeros_like(tail))
    tail = torch.where(x <= 0, torch.zeros_like(tail), tail.clamp(max=1))
    return torch.where(sign < 0, tail, 1 - tail), torch.where(sign < 0, 1 - tail, tail)


def beta_tails(a: Tensor, b: Tensor, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """I_x(a, b) and its complement by quadrature, on any device; `other` is 1 − x."""
    a, b, x, other = torch.broadcast_tensors(a.double(), b.double(), x.double(), other.double())
    below = a * other <= b * x
    # The upper tail of Beta(a, b) at x is the lower tail of Beta(b, a) at 1 − x: always integrate downwards from the
    # argument, over the smaller tail.
    a, b = torch.where(below, b, a), torch.where(below, a, b)
    inner, outer = torch.where(below, other, x), torch.where(below, x, other)
    tiny = torch.finfo(x.dtype).tiny
    size, inside, rest = a + b, inner.clamp(min=tiny), outer.clamp(min=tiny)
    fall = a * rest - b * inside
    scale = 1 / (fall + (size * inside * rest).sqrt())
    deviance = a * _deviance(-fall / a, size * inside / a) + b * _deviance(fall / b, size * rest / b)
    normal = 0.5 * (torch.log(a / size) + torch.log(b / (2 * math.pi)))
    density = torch.exp(normal - deviance + stirling_error(size) - stirling_error(a) - stirling_error(b))
    # The exponent −a t − size · log1p(inside · expm1(−t)), written in the smaller of x and 1 − x (with b t in place of
    # −a t), and for small t rearranged to avoid the cancellation of its large terms.
    sign = torch.where(rest < inside, 1.0, -1.0).to(x.dtype)
    share, shape = torch.where(rest < inside, rest, inside), torch.where(rest < inside, b, -a)

    def integrand(t: Tensor) -> Tensor:
        near, moved = t.clamp(max=0.5), share * torch.expm1(sign * t.clamp(max=700.0))
        close = -fall * near - size * (share * expm1_rest(sign * near) - _log1p_rest(moved))
        return torch.exp(torch.where(t <= 0.5, close, shape * t - size * torch.log1p(moved)))

    tail = density * half_line(integrand, scale)
    tail = torch.where(inner <= 0, torch.zeros_like(tail), tail.clamp(max=1))
    return torch.where(below, 1 - tail, tail), torch.where(below, tail, 1 - tail)


def stirling_error(a: Tensor) -> Tensor:
    """The error of Stirling's formula, lgamma(a) − ((a − ½) log a − a + ½ log 2π), to 1e-15 absolute."""
    large = a.clamp(min=16.0)
    square = large * large
    terms = 1 / 1260 - (1 / 1680 - (1 / 1188 - 691 / 360360 / square) / square) / square
    series = (1 / 12 - (1 / 360 - terms / square) / square) / large
    small = a.clamp(max=16.0)
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    return torch.where(a < 16.0, direct, series)


def log_rising(log_step: Tensor, count: Tensor) -> Tensor:
    """Σ log(1 + c j) over j = 0, …, count − 1, for a step c = exp(log_step); zero as c goes to zero.

    With s = 1 / c it is lgamma(s + count) − lgamma(s) − count log s, in Stirling's form, free of cancellation.
    """
    some = count > 1
    k = torch.where(some, count, torch.full_like(count, 2.0))
    size = (-log_step).clamp(max=300.0).exp()
    t = (log_step.clamp(min=-300.0) + k.log()).exp()
    grown = torch.log1p(t)
    # (1 + 1 / t) log(1 + t) − 1, to full relative precision also for small t.
    rest = torch.where(t < 1e300, grown - _log1p_rest(t.clamp(max=1e300)) / t.clamp(max=1e300), grown - 1)
    found = k * rest - 0.5 * grown + stirling_error(k + size) - stirling_error(size)
    return torch.where(some, found, torch.zeros_like(found))


def _deviance(excess: Tensor, ratio: Tensor) -> Tensor:
    """The divergence ratio − 1 − log(ratio), without cancellation near 1; `excess` is ratio − 1."""
    return torch.where(excess > -0.9, _log1p_rest(excess.clamp(min=-0.9)), excess - ratio.log())


def _log1p_rest(u: Tensor) -> Tensor:
    """The difference u − log1p(u), to full relative precision."""
    near = u.clamp(-0.1, 0.1)
    series = torch.zeros_like(u)
    for k in range(18, 1, -1):
        series = 1 / k - near * series
    return torch.where(u.abs() < 0.1, near * near * series, u - torch.log1p(u))


def expm1_rest(u: Tensor) -> Tensor:
    """The difference expm1(u) − u, to full relative precision."""
    near = u.clamp(-0.5, 0.5)
    series = torch.ones_like(u)
    for k in range(15, 2, -1):
        series = 1 + near / k * series
    return torch.where(u.abs() < 0.5, 0.5 * near * near * series, torch.expm1(u) - u)


def _search(function: Callable[[Tensor], Tensor], p: Tensor) -> Tensor:
    """The s with function(s) = p by bisection, for an increasing function of a logarithm or logit."""
    low, high = torch.full_like(p, -720.0), torch.full_like(p, 720.0)
    for _ in range(64):
        middle = (low + high) / 2
        reached = function(middle) >= p
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


_OURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gammainc": lambda a, x: gamma_tails(a, x)[0],
    "gammaincc": lambda a, x: gamma_tails(a, x)[1],
    "gammaincinv": lambda a, p: _search(lambda s: gamma_tails(a, s.exp())[0], p).exp(),
}
"""By quadrature: off the CPU, and for shapes where scipy's is inaccurate."""


def _of_gamma(name: str, a: Tensor, x: Tensor) -> Tensor:
    """A function of a shape a by its name in scipy, by quadrature off the CPU."""
    if x.device.type == "cpu":
        return _scipy(name, a, x)
    return _OURS[name](*torch.broadcast_tensors(a.detach().double(), x.detach().double()))


def _scipy(name: str, *arguments: Tensor) -> Tensor:
    """A function of `scipy.special` by its name, of tensors on the CPU that broadcast; float64, without gradient."""
    return _KERNEL(name, torch.broadcast_tensors(*(argument.detach().double() for argument in arguments)))


# As a kernel of torch's own dispatcher a call can be recorded and replayed (`objective/tape.py`) and batched.
torch.library.define("mlefw::scipy", "(str name, Tensor[] arguments) -> Tensor")
_KERNEL = torch.ops.mlefw.scipy.default


@torch.library.impl("mlefw::scipy", "cpu")
def _computed(name: str, arguments: Sequence[Tensor]) -> Tensor:
    function = _betainc if name == "betainc" else getattr(scipy.special, name)
    found = torch.as_tensor(np.asarray(function(*(argument.numpy() for argument in arguments))))
    if name in _OURS and bool((large := arguments[0] > _LARGE).any()):
        found = found.clone()
        found[large] = _OURS[name](*(argument[large] for argument in arguments))
    return found


def _betainc(a: Array, b: Array, x: Array, other: Array) -> Array:
    # scipy's betaincc is 1 where it should be 1 − 1e-10 (shapes ½, ½): it is used in the upper tail only.
    low, above = x <= 0.5, a * other < b * x
    upper, middle = above & ~low, ~(above | low)
    found = np.empty_like(x)
    found[low] = scipy.special.betainc(a[low], b[low], x[low])
    found[upper] = 1 - scipy.special.betainc(b[upper], a[upper], other[upper])
    found[middle] = scipy.special.betaincc(b[middle], a[middle], other[middle])
    return found


@torch.library.register_vmap("mlefw::scipy")  # type: ignore[untyped-decorator]
def _batched(info: Any, in_dims: Any, name: str, arguments: Sequence[Tensor]) -> tuple[Tensor, int]:
    parts = [
        one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip(arguments, in_dims[1], strict=True)
    ]
    return _KERNEL(name, parts), 0
