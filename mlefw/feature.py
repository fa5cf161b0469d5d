"""One raw feature column and the design columns it becomes."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.levels import BOOLEANS, codes, factorize, is_text, numbers
from mlefw.rows import Table

Unseen = Literal["error", "reference", "ignore"]

MAX_LEVELS = 100
"""A category with more levels than this, and than half of the rows, is an identifier or free text."""


@dataclass(frozen=True)
class Feature:
    """A raw feature column: a number, or a category whose first sorted level is the reference.

    `means` are those of its design columns over the training rows, without the rows that lack it. `indicator` says
    that training rows lacked it: a last design column is 1 where a row does, as `{name} is missing`.
    """

    name: str
    kind: Literal["numeric", "category"]
    levels: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    indicator: bool = False

    @property
    def names(self) -> list[str]:
        """The design columns that the feature becomes."""
        names = [self.name] if self.kind == "numeric" else [f"{self.name}={level}" for level in self.levels[1:]]
        return [*names, f"{self.name} is missing"] if self.indicator else names

    def learn_means(self, blocks: Iterable[tuple[Table, np.ndarray]], impute: bool) -> "Feature":
        """The same with the means of the training rows, and with an indicator if some lack it and are to be imputed.

        Args:
            blocks: the training rows, and their weights.
            impute: whether missing cells are.

        Raises:
            UsageError: a feature that no training row with a weight has.
        """
        sums, total, is_lacking = np.zeros(len(self.names)), 0.0, False
        for table, weights in blocks:
            present, index = table.present(self.name)
            weight, x = weights[index], np.zeros((len(index), len(self.names)))
            self._code(x, np.arange(len(index)), present, "error")
            sums, total = sums + weight @ x, total + float(weight.sum())
            is_lacking |= len(index) < table.num_rows
        if not total:
            raise _empty(table, self.name, "training row")
        return replace(self, means=tuple((sums / total).tolist()), indicator=impute and is_lacking)

    def fill(self, x: np.ndarray, table: Table, unseen: Unseen = "error") -> None:
        """Writes the design columns of the feature into x, (n, len(names)), which holds zeros.

        A missing cell takes the mean, or the reference level.
        """
        present, index = table.present(self.name)
        self._code(x, index, present, unseen)
        if self.name not in table.holes:
            return
        hole = table.holes[self.name]
        if self.kind == "numeric":
            x[hole, 0] = self.means[0]
        if self.indicator:
            x[hole, -1] = 1
        else:
            message = f"{table.origin}: column {self.name!r} has missing values, which the training rows had not"
            what = "mean" if self.kind == "numeric" else "reference level"
            warnings.warn(f"{message} ({table.where(hole)}): the {what} is taken", UserWarning, stacklevel=2)

    def _code(self, x: np.ndarray, index: np.ndarray, present: Table, unseen: Unseen) -> None:
        if self.kind == "numeric":
            x[index, 0] = numbers(present, self.name, "a numeric feature")
            return
        code = codes(present, self.name, self.levels, "a category", unseen != "error")
        known = code > 0
        x[index[known], code[known] - 1] = 1
        if unseen == "ignore" and (code < 0).any():
            x[np.ix_(index[code < 0], np.arange(len(self.means)))] = self.means


def _empty(table: Table, name: str, rows: str) -> UsageError:
    return UsageError(
        f"{table.origin}: column {name!r} is missing in every {rows}\n  leave it out: list the others in data.features"
    )


def learn_feature(table: Table, name: str, listed: bool) -> Feature:
    """The feature a column is: a category where it is listed as one, or holds text or booleans; else a number.

    Raises:
        UsageError: numbers that are not finite, or far too many levels.
    """
    whole, (table, _) = table, table.present(name)
    if whole.num_rows and not table.num_rows:
        raise _empty(whole, name, "row")
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
