"""Sets the buffers `center` and `gain` of a head: eta = center + gain · raw, raw being the output of the network."""

import torch

from mlefw.baseline.arrays import as_columns
from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.head.base import Head
from mlefw.head.multitask import JointHead
from mlefw.objective.linear_terms import TermsModel
from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import target_statistics


def set_units(head: Head, train: Rows) -> None:
    """Set `gain` and `center` of a head from mean and spread of the target in the training rows."""
    if isinstance(head, JointHead):
        columns = [train._replace(y=y)._asdict() for y in train.y.unbind(1)]
        # Of each target the rows in which it is known.
        known = [Rows(**c).take(~c["y"].isnan()) if bool(c["y"].isnan().any()) else Rows(**c) for c in columns]
        mean, spread = zip(*(target_statistics(rows) for rows in known), strict=True)
        head.set_column_units(mean, spread)
    elif head.target == "numeric":
        head.set_units(*target_statistics(train._replace(y=head.points(train.y))))


def through_origin(head: Head, mean: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Means of the features, zero for those of a column of eta without an intercept, whose center becomes zero.

    Centred features would give such a column an intercept.

    Args:
        head: the head, whose center is changed.
        mean: means of the features, (num_features,).
        used: which features, and in its last column whether an intercept, each column of eta has.
    """
    bare = ~used[:, -1]
    head.center[: head.eta_dim][bare] = 0.0
    return torch.where(used[bare, :-1].any(0), torch.zeros_like(mean), mean)


def place(head: Head, null: Solution) -> Head:
    """Set `center` so that a raw output of zero is the null model (eta = 0 for `head.start=zero`); the head itself."""
    if head.start == "zero":
        head.center.zero_()
        return head
    _, bias, shared = null.problem.split(null.theta)
    _move_center(head, torch.cat([bias, shared]))
    for column, limit in head.column_limits():
        # Beyond these limits the NLL is so flat in eta that training would not leave them.
        near = {"max" if limit.end > 0 else "min": limit.end if limit.start is None else limit.start}
        head.center[column] = head.center[column].clamp(**near)
    return head


def start_at(objective: Objective, solution: Solution) -> None:
    """Start a model at an exact linear estimate.

    Weights and bias go into the model, and `center` is moved so that zero is the estimate of each shared parameter.
    """
    weight, bias, shared = full_weight(solution)
    if (features := solution.problem.features) is not None:
        mean, scale = (as_columns(one, features.shape) for one in (objective.model.mean, objective.model.scale))  # type: ignore[arg-type]
        weight, bias = features.on_inputs(weight, bias, mean, scale)
    model = objective.model.model
    if isinstance(model, TermsModel):
        model.start_linear_at(weight, bias)
    else:
        model.start_at(weight, bias)  # type: ignore[operator, union-attr]
    _move_center(objective.head, torch.cat([torch.zeros_like(bias), shared]))


def _move_center(head: Head, raw: torch.Tensor) -> None:
    """Move `center` so that raw = 0 gives the eta that `raw`, (eta_dim + shared_dim,), gives now; floors are kept."""
    head.center.add_(head.gain * raw)
    head.center.clamp_(min=head.lowest())
