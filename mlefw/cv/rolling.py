"""Rolling-origin cross-validation: each fit uses the past only, and is tested on the rows that follow."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlefw.cv.base import Fold, Scheme
from mlefw.errors import UsageError
from mlefw.reading.split import Split
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class Rolling(Scheme):
    """Test windows of about equal numbers of rows, in the order of `data.time`; rows of one time are in one window.

    Attributes:
        initial: share of the rows that the first fit uses.
        horizon: share of the rows in each test window. A remainder of at least half a window is a window of its own; a
            smaller one is part of the last window.
    """

    initial: float = 0.5
    horizon: float = 0.1

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UsageError: naming the setting.
        """
        super().__post_init__()
        for name in ("initial", "horizon"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"cv.{name}={getattr(self, name)}: expected a share of the rows between 0 and 1")

    def held_out(self, split: Split, table: Table, identifier: str | None) -> list[Fold]:
        """A fold for each test window, the earliest first.

        Raises:
            UsageError: `data.time` is not set, or all rows have the same time.
        """
        if split.rule != "time":
            raise UsageError("cv=rolling needs data.time=COLUMN, in whose order the rows are fitted and tested")
        _, code, sizes = np.unique(split.moments(table), return_inverse=True, return_counts=True)
        ends, num_rows = np.cumsum(sizes), table.num_rows
        size = max(1, round(self.horizon * num_rows))
        starts = np.arange(round(self.initial * num_rows), num_rows, size)
        starts = starts[(num_rows - starts >= size / 2) | (starts == starts[0])]
        # A window begins between two times, at the boundary nearest to its intended first row: `cuts` has the number of
        # distinct times before each window.
        cuts = np.unique(1 + np.abs(ends[None, :-1] - starts[:, None]).argmin(1)) if len(ends) > 1 else np.empty(0, int)
        if not len(cuts):
            raise UsageError(
                f"{table.origin}: data.time={split.time} has the same value in all rows\n  expected: at least two times"
            )
        bounds = [*cuts.tolist(), len(ends)]
        return [
            Fold(np.flatnonzero((code >= first) & (code < last)), 0, np.flatnonzero(code < first))
            for first, last in pairwise(bounds)
        ]
