"""Leave-one-out cross-validation, by rows or by groups."""

from dataclasses import dataclass

import numpy as np

from mlefw.cv.base import Fold, Scheme
from mlefw.errors import UsageError
from mlefw.reading.split import Split
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class LeaveOneOut(Scheme):
    """Each row is held out once, in the order of the table; under `data.split=group` each group, in sorted order."""

    def held_out(self, split: Split, table: Table, identifier: str | None) -> list[Fold]:
        """A fold for each row, or for each group.

        Raises:
            UsageError: `data.time` orders the rows, or there is only one group.
        """
        if split.rule == "time":
            raise UsageError(f"cv=loo fits on the future of data.time={split.time}\n  expected: cv=rolling")
        if split.rule != "group":
            return [Fold(np.array([row])) for row in range(table.num_rows)]
        names, groups = split.groups(table)
        if len(names) < 2:
            raise UsageError(f"{table.origin}: data.group={split.group} has only one group\n  expected: at least two")
        return [Fold(np.flatnonzero(groups == group)) for group in range(len(names))]
