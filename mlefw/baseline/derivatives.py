"""Derivatives of the NLL in the eta of each row, and their sums over a design matrix."""

from collections.abc import Iterable, MutableMapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.objective.gradient import is_replayable
from mlefw.objective.replay import Replay

_WIDE = 8
"""Number of columns from which numpy's symmetric product, which computes one triangle, is faster than torch's."""

_PLAIN_CALLS, _MOST_SHAPES = 4, 8
_replays: MutableMapping[Head, Replay] = WeakKeyDictionary()
"""The recorded derivatives of each head."""


class Derivatives(NamedTuple):
    """An objective, its gradient (size,) and Hessian (size, size), in nats per observation."""

    value: float
    gradient: Tensor
    hessian: Tensor


@torch.enable_grad()
def row_slopes(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """NLL (n,) and its gradient (n, K) in each row's complete eta (n, K), by autograd."""
    eta = eta.detach().requires_grad_()
    nll = head.nll_complete(eta, y)
    (slope,) = torch.autograd.grad(nll.sum(), eta)
    return nll.detach(), slope


@torch.enable_grad()
def row_products(head: Head, eta: Tensor, y: Tensor, movement: Tensor) -> Tensor:
    """The Hessian of each row's NLL in its complete eta times a movement of eta (n, K), (n, K), matrix-free."""
    eta = eta.detach().requires_grad_()
    (slope,) = torch.autograd.grad(head.nll_complete(eta, y).sum(), eta, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros_like(eta)
    return torch.autograd.grad((slope * movement).sum(), eta)[0]


def row_derivatives(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NLL (n,), its gradient (n, K) and Hessian (n, K, K) in each row's complete eta (n, K), by autograd.

    A solver asks for them some hundred times for the same number of rows: after a few calls the kernels alone are run,
    as they were recorded, which gives the same bits in a third of the time where rows are few.
    """
    if not is_replayable(head):
        return _row_derivatives(head, eta, y)
    replay = _replays.setdefault(head, Replay(_PLAIN_CALLS, _MOST_SHAPES))
    key = (eta.shape, y.shape, y.dtype)
    nll, slope, hessian = replay(key, lambda eta, y: _row_derivatives(head, eta, y), [eta, y])
    return nll, slope, hessian


@torch.enable_grad()
def _row_derivatives(head: Head, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    eta = eta.detach().requires_grad_()
    nll = head.nll_complete(eta, y)
    (slope,) = torch.autograd.grad(nll.sum(), eta, create_graph=True)
    columns = []
    for k in range(eta.shape[1]):
        if slope.requires_grad:
            (column,) = torch.autograd.grad(slope[:, k].sum(), eta, retain_graph=True, materialize_grads=True)
        else:
            column = torch.zeros_like(eta)
        columns.append(column)
    return nll.detach(), slope.detach(), torch.stack(columns, -1)


def add_gradient(gradient: Tensor, design: Tensor, slope: Tensor, eta_dim: int) -> None:
    """Add Σ_i s_i ⊗ z_i to the entries of the predicted columns, Σ_i s_i to those of the shared ones."""
    predicted = eta_dim * design.shape[1]
    gradient[:predicted] += (slope[:, :eta_dim].T @ design).reshape(-1)
    gradient[predicted:] += slope[:, eta_dim:].sum(0)


def add_hessian(hessian: Tensor, design: Tensor, curvature: Tensor, eta_dim: int, scratch: Tensor) -> None:
    """Add Σ_i B_i ⊗ z_i z_i', a block for each pair of eta columns; a shared column has a design of ones.

    Shapes: hessian (size, size), design (n, width) with a last column of ones, curvature (n, K, K); scratch like
    design, overwritten.
    """
    width, num_shared = design.shape[1], curvature.shape[1] - eta_dim
    spans = [slice(k * width, (k + 1) * width) for k in range(eta_dim)]
    spans += [slice(eta_dim * width + s, eta_dim * width + s + 1) for s in range(num_shared)]
    designs = [design] * eta_dim + [design[:, -1:]] * num_shared
    for k, rows in enumerate(spans):
        hessian[rows, rows] += gram(designs[k], curvature[:, k, k], scratch[:, : designs[k].shape[1]])
        for j in range(k):
            weighted = torch.mul(curvature[:, k, j].unsqueeze(1), designs[j], out=scratch[:, : designs[j].shape[1]])
            block = designs[k].T @ weighted
            hessian[rows, spans[j]] += block
            hessian[spans[j], rows] += block.T


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product; with one column by numpy's routine for a vector, which takes half the time of torch's."""
    if right.shape[1] > 1:
        return left @ right
    # As with torch, what is not finite is no warning: a search looks at places far out, and turns back there.
    with np.errstate(all="ignore"):
        return torch.from_numpy(left.numpy() @ right[:, 0].numpy()).unsqueeze(1)


def gram(z: Tensor, weight: Tensor | None, scratch: Tensor) -> Tensor:
    """Σ_i w_i z_i z_i', (p, p), for z (n, p) and weight (n,), None for ones; scratch (n, p) is overwritten.

    Allocating a weighted copy of z in each call would take longer than the product.
    """
    if z.shape[1] < _WIDE or (weight is not None and not bool((weight >= 0).all())):
        return z.T @ (z if weight is None else torch.mul(z, weight.unsqueeze(1), out=scratch))
    half = (z if weight is None else torch.mul(z, weight.sqrt().unsqueeze(1), out=scratch)).numpy()
    with np.errstate(all="ignore"):
        return torch.from_numpy(half.T @ half)


def triangle(blocks: Iterable[Tensor]) -> Tensor:
    """The factor R, (min(n, p), p), of a QR factorisation of rows (n, p) that come in blocks."""
    found: Tensor | None = None
    for block in blocks:
        found = torch.linalg.qr(block if found is None else torch.cat([found, block]), mode="r").R
    assert found is not None
    return found
