"""The series of the Tweedie density, with its first and second derivatives.

For 1 < p < 2 a Tweedie variable is a sum of a Poisson number j of gamma variables, so that its density is a sum over j.
With α = (2 − p) / (p − 1), the largest term near j* = y^(2 − p) / (φ (2 − p)), and δ the error of Stirling's formula,

    log f(y) = −d(y, mean) / (2 φ) − log y − log 2π + ½ log α + h(log j*, α),
    h = log Σ_j exp(−(1 + α) (j log(j / j*) − j + j*) − δ(j) − δ(α j)),

d being the unit deviance. No large numbers cancel, however small the dispersion φ is (Dunn & Smyth, 2005, sum the terms
in another form).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlefw.distribution.special import stirling_error

_HALF = 64
"""Nodes on either side of the largest term."""
_WIDE = 7.0
"""Standard deviation of the terms up to which every one is summed."""
_LARGE = 1e5
"""Least of j* and α j* from which the sum is its asymptotic series, correct to 1e-11."""
_ROWS = 8192
"""Rows summed at a time."""


def log_series(log_peak: Tensor, alpha: Tensor) -> Tensor:
    """The function h(log j*, α), (*batch,), which can be differentiated twice; 0 for a log j* of −∞.

    Where the terms are wide against 1, every few of them are summed, as a trapezoidal rule: the terms are a smooth
    function of j, for which it converges exponentially.
    """
    log_peak, alpha = torch.broadcast_tensors(log_peak, alpha)
    return _Series.apply(log_peak, alpha)


class _Series(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(log_peak: Tensor, alpha: Tensor) -> Tensor:
        return torch.ops.mlefw.tweedie_series(log_peak, alpha, 0)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        by_peak, by_alpha = _Slopes.apply(*ctx.saved_tensors)
        return gradient * by_peak, gradient * by_alpha


class _Slopes(torch.autograd.Function):
    """The derivatives of h, whose own derivatives are the second ones."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_peak: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.ops.mlefw.tweedie_series(log_peak, alpha, 1)
        return found[1], found[2]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, by_peak: Tensor, by_alpha: Tensor) -> Any:
        found = torch.ops.mlefw.tweedie_series(*ctx.saved_tensors, 2)
        return by_peak * found[3] + by_alpha * found[4], by_peak * found[4] + by_alpha * found[5]


# As a kernel of torch's own dispatcher a call can be recorded and replayed (`objective/tape.py`).
torch.library.define("mlefw::tweedie_series", "(Tensor log_peak, Tensor alpha, int order) -> Tensor")


@torch.library.impl("mlefw::tweedie_series", "CompositeExplicitAutograd")
def _computed(log_peak: Tensor, alpha: Tensor, order: int) -> Tensor:
    """The function h; from order 1 on also its slopes by log j* and α; for order 2 its three second derivatives.

    The result is (1, *batch), (3, *batch) or (6, *batch).
    """
    with torch.no_grad():
        peak, a = log_peak.reshape(-1), alpha.reshape(-1)
        asked = peak > -math.inf
        found = peak.new_zeros((1, 3, 6)[order], len(peak))
        if peak.device.type != "cpu":
            # Which rows are asked for is not read from another device: it would have to be waited for.
            found = torch.where(asked, _in_blocks(torch.where(asked, peak, 0.0), a, order), found)
        elif bool(asked.any()):
            found[:, asked] = _in_blocks(peak[asked], a[asked], order)
        return found.reshape(len(found), *log_peak.shape)


@torch.library.register_vmap("mlefw::tweedie_series")  # type: ignore[untyped-decorator]
def _batched(info: Any, in_dims: Any, log_peak: Tensor, alpha: Tensor, order: int) -> tuple[Tensor, int]:
    parts = [
        one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip((log_peak, alpha), in_dims, strict=False)
    ]
    return torch.ops.mlefw.tweedie_series(*torch.broadcast_tensors(*parts), order), 1


def _in_blocks(log_peak: Tensor, alpha: Tensor, order: int) -> Tensor:
    rows = zip(log_peak.split(_ROWS), alpha.split(_ROWS), strict=True)
    return torch.cat([_summed(*block, order) for block in rows], -1)


