"""The incomplete gamma and beta functions of `special`, with first derivatives in all arguments, shapes included."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlefw.distribution import special

_STEP = 1e-3
"""Distance of the points of a difference quotient, as a share of the length over which the function changes."""


def gammainc(a: Tensor, x: Tensor) -> Tensor:
    """Regularised lower incomplete gamma function P(a, x), float64."""
    return _of_gamma(special.gammainc, a, x, 1.0)


def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function Q(a, x) = 1 − P(a, x), float64."""
    return _of_gamma(special.gammaincc, a, x, -1.0)


def betainc(a: Tensor, b: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Regularised incomplete beta function I_x(a, b), float64; `other` is 1 − x, to full relative precision."""
    if not _is_differentiated(a, b, x, other):
        return special.betainc(a, b, x, other)
    found: Tensor = _BetaInc.apply(*torch.broadcast_tensors(a, b, x, other))
    return found


def _of_gamma(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, x: Tensor, sign: float) -> Tensor:
    if not _is_differentiated(a, x):
        return function(a, x)
    found: Tensor = _GammaInc.apply(function, sign, *torch.broadcast_tensors(a, x))
    return found


def _is_differentiated(*arguments: Tensor) -> bool:
    return torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments)


class _GammaInc(torch.autograd.Function):
    """P(a, x), or with sign −1 Q(a, x)."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor, Tensor], Tensor], sign: float, a: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, x)
        ctx.function, ctx.sign = function, sign
        return function(a, x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        a, x = ctx.saved_tensors
        in_a = in_x = None
        if ctx.needs_input_grad[2]:
            in_a = gradient * _slope(lambda at: ctx.function(at, x), a, torch.minimum(a, a.sqrt()))
        if ctx.needs_input_grad[3]:
            power = (a - 1) * x.clamp(min=torch.finfo(x.dtype).tiny).log()
            in_x = gradient * ctx.sign * (power - x - torch.lgamma(a)).exp()
        return None, None, in_a, in_x


class _BetaInc(torch.autograd.Function):
    """I_x(a, b); the derivative in x is that along x + other = 1."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, x, other)
        return special.betainc(a, b, x, other)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        a, b, x, other = ctx.saved_tensors
        in_a = in_b = in_x = None
        if ctx.needs_input_grad[0]:
            length = torch.minimum(a, (a * (a + b) / b).sqrt())
            in_a = gradient * _slope(lambda at: special.betainc(at, b, x, other), a, length)
        if ctx.needs_input_grad[1]:
            length = torch.minimum(b, (b * (a + b) / a).sqrt())
            in_b = gradient * _slope(lambda at: special.betainc(a, at, x, other), b, length)
        if ctx.needs_input_grad[2]:
            normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
            # At an end the density may be infinite, where the x of a distribution does not move: a finite one is 0 · x.
            tiny = torch.finfo(x.dtype).tiny
            powers = (a - 1) * x.clamp(min=tiny).log() + (b - 1) * other.clamp(min=tiny).log()
            in_x = gradient * (powers - normaliser).exp()
        return in_a, in_b, in_x, None


def _slope(function: Callable[[Tensor], Tensor], at: Tensor, length: Tensor) -> Tensor:
    """The derivative of a function at `at` by five points, right to 1e-12 of its change over `length`."""
    step = _STEP * length
    near = function(at + step) - function(at - step)
    far = function(at + 2 * step) - function(at - 2 * step)
    return (8 * near - far) / (12 * step)
