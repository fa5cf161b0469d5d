"""Conformance checks of a head."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlefw.head.base import Head
from mlefw.testing import likelihood, predictive
from mlefw.testing.conformance import Check, hold
from mlefw.testing.head_case import HeadCase, has_kinks, plausible_etas


def check_head(
    head: Head,
    etas: Sequence[Sequence[float]] | None = None,
    tolerance: float = 1e-9,
    knots: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Check a head against all rules of its kind; for a head of several targets, those that do not need one number.

    Args:
        head: the head, which is not changed.
        etas: complete etas to try, each (columns,); by default some about the null model.
        tolerance: tolerance of the integral of the density. That of moments is 10 times as large, of scores 100 times,
            and of second derivatives 1,000 times.
        knots: maps an eta (columns,) to the y (k,) at which second derivatives of the density jump, if there are any.

    Raises:
        ConformanceError: the head breaks rules; the message names them, and what was found and expected.
    """
    head = deepcopy(head).double().cpu()
    given = plausible_etas(head) if etas is None else [torch.tensor(eta, dtype=torch.float64) for eta in etas]
    hold(head, HeadCase(head, given, tolerance, knots=knots), (*STRUCTURE, *likelihood.CHECKS, *predictive.CHECKS))


def names_and_dimensions(case: HeadCase) -> Iterator[str]:
    """Eta columns and shared parameters have distinct names."""
    head = case.head
    if (len(head.eta_names), len(head.shared_names)) != (head.eta_dim, head.shared_dim):
        yield f"{head.eta_dim} + {head.shared_dim} columns are named {head.eta_names} and {head.shared_names}"
    if len(set(head.eta_names + head.shared_names)) != head.eta_dim + head.shared_dim:
        yield f"names are used twice: {head.eta_names + head.shared_names}"


def state_is_complete(case: HeadCase) -> Iterator[str]:
    """Center, gain, floor and shared parameters are in the state dict, which checkpoints store."""
    missing = {"center", "gain", "floor", "shared"} - set(case.head.state_dict())
    if missing:
        yield f"its state lacks {sorted(missing)}: expected them as buffers and parameters"


def one_value_per_row(case: HeadCase) -> Iterator[str]:
    """The NLL is (*batch,), float64, for eta (*batch, eta_dim) of any rank and float type, and equals −log_prob."""
    head, event = case.head, case.head.event_shape
    for dtype in (torch.float32, torch.float64):
        for shape in ((), (5,), (2, 3), (0,), (1, 1)):
            eta = case.predicted[0].expand(*shape, -1).to(dtype)
            y = case.rows[1][0].expand((*shape, *event))
            nll, distribution = head.nll(eta, y), head(eta)
            if nll.shape != shape or nll.dtype != torch.float64:
                yield f"the NLL for eta {tuple(eta.shape)} is {tuple(nll.shape)} {nll.dtype}, expected {shape} float64"
                continue
            if distribution.batch_shape != shape or distribution.event_shape != event:
                found = f"{tuple(distribution.batch_shape)} and {tuple(distribution.event_shape)}"
                yield f"shapes of the distribution are {found}, expected {shape} and {tuple(event)}"
                continue
            if not torch.equal(-distribution.log_prob(y), nll):
                yield f"-log_prob(y) and nll(eta, y) differ for eta {tuple(eta.shape)}: expected the same numbers"


def rows_do_not_mix(case: HeadCase) -> Iterator[str]:
    """The NLL of a row does not depend on the rows beside it."""
    eta, y = case.rows
    together = case.head.nll_complete(eta, y)
    apart = torch.stack([case.head.nll_complete(one, value) for one, value in zip(eta, y, strict=True)])
    # Vectorised and scalar kernels may round exponentials differently.
    if not torch.allclose(together, apart, rtol=1e-15, atol=1e-15):
        yield f"NLLs of single rows differ by up to {float((together - apart).abs().max()):.2g} from those in a batch"


def wrong_shapes_are_refused(case: HeadCase) -> Iterator[str]:
    """A y or an eta of a wrong shape raises ValueError rather than being broadcast."""
    head, dtype, event = case.head, case.rows[1].dtype, case.head.event_shape
    tried = [(head.eta_dim, shape) for shape in ((4, 1), (1,), (), (3,), (4, 4), (1, 4)) if shape != (4, *event)]
    tried += [(head.eta_dim - 1, (4, *event)), (head.eta_dim + 1, (4, *event))]
    for width, shape in tried:
        try:
            head.nll(torch.zeros(4, width), torch.zeros(shape, dtype=dtype))
        except ValueError:
            continue
        yield f"eta {(4, width)} and y {shape} were taken: expected a ValueError"


def autocast_does_not_reach_the_likelihood(case: HeadCase) -> Iterator[str]:
    """Under autocast the likelihood is computed in full precision."""
    predicted, y = case.predicted.float(), case.rows[1]
    with torch.autocast("cpu", torch.bfloat16):
        nll, log_prob = case.head.nll(predicted, y), case.head(predicted).log_prob(y)
    expected = case.head.nll(predicted, y)
    for name, found in (("nll", nll), ("-log_prob", -log_prob)):
        if not torch.equal(found, expected):
            far = float((found - expected).abs().max())
            yield f"under autocast {name} is {found.dtype} and off by {far:.2g}: expected the numbers without it"


def shared_columns_follow_the_parameter(case: HeadCase) -> Iterator[str]:
    """A complete eta is the predicted eta, followed by center + gain · shared."""
    head = deepcopy(case.head)
    head.center.copy_(torch.arange(len(head.center)))
    head.gain.fill_(2.0)
    head.shared.data.fill_(0.25)
    expected = [9.0] * head.eta_dim + [head.eta_dim + k + 0.5 for k in range(head.shared_dim)]
    found = head.complete(torch.full((3, head.eta_dim), 9.0)).tolist()
    if found != [expected] * 3:
        yield f"complete gives {found[0]}, expected {expected}"


def gradients_agree_with_finite_differences(case: HeadCase) -> Iterator[str]:
    """Autograd agrees with finite differences of the NLL, in eta and in the shared parameters."""
    head, predicted, y = deepcopy(case.head), case.predicted.clone().requires_grad_(), case.rows[1]
    shared = torch.linspace(-0.3, 0.4, head.shared_dim, dtype=torch.float64).requires_grad_(head.shared_dim > 0)

    def nll(eta: Tensor, raw: Tensor) -> Tensor:
        return functional_call(_Nll(head), {"head.shared": raw}, (eta, y))

    if not torch.autograd.gradcheck(nll, (predicted, shared), raise_exception=False):
        yield "first derivatives of the NLL do not agree with finite differences"
    elif not has_kinks(head) and not torch.autograd.gradgradcheck(nll, (predicted, shared), raise_exception=False):
        yield "second derivatives of the NLL do not agree with finite differences"


class _Nll(nn.Module):
    """The NLL as the forward pass of a module, for `functional_call` with other shared parameters."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, eta: Tensor, y: Tensor) -> Tensor:
        return self.head.nll(eta, y)


STRUCTURE: tuple[Check[HeadCase], ...] = (
    names_and_dimensions,
    state_is_complete,
    one_value_per_row,
    rows_do_not_mix,
    wrong_shapes_are_refused,
    autocast_does_not_reach_the_likelihood,
    shared_columns_follow_the_parameter,
    gradients_agree_with_finite_differences,
)
