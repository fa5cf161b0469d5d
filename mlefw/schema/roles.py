"""Roles of columns: checks of the roles, targets, weights and offsets."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.reading.columns import require, shown
from mlefw.reading.levels import check, check_whole, numbers
from mlefw.reading.table import Table
from mlefw.schema.target import Target, TargetKind, learn_labels


def learn_targets(table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> tuple[Target, ...]:
    """The targets with their labels; those of a target that may be missing come from the rows that have it.

    Raises:
        UsageError: labels are stated for several targets, a target is missing in every row, or does not fit its kind.
    """
    if source.labels is not None and len(source.targets) > 1:
        raise UsageError("data.labels states the order of one target's labels\n  data.target names several")
    found = []
    for name in source.targets:
        one = kind if isinstance(kind, str) else kind[name]
        present = table.present(name)[0] if source.partial else table
        if not present.num_rows and not source.bounds:
            raise UsageError(f"{table.origin}: column {name!r} (data.target) is missing in every row")
        found.append(Target(name, one, _labels(present, name, one, source)))
    return tuple(found)


def _labels(table: Table, name: str, kind: TargetKind, source: Source) -> tuple[str, ...] | None:
    """The labels of a target.

    Raises:
        MisfitError: the target does not fit the kind; a search over heads skips such a head.
    """
    check_whole(table, name, "data.target")
    try:
        return learn_labels(table, name, kind, source.labels)
    except UsageError as error:
        raise MisfitError(str(error)) from error


def check_roles(table: Table, source: Source) -> None:
    """Check the roles that a source gives to the columns of a table.

    Raises:
        UsageError: there is no target, or a column does not exist or has two roles.
    """
    if not source.target:
        raise UsageError(f"data.target is not set\n  {table.origin} has the columns {shown(table.columns)}")
    names = ("event", "trials", "offset", "exposure", "weight", "id", "group", "time")
    single = ((role, getattr(source, role)) for role in names)
    # One column may be both bounds, if all numbers are known exactly.
    targets = set(source.targets) if source.bounds else source.targets
    roles = [("target", name) for name in targets] + [(role, name) for role, name in single if name]
    for role, name in roles:
        require([name], table.columns, table.origin, f"data.{role}")
    require(source.clusters if source.cluster else (), table.columns, table.origin, "data.cluster")
    require(source.features or (), table.columns, table.origin, "data.features")
    # What names the group of a row may well be carried into predictions.
    several = Counter(name for role, name in roles if role != "group" or name != source.id)
    for name, count in several.items():
        if count > 1:
            shared = " and ".join(f"data.{role}" for role, one in roles if one == name)
            raise UsageError(f"column {name!r} is both {shared}\n  expected: a column for each")
    _check_listed(table, source)


def _check_listed(table: Table, source: Source) -> None:
    """Hold the features that a person has listed to the other roles of their columns."""
    if source.group and source.group in (source.features or ()):
        raise UsageError(
            f"column {source.group!r} in data.features is data.group, whose groups new rows need not have"
            "\n  take it out of the list"
        )
    if source.time and source.time in (source.features or ()) and table.columns[source.time].dtype.kind == "i":
        raise UsageError(
            f"column {source.time!r} in data.features holds dates (data.time)"
            "\n  expected: a column of numbers as a feature, such as days since a date"
        )
    for name, count in Counter(source.features or ()).items():
        if count > 1 or name in source.targets:
            what = "is the target" if name in source.targets else "occurs twice"
            raise UsageError(f"column {name!r} in data.features {what}\n  take it out of the list")


def weights(table: Table, name: str | None, whole: bool = True) -> np.ndarray:
    """The weights of the rows, (n,), all 1 if there is no column of weights.

    Args:
        table: the table, which may lack the column.
        name: name of the column, if any.
        whole: whether the table is complete, so that some weight has to be positive.

    Raises:
        UsageError: a weight is negative or not a number, or with `whole` none is positive.
    """
    if name is None or name not in table.columns:
        return np.ones(table.num_rows)
    weight = numbers(table, name, "data.weight")
    check(table, name, "data.weight", weight >= 0, "weights of zero or more")
    if whole and not weight.any():
        raise UsageError(
            f"{table.origin}: column {name!r} (data.weight) is zero in every row"
            "\n  expected: a positive weight somewhere"
        )
    return weight


def offsets(table: Table, offset: str | None, exposure: str | None) -> np.ndarray:
    """The offset of the first eta, (n,): the column `offset` plus the logarithm of the column `exposure`.

    Raises:
        UsageError: an offset is not a number, or an exposure is not positive.
    """
    known = numbers(table, offset, "data.offset") if offset else np.zeros(table.num_rows)
    if not exposure:
        return known
    exposed = numbers(table, exposure, "data.exposure")
    check(table, exposure, "data.exposure", exposed > 0, "positive numbers, whose logarithm is the offset")
    return np.asarray(known + np.log(exposed))