def _summed(log_peak: Tensor, alpha: Tensor, order: int) -> Tensor:
    far = torch.minimum(log_peak, log_peak + alpha.log()) > math.log(_LARGE)
    peak = torch.where(far, torch.ones_like(log_peak), log_peak.exp())
    more = 1 + alpha
    # The curvature of the exponent at its largest value is (1 + α) / j*.
    step = ((peak / more).sqrt() / _WIDE).clamp(min=1.0)
    middle = torch.where(step > 1, peak, peak.round())
    first = torch.where(step > 1, middle - _HALF * step, (middle - _HALF).clamp(min=1.0))
    # Where all peaks are near 1, the terms beyond these are below 1e-20 of the largest one.
    is_read = peak.device.type == "cpu"
    most = int((peak + 9 * peak.sqrt() + 20).max()) if is_read and bool((first == 1).all()) else 2 * _HALF + 1
    offset = torch.arange(min(most, 2 * _HALF + 1), dtype=peak.dtype, device=peak.device).unsqueeze(1) * step
    j = first + offset
    apart = (first - peak) + offset
    inside = j > 0.5
    j = j.clamp(min=0.5)
    # j log(j / j*) − j + j*, without cancellation near j*.
    ratio = apart / peak
    close = ratio.abs() < 0.5
    near = peak * ((1 + ratio) * torch.log1p(torch.where(close, ratio, 0.0)) - ratio)
    divergence = torch.where(close, near, j * (j.log() - log_peak) - apart)
    values = _Values(j, alpha, is_read and bool((step == 1).all()))
    exponent = -more * divergence - values(stirling_error, torch.ones_like(alpha)) - values(stirling_error, alpha)
    exponent = torch.where(inside, exponent, -math.inf)
    found = [exponent.logsumexp(0) + step.log()]
    if order:
        found += _sums(exponent.softmax(0), j, apart, divergence, alpha, peak, order, values)
    return torch.where(far, _asymptotic(log_peak, alpha)[: len(found)], torch.stack(found))


class _Values:
    """Functions of factor · j, (num_terms, *batch): of whole j and one factor for all rows, each j is computed once."""

    def __init__(self, j: Tensor, alpha: Tensor, is_whole: bool) -> None:
        self.j, self.table, self.at = j, None, j
        if is_whole and bool((alpha == alpha[0]).all()):
            least, most = float(j.min()), float(j.max())
            if most - least < j.numel() // 4:
                self.table = torch.arange(least, most + 1, dtype=j.dtype, device=j.device)
                self.at = (j - least).long()

    def __call__(self, function: Callable[[Tensor], Tensor], factor: Tensor) -> Tensor:
        """The values for a factor of each row, (*batch,)."""
        if self.table is None:
            return function(factor * self.j)
        return function(factor[0] * self.table)[self.at]


def _sums(
    weight: Tensor,
    j: Tensor,
    apart: Tensor,
    divergence: Tensor,
    alpha: Tensor,
    peak: Tensor,
    order: int,
    values: "_Values",
) -> list[Tensor]:
    """The slopes of h, and for order 2 its second derivatives, as moments over the terms; `apart` is j − j*."""
    more = 1 + alpha
    # δ'(x) = ψ(x) − log x + 1 / (2 x), and δ''(x) = ψ'(x) − 1 / x − 1 / (2 x²).
    slope = values(lambda x: torch.digamma(x) - x.log() + 0.5 / x, alpha)
    e_peak, e_alpha = more * apart, -divergence - j * slope
    by_peak, by_alpha = (weight * e_peak).sum(0), (weight * e_alpha).sum(0)
    if order == 1:
        return [by_peak, by_alpha]
    bend = values(lambda x: torch.polygamma(1, x) - 1 / x - 0.5 / x.square(), alpha)
    centred = e_peak - by_peak, e_alpha - by_alpha
    twice_peak = (weight * centred[0].square()).sum(0) - more * peak
    both = (weight * (centred[0] * centred[1] + apart)).sum(0)
    twice_alpha = (weight * (centred[1].square() - j.square() * bend)).sum(0)
    return [by_peak, by_alpha, twice_peak, both, twice_alpha]


def _asymptotic(log_peak: Tensor, alpha: Tensor) -> Tensor:
    """Of a large j*: h = ½ log(2π j* / (1 + α)) − c / j*, c = 1 / (24 (1 + α)) + (1 + α) / (12 α)."""
    more, small = 1 + alpha, torch.exp(-log_peak)
    c = 1 / (24 * more) + more / (12 * alpha)
    by_alpha = -1 / (24 * more.square()) - 1 / (12 * alpha.square())
    twice = 1 / (12 * more**3) + 1 / (6 * alpha**3)
    return torch.stack(
        [
            0.5 * (math.log(2 * math.pi) + log_peak - more.log()) - c * small,
            0.5 + c * small,
            -0.5 / more - by_alpha * small,
            -c * small,
            by_alpha * small,
            0.5 / more.square() - twice * small,
        ]
    )
