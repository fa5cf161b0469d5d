"""The units over which the standard errors of a run on arrays are taken: its rows, or groups of them."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mlefw.data.base import Source
from mlefw.metric.base import of_dependent
from mlefw.objective.objective import Evaluation
from mlefw.reading.table import Table
from mlefw.rows.clustered import Units, clustered_mean, group_units, sequence_units
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows
from mlefw.run.held_out import Parts


def units_of(source: Source, parts: Parts, splits: Mapping[str, Rows]) -> dict[str, Units]:
    """The units of each split: documents or blocks of a text, groups of rows (`data.group`); empty where rows are.

    Rows of a table are units by themselves, whatever their groups, which say how they are split.

    Args:
        source: the source, which names the array of groups.
        parts: for each split its table, and the positions of its rows in it.
        splits: the coded rows by split.
    """
    texts = {split: rows.windows.origin for split, rows in splits.items() if isinstance(rows, TokenRows)}
    if texts:
        return {split: sequence_units(document) for split, document in texts.items()}
    if source.form == "columns" or not source.group:
        return {}
    return {
        split: group_units(_codes(source, table)[torch.from_numpy(index)], splits[split].row_weight)
        for split, (table, index) in parts.items()
    }


def _codes(source: Source, table: Table) -> Tensor:
    return torch.from_numpy(source.splitter.groups(table)[1].astype(np.int64))


def num_units(rows: Rows, units: Units | None) -> int:
    """How many units have an observation: the rows, where no other units are given."""
    seen = rows.row_weight > 0
    return int(seen.sum()) if units is None else len(units.of_row[seen].unique())


def over_units(
    figures: Mapping[str, float], evaluation: Evaluation, rows: Rows, units: Units | None, is_sequential: bool = False
) -> dict[str, float]:
    """Figures of a split with `nll_se` over its units (see `with_error`); as they are where each row is a unit.

    Args:
        figures: the figures that metrics have computed, over rows that they take for independent.
        evaluation: the NLL of each row.
        rows: the rows.
        units: their units; None where each row is one.
        is_sequential: whether each observation is forecast given the earlier ones of its unit.
    """
    if units is None:
        return dict(figures)
    weight = rows.row_weight
    error = clustered_mean(weight * evaluation.nll, weight, units.of_row).error
    return with_error(figures, error, is_sequential)


def with_error(figures: Mapping[str, float], error: float, is_sequential: bool = False) -> dict[str, float]:
    """Figures with a standard error of the NLL over units of several rows; without one where it is not finite.

    Figures that hold for independent observations alone are left out, unless forecasts are sequential: of the next
    observation, given all earlier ones.
    """
    kept = dict(figures) if is_sequential else of_dependent(figures)
    kept.pop("nll_se", None)
    return kept | ({"nll_se": error} if error < float("inf") else {})
