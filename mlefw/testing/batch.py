"""Conformance checks of a batch regime."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlefw.batch.base import BatchRegime
from mlefw.testing.conformance import Check, hold

Steps = list[tuple[Tensor, float]]
"""Row indices and scale of each step of an epoch."""

_EPOCHS = (0, 1, 3, 8, 40)
_REPEATS = 64
"""Epochs over which the scale is averaged."""
_FAR = 6.0
"""Deviation in standard errors that fails: an unbiased regime exceeds it with probability 2e-9 in each row."""


@dataclass(frozen=True)
class BatchCase:
    """A batch regime, and the numbers of rows to try it with."""

    regime: BatchRegime
    num_rows: Sequence[int]

    def epoch(self, num_rows: int, number: int = 0, seed: int = 0) -> Steps:
        """The steps of an epoch."""
        return list(self.regime.batches(num_rows, number, torch.Generator().manual_seed(seed)))

    @cached_property
    def ragged(self) -> int:
        """A number of rows that gives two batches and a third of another one."""
        most = max(self.num_rows)
        index, _ = next(iter(self.regime.batches(most, 0, torch.Generator().manual_seed(0))))
        size = len(index)
        return min(2 * size + size // 3 + 1, 2000)


def check_batch(regime: BatchRegime, num_rows: Sequence[int] = (1, 2, 3, 4, 5, 8, 11, 100)) -> None:
    """Check a batch regime against all rules of its kind.

    Args:
        regime: the regime.
        num_rows: numbers of rows to try it with.

    Raises:
        ConformanceError: the regime breaks rules; the message names them, and what was found and expected.
    """
    hold(regime, BatchCase(regime, num_rows), CHECKS)


def num_batches_is_the_number_of_steps(case: BatchCase) -> Iterator[str]:
    """`num_batches` is the number of steps that `batches` yields."""
    for n in case.num_rows:
        for number in _EPOCHS:
            said, found = case.regime.num_batches(n, number), len(case.epoch(n, number))
            if said != found:
                yield f"of {n} rows in epoch {number} num_batches says {said}, and batches yields {found}"


def steps_are_row_indices_and_a_scale(case: BatchCase) -> Iterator[str]:
    """A step is a pair of row indices (k,), int64, and a positive float scale."""
    for n in case.num_rows:
        for number in (0, 5):
            for index, scale in case.epoch(n, number):
                if index.dtype != torch.int64 or index.ndim != 1 or not len(index):
                    found = f"{tuple(index.shape)} {index.dtype}"
                    yield f"of {n} rows a step has indices {found}, expected (k,) int64, k > 0"
                elif not 0 <= int(index.min()) <= int(index.max()) < n:
                    yield f"of {n} rows a step names the rows {int(index.min())} to {int(index.max())}"
                if not isinstance(scale, float) or not 0 < scale < math.inf:
                    yield f"of {n} rows a step has scale {scale!r}, expected a positive float"


def steps_depend_on_the_generator_alone(case: BatchCase) -> Iterator[str]:
    """Generators of equal state give equal steps, and no other generator is used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = case.epoch(100, 2, seed=7)
        if not torch.equal(torch.get_rng_state(), before):
            yield "it draws from the global generator: expected draws from the one it is given"
        torch.manual_seed(2)
        again = case.epoch(100, 2, seed=7)
    if [(i.tolist(), s) for i, s in first] != [(i.tolist(), s) for i, s in again]:
        yield "two epochs with generators of one seed have different steps"


def scale_is_unbiased(case: BatchCase) -> Iterator[str]:
    """Over the steps of an epoch, the mean of scale · (number of times that a row is in the batch) is 1 for every row.

    It holds exactly, or over 64 epochs within 6 standard errors; then E[scale · Σ_batch w·nll] = Σ w·nll.
    """
    for n in sorted({*case.num_rows, case.ragged}):
        weights = torch.stack([_weight_of_rows(case.epoch(n, k, seed=k), n) for k in range(_REPEATS)])
        whole = weights.mean(1)
        for what, each in (("of all rows", whole.unsqueeze(1)), ("of a row", weights)):
            mean, error = each.mean(0), each.std(0) / math.sqrt(_REPEATS)
            off = (mean - 1).abs()
            if not bool((off <= 1e-9 + _FAR * error).all()):
                worst = int((off - _FAR * error).argmax())
                found = f"{float(mean[worst]):.4g} ± {float(error[worst]):.2g}"
                yield f"of {n} rows the mean weight {what} over an epoch is {found}, expected 1"
                break


def _weight_of_rows(steps: Steps, num_rows: int) -> Tensor:
    weight = torch.zeros(num_rows, dtype=torch.float64)
    for index, scale in steps:
        weight.index_add_(0, index, torch.full((len(index),), scale, dtype=torch.float64))
    return weight / len(steps)


def claimed_without_replacement_holds(case: BatchCase) -> Iterator[str]:
    """`without_replacement`: no row is twice in a batch."""
    for n in case.num_rows if case.regime.without_replacement else ():
        for index, _ in case.epoch(n):
            if len(index.unique()) < len(index):
                yield f"of {n} rows a batch holds a row twice"


CHECKS: tuple[Check[BatchCase], ...] = (
    num_batches_is_the_number_of_steps,
    steps_are_row_indices_and_a_scale,
    steps_depend_on_the_generator_alone,
    scale_is_unbiased,
    claimed_without_replacement_holds,
)
