"""Conformance checks of a model."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlefw.testing.conformance import Check, hold

_SEED = 3
"""Seed of dropout masks, equal in all passes."""


@dataclass(frozen=True)
class ModelCase:
    """A model with random parameters, since zeros would hide faults, and rows to try it with.

    Attributes:
        model: the model.
        x: rows, (n, *anything).
        eta_dim: number of eta columns of the head.
        positions: shape of the targets of a row; () for one target.
        is_sequential: whether the target at a position may depend on x up to it alone, as the next token.
    """

    model: nn.Module
    x: Tensor
    eta_dim: int
    positions: tuple[int, ...] = ()
    is_sequential: bool = False

    def raw(self, x: Tensor, is_training: bool = False) -> Tensor:
        """The output for rows, with a fixed seed of dropout masks, and without updating running statistics."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            model = deepcopy(self.model) if is_training else self.model
            return model.train(is_training)(x)


def check_model(
    model: nn.Module, x: Tensor, eta_dim: int, positions: Sequence[int] = (), is_sequential: bool = False
) -> None:
    """Check a model against all rules of its kind.

    Args:
        model: the model, which is not changed.
        x: at least two different rows, (n, *anything).
        eta_dim: number of eta columns of the head.
        positions: shape of the targets of a row; () for one target.
        is_sequential: whether the target at a position is given x up to it, as the next token.

    Raises:
        ConformanceError: the model breaks rules; the message names them, and what was found and expected.
    """
    hold(model, ModelCase(randomised(model), x, eta_dim, tuple(positions), is_sequential), CHECKS)


def randomised(model: nn.Module) -> nn.Module:
    """A copy with random parameters of the usual size, since a last layer of zeros hides the layers before it."""
    model = deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            width = p[0].numel() if p.ndim > 1 else 1
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float32) / max(width, 1) ** 0.5)
    return model.eval()


def output_has_a_column_for_each_eta(case: ModelCase) -> Iterator[str]:
    """The output is (n, *positions, eta_dim) for x (n, *anything), also for n = 1 and n = 0."""
    for n in (len(case.x), 1, 0):
        shape = tuple(case.raw(case.x[:n]).shape)
        if shape != (expected := (n, *case.positions, case.eta_dim)):
            yield f"for {n} rows the output has shape {shape}, expected {expected}"


def output_is_finite_and_repeatable(case: ModelCase) -> Iterator[str]:
    """In evaluation mode the output is finite, and equal in repeated passes: it uses no random numbers."""
    with torch.no_grad():
        first, again = case.model.eval()(case.x), case.model(case.x)
    if not bool(first.isfinite().all()):
        yield "the output is not finite"
    elif not torch.equal(first, again):
        yield f"in evaluation mode two passes differ by {float((first - again).abs().max()):.3g}: expected no noise"


def rows_do_not_mix(case: ModelCase) -> Iterator[str]:
    """In evaluation mode the output of a row does not depend on other rows."""
    together = case.raw(case.x)
    apart = torch.cat([case.raw(row.unsqueeze(0)) for row in case.x])
    far = float((together - apart).abs().max() / together.abs().max().clamp(min=1e-30))
    if not far <= _rounding(case, together):
        yield f"outputs of single rows differ from those in a batch by {far:.3g} of the largest output"


def rows_do_not_mix_in_training(case: ModelCase) -> Iterator[str]:
    """In training mode the output of a row does not depend on other rows, as batch normalisation makes it."""
    half = len(case.x) // 2
    if half == 0:
        return
    other = torch.cat([case.x[:half], _changed(case.x[half:])])
    one, two = case.raw(case.x, True)[:half], case.raw(other, True)[:half]
    far = float((one - two).abs().max() / one.abs().max().clamp(min=1e-30))
    if not far <= _rounding(case, one):
        yield f"rows change with the rows beside them by {far:.3g} of the largest output (batch normalisation does so)"


def later_positions_do_not_matter(case: ModelCase) -> Iterator[str]:
    """Where a target is given x up to its position, the output there is equal, to the last bit, for any later x."""
    if not case.is_sequential:
        return
    whole = case.raw(case.x)
    for t in range(case.x.shape[1] - 1):
        x = torch.cat([case.x[:, : t + 1], _changed(case.x[:, t + 1 :])], 1)
        if not torch.equal(case.raw(x)[:, : t + 1], whole[:, : t + 1]):
            yield f"the output up to position {t} changes with x after it: the model sees what it has to predict"


def _changed(x: Tensor) -> Tensor:
    """Other rows of the same kind: numbers in another order and half as large again, tokens in another order."""
    return x.roll(1, 0) * 1.5 if x.is_floating_point() else x.roll((1, 1), (0, -1))


def _rounding(case: ModelCase, values: Tensor) -> float:
    """Tolerance: a thousand times the rounding error of the coarsest float type of output and parameters."""
    kinds = {values.dtype, *(p.dtype for p in case.model.parameters() if p.is_floating_point())}
    return 1e3 * max(torch.finfo(kind).eps for kind in kinds)


CHECKS: tuple[Check[ModelCase], ...] = (
    output_has_a_column_for_each_eta,
    output_is_finite_and_repeatable,
    rows_do_not_mix,
    rows_do_not_mix_in_training,
    later_positions_do_not_matter,
)
