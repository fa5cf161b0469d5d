"""Which column plays which role, and what its targets are."""

from collections import Counter
from collections.abc import Mapping

from mlefw.columns import require, shown
from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.levels import check_whole
from mlefw.rows import Table
from mlefw.target import Target, TargetKind, learn_labels


def learn_targets(table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> tuple[Target, ...]:
    """The targets with their labels; where one may be missing, those of the rows that have it."""
    if source.labels is not None and len(source.targets) > 1:
        raise UsageError("data.labels states the order of one target's labels\n  data.target names several")
    found = []
    for name in source.targets:
        one = kind if isinstance(kind, str) else kind[name]
        present = table.present(name)[0] if source.partial else table
        found.append(Target(name, one, _labels(present, name, one, source)))
    return tuple(found)


def _labels(table: Table, name: str, kind: TargetKind, source: Source) -> tuple[str, ...] | None:
    """Those of a target; what no head of the kind could take is no mistake where heads are tried one by one."""
    check_whole(table, name, "data.target")
    try:
        return learn_labels(table, name, kind, source.labels)
    except UsageError as error:
        raise MisfitError(str(error)) from error


def check_roles(table: Table, source: Source) -> None:
    """Hold the columns of a table to the roles that a source gives them.

    Raises:
        UsageError: no target, a column that does not exist, or one with two roles.
    """
    if not source.target:
        raise UsageError(f"data.target is not set\n  {table.origin} has the columns {shown(table.columns)}")
    single = ((role, getattr(source, role)) for role in ("offset", "exposure", "weight", "id"))
    roles = [("target", name) for name in source.targets] + [(role, name) for role, name in single if name]
    for role, name in roles:
        require([name], table.columns, table.origin, f"data.{role}")
    require(source.features or (), table.columns, table.origin, "data.features")
    for name, count in Counter(name for _, name in roles).items():
        if count > 1:
            shared = " and ".join(f"data.{role}" for role, one in roles if one == name)
            raise UsageError(f"column {name!r} is both {shared}\n  expected: a column for each")
    for name, count in Counter(source.features or ()).items():
        if count > 1 or name in source.targets:
            what = "is the target" if name in source.targets else "occurs twice"
            raise UsageError(f"column {name!r} in data.features {what}\n  take it out of the list")
