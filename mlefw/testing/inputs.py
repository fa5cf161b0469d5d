"""Conformance checks of an input map."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs
from mlefw.testing.conformance import Check, hold

_TOLERANCE = 1e-9
"""Tolerance of inputs that are computed in another order, relative to the largest input."""


@dataclass(frozen=True)
class InputsCase:
    """An input map after `learn`, and standardised features x (n, num_features)."""

    inputs: Inputs
    x: Tensor

    def learnt(self, x: Tensor, weight: Tensor) -> Inputs:
        """A copy of the map that has learnt from other rows x (k, num_features) with weights (k,)."""
        other = deepcopy(self.inputs)
        other.learn(x, weight)
        return other

    @property
    def weight(self) -> Tensor:
        """Weights of the rows, (n,): whole numbers from 1 to 3."""
        return 1 + torch.arange(len(self.x), dtype=torch.float64).remainder(3)


def check_inputs(inputs: Inputs, x: Tensor) -> None:
    """Check an input map against all rules of its kind.

    Args:
        inputs: the map for these features, which is not changed.
        x: standardised features of at least four different rows, (n, num_features), float64.

    Raises:
        ConformanceError: the map breaks rules; the message names them, and what was found and expected.
    """
    inputs = deepcopy(inputs)
    inputs.learn(x, torch.ones(len(x), dtype=torch.float64))
    hold(inputs, InputsCase(inputs, x), CHECKS)


def all_state_is_buffers(case: InputsCase) -> Iterator[str]:
    """The map has no parameters, and its buffers are float64 or int64: checkpoints store them, training keeps them."""
    for name, _ in case.inputs.named_parameters():
        yield f"{name} is a parameter: expected a buffer, or a model that has it"
    for name, value in case.inputs.named_buffers():
        if value.dtype not in (torch.float64, torch.int64):
            yield f"buffer {name} is of {value.dtype}: expected float64 or int64"


def output_has_a_column_for_each_input(case: InputsCase) -> Iterator[str]:
    """The output is (*batch, num_inputs), float64, for x (*batch, num_features), also for one row and for no rows."""
    half = case.x[: len(case.x) // 2 * 2].reshape(2, -1, case.x.shape[1])
    for x in (case.x, case.x[:1], case.x[:0], half):
        found, expected = case.inputs(x), (*x.shape[:-1], case.inputs.num_inputs)
        if tuple(found.shape) != expected or found.dtype != torch.float64:
            yield f"for x {tuple(x.shape)} it is {found.dtype} {tuple(found.shape)}, expected float64 {expected}"


def output_is_finite_and_repeatable(case: InputsCase) -> Iterator[str]:
    """The output is finite, also far from the training rows, and equal in repeated passes; x is not changed."""
    for far in (1.0, 1e3):
        x = far * case.x
        first, again = case.inputs(x), case.inputs(x)
        if not bool(first.isfinite().all()):
            yield f"an input is not finite for features up to {float(x.abs().max()):.3g}"
        elif not torch.equal(first, again):
            yield f"two passes differ by {float((first - again).abs().max()):.3g}"
        if not torch.equal(x, far * case.x):
            yield "it changes its argument x"


def rows_do_not_mix(case: InputsCase) -> Iterator[str]:
    """The output for a row does not depend on other rows."""
    together = case.inputs(case.x)
    yield from _differ(
        torch.cat([case.inputs(row[None]) for row in case.x]), together, "inputs of single rows and of a batch"
    )


def buffers_restore_the_map(case: InputsCase) -> Iterator[str]:
    """A map that has learnt from other rows gives the same output once it is restored from the buffers."""
    other = case.learnt(0.5 * case.x[::2] + 0.25, case.weight[::2])
    state = dict(case.inputs.state_dict())
    try:
        other.restore(state)
    except UsageError as error:
        yield str(error)
        return
    yield from _differ(other(case.x), case.inputs(case.x), "the map and one restored from its buffers")


def weight_two_is_the_row_twice(case: InputsCase) -> Iterator[str]:
    """Weights are frequencies: a row of weight k counts as k rows in `learn`."""
    weight = case.weight
    twice = case.x.repeat_interleave(weight.long(), 0)
    other = case.learnt(twice, torch.ones(len(twice), dtype=torch.float64))
    words = "maps learnt from weighted rows and from as many copies"
    yield from _differ(other(case.x), case.learnt(case.x, weight)(case.x), words)


def order_of_rows_does_not_matter(case: InputsCase) -> Iterator[str]:
    """The order of rows in `learn` does not matter."""
    other = case.learnt(case.x.flip(0), case.weight.flip(0))
    words = "maps learnt from the rows in two orders"
    yield from _differ(other(case.x), case.learnt(case.x, case.weight)(case.x), words)


def _differ(found: Tensor, expected: Tensor, what: str) -> Iterator[str]:
    if found.shape != expected.shape:
        yield f"{what} differ in shape: {tuple(found.shape)} and {tuple(expected.shape)}"
    elif expected.numel():
        far = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        if not far <= _TOLERANCE:
            yield f"{what} differ by {far:.3g} of the largest input"


CHECKS: tuple[Check[InputsCase], ...] = (
    all_state_is_buffers,
    output_has_a_column_for_each_input,
    output_is_finite_and_repeatable,
    rows_do_not_mix,
    buffers_restore_the_map,
    weight_two_is_the_row_twice,
    order_of_rows_does_not_matter,
)
