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
from mlefw.rows.shape import RowShape
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


def independent_units(splits: Mapping[str, Rows], units: Mapping[str, Units], shape: RowShape) -> dict[str, float]:
    """By split how many units have an observation, where observations may depend on each other; else empty.

    Args:
        splits: the rows by split.
        units: their units, where these are not the rows.
        shape: the shape of a row. Sequential forecasts, which are given all earlier observations, count as independent.
    """
    if shape.is_sequential or not (shape.positions or units):
        return {}
    found = {}
    for split, rows in splits.items():
        seen = rows.row_weight > 0
        found[split] = float(seen.sum()) if split not in units else len(units[split].of_row[seen].unique())
    return found


def over_units(
    figures: Mapping[str, Mapping[str, float]],
    evaluations: Mapping[str, Evaluation],
    splits: Mapping[str, Rows],
    units: Mapping[str, Units],
    shape: RowShape,
) -> dict[str, dict[str, float]]:
    """Figures by split with `nll_se` over its units (see `with_error`); as they are where each row is a unit.

    Args:
        figures: the figures that metrics have computed, over rows that they take for independent.
        evaluations: the NLL of each row.
        splits: the rows.
        units: their units, where these are not the rows.
        shape: the shape of a row.
    """
    found = {split: dict(values) for split, values in figures.items()}
    for split, one in units.items():
        weight = splits[split].row_weight
        error = clustered_mean(weight * evaluations[split].nll, weight, one.of_row).error
        found[split] = with_error(figures[split], error, shape.is_sequential)
    return found


def with_error(figures: Mapping[str, float], error: float, is_sequential: bool = False) -> dict[str, float]:
    """Figures with a standard error of the NLL over units of several rows; without one where it is not finite.

    Figures that hold for independent observations alone are left out, unless forecasts are sequential: of the next
    observation, given all earlier ones.
    """
    kept = dict(figures) if is_sequential else of_dependent(figures)
    kept.pop("nll_se", None)
    return kept | ({"nll_se": error} if error < float("inf") else {})
