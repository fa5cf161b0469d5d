"""The error of the NLL of a trained model on new rows that are in groups."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mlefw.reading.levels import factorize
from mlefw.reading.table import Table
from mlefw.rows.clustered import UnitTally, group_units
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.units import with_error
from mlefw.schema.schema import Schema
from mlefw.system.warning import warn


class UnitScores:
    """The mean NLL of a trained model on blocks of new rows, with its standard error over groups of rows.

    Args:
        trained: the model; `data.group` of its training names the array of groups.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained, self.tally = trained, UnitTally(group_units)
        is_table = isinstance(trained.schema, Schema)
        self.group = None if is_table else trained.config.data.get("group")
        self._position: dict[str, int] = {}

    def codes(self, table: Table) -> Tensor | None:
        """The group of each row of a block as a number, (n,) int64; None where rows are units themselves."""
        if self.group is None:
            return None
        if self.group not in table.columns:
            warn(
                f"{table.origin}: it has no array {self.group!r} (data.group), so that standard errors take rows for "
                "independent of each other"
            )
            self.group = None
            return None
        names, code = factorize(table.columns[self.group])
        known = [self._position.setdefault(name, len(self._position)) for name in names]
        return torch.tensor(known, dtype=torch.int64)[torch.from_numpy(code)]

    @torch.no_grad()
    def add(self, rows: Rows, code: Tensor | None) -> None:
        """Add a block of rows with the numbers of their groups."""
        if code is not None:
            weight = rows.row_weight
            self.tally.add(weight * rows.row_means(self.trained.objective.nll(rows)), weight, code)

    def applied(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures over all blocks with the error over groups, where rows have groups."""
        return dict(figures) if self.tally.is_empty else with_error(figures, self.tally.result()[0].error)

    @property
    def count(self) -> int:
        """The number of groups; 0 where each row is a unit."""
        return 0 if self.tally.is_empty else self.tally.result()[0].num_units

    @property
    def name(self) -> str:
        """The number and kind of units, such as `12 groups`; or `rows`."""
        return "rows" if self.tally.is_empty else self.tally.result()[1]
