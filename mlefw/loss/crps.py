"""The continuous ranked probability score as a loss."""

from typing import ClassVar

import torch
from torch import Tensor

from mlefw.distribution.crps import row_crps
from mlefw.distribution.precision import full_precision
from mlefw.distribution.quantile import quantile
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import target_statistics

_STEP = 1e-2
"""Step of difference quotients, in units of the raw output."""
_AGREES = 1e-2
"""Relative difference up to which a gradient agrees with a difference quotient."""


class Crps(Loss):
    """The CRPS in units of the standard deviation of the training targets (Gneiting et al., 2005).

    Loss: ∫ (F(v) − 1{y <= v})² dv / sd(y), for counts and ordered classes the sum over whole numbers. Its gradient is
    bounded in y, so that a few outliers do not decide, and a scale that goes to zero costs |y − location| and no more.
    Where the head is right the minimum is a consistent estimate with a larger variance than the maximum likelihood
    estimate: of the location of a Gaussian by a factor of π / 3, of its log scale by 1.24.
    """

    estimate: ClassVar = "minimum CRPS"

    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unit", torch.ones((), dtype=torch.float64), persistent=False)

    def check(self, head: Head) -> None:
        """Refuse heads of several numbers, of labels without an order, and without a derivative of the CRPS."""
        if head.event_shape:
            why = "several numbers in a row, or bounds, have none"
        elif head.target == "labels":
            why = "labels without an order have no distribution function"
        elif not has_derivative(head):
            why = "it has no derivative that agrees with its differences"
        else:
            return
        raise UsageError(
            f"loss=crps descends the CRPS of a number, and for {type(head).__name__} {why}: expected a head of one "
            "number, count or ordered class, such as head=gaussian, poisson or ordinal, or loss=plain"
        )

    def learn(self, train: Rows) -> None:
        """Take the standard deviation of the target as the unit of the loss; 1 for a constant target."""
        _, spread = target_statistics(train._replace(y=train.y.double()))
        self.unit.fill_(spread if spread > 0 else 1.0)

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,)."""
        with full_precision(eta.device):
            return row_crps(head(eta), head.as_target(y)) / self.unit


@torch.enable_grad()
def has_derivative(head: Head) -> bool:
    """Whether autograd's derivatives of the CRPS in each eta column agree with difference quotients near the center."""
    moves = torch.tensor([[0.05], [0.15], [0.25]], dtype=torch.float64)
    eta = (head.center + head.gain * moves).detach().cpu()
    gain = head.gain.detach().cpu()
    leaf = eta.clone().requires_grad_()
    try:
        y = torch.stack([quantile(head.distribution(one), p) for one, p in zip(eta, (0.2, 0.5, 0.9), strict=True)])
        y = y.detach()

        def score(at: Tensor) -> Tensor:
            return row_crps(head.distribution(at), y)

        (slope,) = torch.autograd.grad(score(leaf).sum(), leaf)
        step = _STEP * torch.diag(gain)
        quotient = torch.stack([score(eta + one) - score(eta - one) for one in step], -1).detach() / (2 * _STEP)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    room = _AGREES * (quotient.abs() + 1e-2 * quotient.abs().max())
    return bool(((slope * gain - quotient).abs() <= room).all())
