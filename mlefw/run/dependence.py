"""The clusters and times of the training rows of a run, from its table, for the standard errors of exact estimates."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from mlefw.configuration.settings import Settings
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.columns import require
from mlefw.reading.levels import check_whole, factorize
from mlefw.reading.table import Table
from mlefw.rows.dependence import Dependence
from mlefw.rows.rows import Rows
from mlefw.system.warning import warn

_FEW = 30
"""Number of clusters below which the errors over clusters are too small (Cameron & Miller, 2015)."""
_WAYS = 2
"""Most groupings of clusters."""
_JUMP = 1.5
"""Distance of two successive times, in medians of all, above which something is missing between them."""


def dependence_of(source: Source, table: Table, index: np.ndarray) -> Dependence:
    """The dependence of the rows of a table at `index`, (n,): their clusters and times, as the source names them.

    Raises:
        UsageError: more than two columns of clusters, one column twice, or a missing cell.
    """
    if source.form == "tokens":
        return Dependence()
    names = source.clusters
    if len(names) > _WAYS or len(set(names)) < len(names):
        raise UsageError(
            f"data.cluster=[{','.join(names)}]: expected one column, or two different ones, in whose clusters rows may "
            "depend on each other"
        )
    codes = tuple(_codes(table, name, "data.cluster" if source.cluster else "data.group")[index] for name in names)
    time = torch.from_numpy(source.splitter.moments(table)[index]) if source.time else None
    return Dependence(tuple(map(torch.from_numpy, codes)), names, time, row_name=_row_names(table, index))


def _codes(table: Table, name: str, setting: str) -> np.ndarray:
    require([name], table.columns, table.origin, setting)
    check_whole(table, name, setting)
    return factorize(table.columns[name])[1]


def _row_names(table: Table, index: np.ndarray) -> Callable[[int], str]:
    """The name of the row at a position in `index`, without keeping the columns of the table."""
    numbers = table.row_numbers(index)
    is_range = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
    place = Table({}, table.origin, int(numbers[0]) if is_range else 0, None if is_range else numbers, table.files)
    return partial(_row_name, place)


def _row_name(place: Table, row: int) -> str:
    return place.called(np.array([row]))[0]


def check_errors(config: Settings, source: Source, dependence: Dependence, train: Rows) -> None:
    """Hold the kind of standard errors to what is known of the training rows.

    Warns of few clusters, of gaps in time, and of clusters that are not used.

    Raises:
        UsageError: errors over clusters without clusters or with a single one; errors in time without times, or with
            several rows at one time.
    """
    kind = config.baseline.get("standard_errors")
    if kind == "cluster":
        _check_clusters(dependence, train)
    elif source.cluster:
        warn("data.cluster is for baseline.standard_errors=cluster alone, and does nothing here")
    if kind == "hac":
        _check_times(source, dependence, train)


def _check_clusters(dependence: Dependence, train: Rows) -> None:
    setting = "baseline.standard_errors=cluster"
    if not dependence.clusters:
        raise UsageError(f"{setting}: expected data.cluster=COLUMN, or two of them, such as data.cluster=[firm,year]")
    for name, count in zip(dependence.names, dependence.num_clusters(train.row_weight), strict=True):
        if count <= 1:
            raise UsageError(
                f"{setting}: all training rows are in one cluster of column {name!r}\n  expected: two clusters or more"
            )
        if count < _FEW:
            warn(f"{setting}: with {count} clusters of column {name!r} the errors tend to be too small; {_FEW} are few")


def _check_times(source: Source, dependence: Dependence, train: Rows) -> None:
    setting = "baseline.standard_errors=hac"
    if dependence.time is None:
        raise UsageError(f"{setting}: expected data.time=COLUMN, by which rows are ordered")
    weight = train.row_weight
    seen = weight > 0
    if bool((weight[seen] != 1).any()):
        raise UsageError(f"{setting} takes each row for one moment\n  expected: no data.weight, or weights of 0 and 1")
    order = dependence.time.argsort(stable=True)
    order = order[seen[order]]
    gaps = dependence.time[order].diff().double()
    tied = (gaps == 0).nonzero()
    if len(tied):
        first, second = (dependence.row_name(int(order[int(tied[0]) + k])) for k in range(2))
        raise UsageError(
            f"{setting}: rows {first} and {second} have one time (data.time={source.time})"
            "\n  expected: one row at each time; for several series baseline.standard_errors=cluster with their names"
        )
    wide = int((gaps > _JUMP * gaps.median()).sum()) if len(gaps) else 0
    if wide:
        warn(
            f"{setting} counts lags in rows, and {wide} distance{'s' * (wide > 1)} between successive times of "
            f"column {source.time!r} exceed the usual one: rows may be missing there"
        )
