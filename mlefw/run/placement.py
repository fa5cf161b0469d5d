"""Where a head's raw outputs land: in the units of the target, about the null model or an exact estimate."""

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.multitask import JointHead
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import target_statistics


def set_units(head: Head, train: Rows) -> None:
    """Put a head into the units of the training rows."""
    if isinstance(head, JointHead):
        columns = [train._replace(y=y)._asdict() for y in train.y.unbind(1)]
        known = [Rows(**c).take(~c["y"].isnan()) if bool(c["y"].isnan().any()) else Rows(**c) for c in columns]
        mean, spread = zip(*(target_statistics(rows) for rows in known), strict=True)
        head.set_column_units(mean, spread)
    elif head.target == "numeric":
        rows = train._replace(y=head.points(train.y)) if isinstance(head, CensoredHead) else train
        head.set_units(*target_statistics(rows))


def place(head: Head, null: Solution) -> Head:
    """Let a raw output of zero be the null model (or eta = 0, for `start=zero`)."""
    if head.start == "zero":
        head.center.zero_()
        return head
    _, bias, shared = null.problem.split(null.theta)
    _move_center(head, torch.cat([bias, shared]))
    for column, limit in head.column_limits():
        # Further out there is little slope left to train by.
        near = {"max" if limit.end > 0 else "min": limit.end if limit.start is None else limit.start}
        head.center[column] = head.center[column].clamp(**near)
    return head


def start_at(objective: Objective, solution: Solution) -> None:
    """Start a model at an exact linear estimate: the weights go into the model, and shared raw = 0 becomes theirs."""
    weight, bias, shared = full_weight(solution)
    objective.model.model.start_at(weight, bias)  # type: ignore[operator, union-attr]
    _move_center(objective.head, torch.cat([torch.zeros_like(bias), shared]))


def _move_center(head: Head, raw: torch.Tensor) -> None:
    """Let raw = 0 land where `raw` (eta_dim + shared_dim,) does now, no scale below its floor."""
    head.center.add_(head.gain * raw)
    head.center.clamp_(min=head.lowest())
