"""Targets of a few distinct values under a density, which may always win by spikes at these values."""

import math

import torch

from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.multitask import JointHead
from mlefw.rows.rows import Rows
from mlefw.system.warning import warn

MOST_VALUES = 30
"""Distinct values up to which a target is coarse."""

FEWEST_ROWS = 5
"""Rows for each of them, on average, from which values that repeat are no accident."""

_FIRST = 10_000
"""Rows that are looked at before all are."""

_ROUNDING = 1e-6
"""Of a step, by which a value may miss a multiple of it, as 0.1 + 0.2 does."""


def rounding(y: torch.Tensor) -> tuple[int, float, bool] | None:
    """How many distinct values a target (n,) has, their step, and whether all are a whole number of steps apart.

    The step is the least distance between two values. None for a target that is not coarse: of more than 30 values, or
    fewer than 5 rows for each, or of one value alone.
    """
    if len(y[:_FIRST].unique()) > MOST_VALUES:
        return None
    values = y.unique()
    count = len(values)
    if not 2 <= count <= MOST_VALUES or len(y) < FEWEST_ROWS * count:
        return None
    step = float(values.diff().min())
    away = (values - values[0]) / step
    return count, step, bool(((away - away.round()).abs() <= _ROUNDING * away.clamp(min=1.0)).all())


def warn_of_coarse_target(head: Head, rows: Rows, target: str) -> None:
    """Say of a coarse numeric target under a density what its likelihood may claim, and which head gives masses."""
    if isinstance(head, JointHead | CensoredHead) or head.support.is_discrete or rows.y.ndim != 1:
        return
    found = rounding(rows.y[rows.weight > 0])
    if found is None:
        return
    count, step, is_lattice = found
    apart = f"whole steps of {step:.6g} apart" if is_lattice else f"{step:.6g} or more apart"
    masses = "head=bernoulli" if count == 2 else "head=ordinal, which gives each value a probability"
    warn(
        f"column {target!r} (data.target) has {count} distinct values in {rows.num_rows} training rows, {apart}, and "
        "the head is a density: one with spikes at these values has as low an NLL as one likes. The width of the "
        f"rounding bounds what may be claimed: a mean NLL below {math.log(step):.4g} nats per row, its logarithm, is "
        f"more than values {step:.6g} apart can show. Expected {masses}; or head=censored with "
        f"data.target=[low,high], two columns with {step / 2:.6g} less and {step / 2:.6g} more than the value"
    )
