"""Conformance checks of a loss."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.head.base import Head
from mlefw.loss.base import Loss
from mlefw.rows.rows import Rows
from mlefw.testing.conformance import Check, hold
from mlefw.testing.head_case import HeadCase, plausible_etas


@dataclass(frozen=True)
class LossCase:
    """A loss after `learn`, a head that it is defined for, predicted eta (n, eta_dim) and y (n, *event_shape)."""

    loss: Loss
    head: Head
    eta: Tensor
    y: Tensor

    def value(self, eta: Tensor) -> Tensor:
        """The loss of each row, (n,)."""
        return self.loss(self.head, eta, self.y)


def check_loss(loss: Loss, head: Head) -> None:
    """Check a loss against all rules of its kind.

    Args:
        loss: the loss, which is not changed.
        head: a head that the loss is defined for.

    Raises:
        UsageError: the loss is not defined for this head.
        ConformanceError: the loss breaks rules; the message names them, and what was found and expected.
    """
    loss, head = deepcopy(loss), deepcopy(head).double().cpu()
    case = HeadCase(head, plausible_etas(head), 1e-9)
    eta, y = case.predicted, case.rows[1]
    ones = torch.ones(len(y), dtype=torch.float64)
    loss.check(head)
    loss.learn(Rows(torch.zeros(len(y), 1, dtype=torch.float64), y, ones, 0 * ones))
    hold(loss, LossCase(loss.double(), head, eta, y), CHECKS)


def one_finite_value_per_row(case: LossCase) -> Iterator[str]:
    """The loss is (n,), and finite."""
    value = case.value(case.eta)
    if value.shape != (len(case.y),):
        yield f"of {len(case.y)} rows it has shape {tuple(value.shape)}, expected {(len(case.y),)}: not reduced"
    elif not bool(value.isfinite().all()):
        yield f"it is not finite at eta={case.eta[~value.isfinite()][0].tolist()}"


def rows_do_not_mix(case: LossCase) -> Iterator[str]:
    """The loss of a row does not depend on the rows beside it."""
    together = case.value(case.eta)
    apart = torch.cat([case.loss(case.head, case.eta[k : k + 1], case.y[k : k + 1]) for k in range(len(case.y))])
    if together.shape == apart.shape and not torch.allclose(together, apart, rtol=1e-12, atol=1e-14):
        yield f"losses of single rows differ by {float((together - apart).abs().max()):.3g} from those in a batch"


def claimed_likelihood_is_the_nll(case: LossCase) -> Iterator[str]:
    """`is_likelihood`: the loss is the NLL."""
    is_nll = torch.equal(case.value(case.eta), case.head.nll(case.eta, case.y))
    if case.loss.is_likelihood and not is_nll:
        yield "is_likelihood is true, and it is not the NLL"


def claimed_potential_has_its_gradient(case: LossCase) -> Iterator[str]:
    """`is_potential`: autograd agrees with finite differences of the value, which a line search relies on."""
    eta = case.eta.clone().requires_grad_()
    agrees = torch.autograd.gradcheck(case.value, eta, raise_exception=False)
    if case.loss.is_potential and not agrees:
        yield "is_potential is true, and the gradient does not agree with finite differences of the value"


CHECKS: tuple[Check[LossCase], ...] = (
    one_finite_value_per_row,
    rows_do_not_mix,
    claimed_likelihood_is_the_nll,
    claimed_potential_has_its_gradient,
)
