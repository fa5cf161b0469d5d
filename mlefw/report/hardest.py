"""The rows that a model forecasts worst, and the ways to show them: one for each kind of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from mlefw.objective.objective import Objective
from mlefw.rows.rows import Rows
from mlefw.schema.kinds import RowSchema


@dataclass(frozen=True)
class Hardest:
    """The k rows of a split with the largest NLL, the largest first, and what was forecast of them.

    Attributes:
        index: positions of the rows in their split, (k,) int64.
        rows: the rows.
        nll: NLL of each observation in nats, (k, *positions).
        mean: mean NLL over the observations of each row, (k,).
        distribution: the forecasts, of batch shape (k, *positions).
        split: name of the split.
        num_rows: number of rows of the split that have an observation.
        share: share of the NLL of the whole split that these rows have; None for densities, whose NLL may be negative.
    """

    index: Tensor
    rows: Rows
    nll: Tensor
    mean: Tensor
    distribution: Distribution
    split: str
    num_rows: int
    share: float | None


class View(NamedTuple):
    """A way to show the hardest rows of a kind.

    Attributes:
        name: of the picture or the text, as a file name without its end.
        title: what is shown, for a heading.
        most: number of rows that are shown.
        suits: whether rows of a schema are shown in this way.
        show: a picture, or text that is shown as it is.
    """

    name: str
    title: str
    most: int
    suits: Callable[[RowSchema], bool]
    show: Callable[[Hardest, RowSchema], Figure | str]


@torch.no_grad()
def hardest(objective: Objective, nll: Tensor, rows: Rows, split: str, most: int) -> Hardest | None:
    """The rows of a split with the largest NLL; None where no row has an observation.

    Of rows with positions those with fewer than half of the most observations are left out: a mean over few of them is
    large by chance.

    Args:
        objective: the model that forecasts.
        nll: mean NLL over the observations of each row, (n,).
        rows: the rows, (n,).
        split: name of their split.
        most: number of rows to choose.
    """
    weight = rows.row_weight
    counted = weight > 0
    shown = counted & (2 * weight >= weight.max()) if rows.positions else counted
    size = nll.double().nan_to_num(nan=torch.inf)
    index = torch.where(shown, size, -torch.inf).sort(descending=True, stable=True).indices
    index = index[: min(most, int(shown.sum()))]
    if not len(index):
        return None
    some = rows.take(index)
    eta = objective.eta(some.x, some.offset)
    share = None
    if objective.head.support.is_discrete:
        whole = torch.where(counted, weight * size, 0.0)
        share = float(whole[index].sum() / whole.sum().clamp(min=torch.finfo(whole.dtype).tiny))
    each = objective.head.nll(eta, some.y)
    return Hardest(index, some, each, nll[index], objective.head(eta), split, int(counted.sum()), share)
