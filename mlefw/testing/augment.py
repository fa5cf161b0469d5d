"""Conformance checks of an augmentation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlefw.augment.base import Augment
from mlefw.testing.conformance import Check, hold

_SEED = 3
"""Seed of the random numbers, equal in all passes but where another one is named."""
_COPIES = 64
"""Equal rows in one batch, of which some have to be changed in different ways."""


@dataclass(frozen=True)
class AugmentCase:
    """An augmentation, and rows x (n, *input_shape) to try it with."""

    augment: Augment
    x: Tensor

    def changed(self, x: Tensor, seed: int = _SEED) -> Tensor:
        """The changed rows, with random numbers from a seed."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.augment.train()(x)


def check_augment(augment: Augment, input_shape: Sequence[int], num_rows: int = 6) -> None:
    """Check an augmentation against all rules of its kind.

    Args:
        augment: the augmentation.
        input_shape: shape of x of a row that it is for, such as (channels, height, width).
        num_rows: number of rows to try it with.

    Raises:
        ConformanceError: the augmentation breaks rules; the message names them, and what was found and expected.
        UsageError: it refuses rows of this shape.
    """
    augment.check(input_shape)
    generator = torch.Generator().manual_seed(0)
    hold(augment, AugmentCase(augment, torch.randn(num_rows, *input_shape, generator=generator)), CHECKS)


def it_holds_no_state(case: AugmentCase) -> Iterator[str]:
    """It has neither parameters nor buffers: a checkpoint keeps none, and predictions do without it."""
    for name in case.augment.state_dict():
        yield f"it holds {name!r}: expected no parameters and no buffers"
    if any(p.requires_grad for p in case.augment.parameters()):
        yield "it has parameters: what is to be trained is part of the model"


def shape_and_type_stay(case: AugmentCase) -> Iterator[str]:
    """The output is of the shape and the type of x, also for one row, for no rows, and in 64 bit."""
    for x in (case.x, case.x[:1], case.x[:0], case.x.double()):
        found = case.changed(x)
        if found.shape != x.shape or found.dtype != x.dtype:
            yield f"for {x.dtype} {tuple(x.shape)} it is {found.dtype} {tuple(found.shape)}"


def output_is_finite_and_its_argument_unchanged(case: AugmentCase) -> Iterator[str]:
    """The output is finite, and x is not changed in place: it is the memory of the batch."""
    x = case.x.clone()
    if not bool(case.changed(x).isfinite().all()):
        yield "the output is not finite"
    if not torch.equal(x, case.x):
        yield "it changes its argument x"


def random_numbers_are_those_of_the_global_generator(case: AugmentCase) -> Iterator[str]:
    """The output is equal for equal states of torch's generator, so that a resumed run goes on as before."""
    x = case.x[:1].expand(_COPIES, *case.x.shape[1:]).contiguous()
    if not torch.equal(case.changed(x), case.changed(x)):
        yield "the output differs for equal states of torch's generator: expected torch's own random numbers alone"


def each_row_is_drawn_anew(case: AugmentCase) -> Iterator[str]:
    """Equal rows of one batch do not all change alike."""
    found = case.changed(case.x[:1].expand(_COPIES, *case.x.shape[1:]).contiguous())
    if torch.equal(found, found[:1].expand_as(found)):
        yield f"{_COPIES} equal rows are changed alike: expected random numbers for each row"


def rows_do_not_mix(case: AugmentCase) -> Iterator[str]:
    """The output for a row depends on no other row, since targets are not mixed either."""
    half = len(case.x) // 2
    other = torch.cat([case.x[:half], 1.5 * case.x[half:].flip(0)])
    if not torch.equal(case.changed(case.x)[:half], case.changed(other)[:half]):
        yield "a row changes with the rows beside it"


CHECKS: tuple[Check[AugmentCase], ...] = (
    it_holds_no_state,
    shape_and_type_stay,
    output_is_finite_and_its_argument_unchanged,
    random_numbers_are_those_of_the_global_generator,
    each_row_is_drawn_anew,
    rows_do_not_mix,
)
