"""One raw feature column and the design columns it becomes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.levels import codes, factorize, is_text, numbers
from mlefw.rows import Table

BOOLEANS = ("False", "True")

MAX_LEVELS = 100
"""A category with more levels than this, and than half of the rows, is an identifier or free text."""


@dataclass(frozen=True)
class Feature:
    """A raw feature column: a number, or a category whose first sorted level is the reference."""

    name: str
    kind: Literal["numeric", "category"]
    levels: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The design columns that the feature becomes."""
        return [self.name] if self.kind == "numeric" else [f"{self.name}={level}" for level in self.levels[1:]]

    def fill(self, x: np.ndarray, table: Table) -> None:
        """Writes the design columns of the feature into x, (n, len(names)), which holds zeros."""
        if self.kind == "numeric":
            x[:, 0] = numbers(table, self.name, "a numeric feature")
            return
        code = codes(table, self.name, self.levels, "a category")
        coded_rows = np.flatnonzero(code)
        x[coded_rows, code[coded_rows] - 1] = 1


def learn_feature(table: Table, name: str, listed: bool) -> Feature:
    """The feature a column is: a category where it is listed as one, or holds text or booleans; else a number.

    Raises:
        UsageError: numbers that are not finite, or far too many levels.
    """
    column = table.columns[name]
    if not (listed or is_text(column) or column.dtype.kind == "b"):
        numbers(table, name, "a numeric feature")
        return Feature(name, "numeric")
    if column.dtype.kind == "b":
        return Feature(name, "category", BOOLEANS)
    levels, _ = factorize(column)
    if len(levels) > max(MAX_LEVELS, table.num_rows / 2):
        raise UsageError(
            f"{table.origin}: column {name!r} has {len(levels)} levels in {table.num_rows} rows"
            "\n  an identifier or free text? name it in data.id, or leave it out of data.features"
        )
    return Feature(name, "category", tuple(levels))
