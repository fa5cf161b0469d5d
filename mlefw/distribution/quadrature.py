"""Double-exponential quadrature (Takahasi & Mori, 1974), elementwise over tensors.

It needs few nodes, also for integrands with singularities at the ends of the interval.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Integrand = Callable[[Tensor], Tensor]


def half_line(integrand: Integrand, scale: Tensor, num_nodes: int = 96) -> Tensor:
    """∫ integrand(t) dt over t > 0, (*batch,), for an integrand that decays at least exponentially.

    Substitutes t = scale · exp(s − exp(−s)).

    Args:
        integrand: an elementwise function of t (num_nodes, *batch).
        scale: length over which the integrand decays, within a factor of about ten, (*batch,).
        num_nodes: number of evaluations; the relative error is about 1e-13 with 96.
    """
    s = np.linspace(-3.8, 4.6, num_nodes)
    node = np.exp(s - np.exp(-s))
    return _sum(integrand, 0 * scale, scale, node, node * (1 + np.exp(-s)) * (s[1] - s[0]))


def half_line_heavy(integrand: Integrand, scale: Tensor, num_nodes: int = 181) -> Tensor:
    """∫ integrand(t) dt over t > 0, (*batch,), for an integrand that may decay like a power of t.

    Substitutes t = scale · exp(½ π sinh s); arguments as for `half_line`.
    """
    s = np.linspace(-3.8, 3.8, num_nodes)
    node = np.exp(math.pi / 2 * np.sinh(s))
    return _sum(integrand, 0 * scale, scale, node, math.pi / 2 * np.cosh(s) * node * (s[1] - s[0]))


def segment(integrand: Integrand, length: Tensor, start: Tensor, num_nodes: int = 96) -> Tensor:
    """∫ integrand(v) dv over the interval between start and start + length, (*batch,); length may be negative.

    The sign of `length` does not change the sign of the result. Algebraic singularities at both ends are allowed.
    Substitutes v = start + length · sigmoid(π sinh s).
    """
    s = np.linspace(-3.6, 3.6, num_nodes)
    node = 1 / (1 + np.exp(-math.pi * np.sinh(s)))
    other = 1 / (1 + np.exp(math.pi * np.sinh(s)))
    return _sum(integrand, start, length, node, math.pi * np.cosh(s) * node * other * (s[1] - s[0]))


def _sum(integrand: Integrand, start: Tensor, length: Tensor, node: np.ndarray, weight: np.ndarray) -> Tensor:
    shape = (-1, *(1 for _ in length.shape))
    at = torch.as_tensor(node, dtype=length.dtype, device=length.device).reshape(shape)
    by = torch.as_tensor(weight, dtype=length.dtype, device=length.device).reshape(shape)
    return length.abs() * (by * integrand(start + length * at)).sum(0)
