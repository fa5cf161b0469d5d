"""The error of the NLL of a trained model on new rows that depend on each other: in groups, or windows of a text."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mlefw.reading.levels import factorize
from mlefw.reading.table import Table
from mlefw.reading.text_table import TextTable
from mlefw.rows.clustered import Units, UnitTally, group_units, sequence_units
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.stored_estimates import row_nll
from mlefw.run.units import with_error
from mlefw.schema.schema import Schema
from mlefw.schema.tokens import TokenSchema
from mlefw.system.warning import warn


class UnitScores:
    """The mean NLL of a trained model on blocks of new rows, with its standard error over units of several rows.

    Units are groups of rows (`data.group`), or documents or blocks of a text, as `sequence_units` says.

    Args:
        trained: the model; `data.group` of its training names the array of groups.
    """

    def __init__(self, trained: Trained) -> None:
        is_text = isinstance(trained.schema, TokenSchema)
        self.trained, self.tally = trained, UnitTally(_text_units if is_text else group_units)
        is_table = isinstance(trained.schema, Schema)
        self.group = None if is_table else trained.config.data.get("group")
        self._position: dict[str, int] = {}

    def codes(self, table: Table) -> Tensor | None:
        """The group or document of each row of a block, (n,) int64; None where rows are units themselves."""
        if isinstance(table, TextTable):
            return table.windows.origin
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
    def add(self, rows: Rows, code: Tensor | None) -> Tensor | None:
        """Add a block of rows with what `codes` gave; the NLL of each, (n,), or None where rows are units."""
        if code is None:
            return None
        weight, nll = rows.row_weight, row_nll(self.trained.objective, rows)
        self.tally.add(weight * nll, weight, code)
        return nll

    def applied(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures over all blocks with the error over units, where these are not the rows."""
        if self.tally.is_empty:
            return dict(figures)
        return with_error(figures, self.tally.result()[0].error, self.trained.schema.row_shape.is_sequential)

    @property
    def count(self) -> int:
        """The number of units; 0 where each row is a unit."""
        return 0 if self.tally.is_empty else self.tally.result()[0].num_units

    @property
    def name(self) -> str:
        """The number and kind of units, such as `12 groups`; or `rows`."""
        return "rows" if self.tally.is_empty else self.tally.result()[1]


def _text_units(document: Tensor, weight: Tensor) -> Units:
    return sequence_units(document)
