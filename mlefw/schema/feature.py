"""A raw feature column and its design columns."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.levels import BOOLEANS, codes, factorize, is_text, numbers
from mlefw.reading.table import Table
from mlefw.schema.identifier import check_levels

RESERVED = ("(intercept)", "(shared)")
"""Names in tables of coefficients that are not features."""

Unseen = Literal["error", "reference", "ignore"]
"""Treatment of an unknown level: an error, the reference level, or no effect (the mean of each design column)."""


@dataclass(frozen=True)
class Feature:
    """A raw feature column: a number, or a category whose first level is the reference.

    Attributes:
        name: name of the column.
        kind: whether it is a number or a category.
        levels: levels of a category, in the order that the source states, else sorted.
        means: means of the design columns over the training rows that have the feature.
        is_date: whether the number is a date, in days since 1970-01-01.
        indicator: whether a last design column, `{name} is missing`, is 1 where a row lacks the feature.
    """

    name: str
    kind: Literal["numeric", "category"]
    levels: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    indicator: bool = False
    is_date: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the design columns."""
        return [name for name, _ in self.design()]

    def design(self) -> Iterator[tuple[str, str]]:
        """Name and description of each design column."""
        if self.kind == "numeric":
            yield self.name, f"column {self.name!r}"
        for level in self.levels[1:]:
            yield f"{self.name}={level}", f"level {level!r} of column {self.name!r}"
        if self.indicator:
            yield f"{self.name} is missing", f"the indicator of missing values of column {self.name!r}"

    def learn_means(self, blocks: Iterable[tuple[Table, np.ndarray]], impute: bool) -> "Feature":
        """The feature with its means over the training rows, and an indicator if some lack it and are imputed.

        Args:
            blocks: blocks of training rows with their weights.
            impute: whether missing cells are imputed.

        Raises:
            UsageError: no training row with a positive weight has the feature.
        """
        sums, total, is_lacking = np.zeros(len(self.names)), 0.0, False
        for table, weights in blocks:
            present, index = table.present(self.name)
            weight = weights[index]
            sums, total = sums + self._sums(present, weight), total + float(weight.sum())
            is_lacking |= len(index) < table.num_rows
        if not total:
            raise _empty(table, self.name, "training row")
        return replace(self, means=tuple((sums / total).tolist()), indicator=impute and is_lacking)

    def _sums(self, table: Table, weight: np.ndarray) -> np.ndarray:
        """Weighted sums of the design columns over the rows of a table, (len(names),)."""
        if self.kind == "category" and not (weight % 1).any():
            # Whole numbers have exact sums in any order: they are counted, without columns in memory.
            code = codes(table, self.name, self.levels, "a category")
            return np.bincount(code, weight, len(self.levels))[1:]
        x = np.zeros((table.num_rows, len(self.names)))
        self._code(x, np.arange(table.num_rows), table, "error")
        return np.asarray(weight @ x)

    def fill(self, x: np.ndarray, table: Table, unseen: Unseen = "error") -> None:
        """Write the design columns of the feature into x, (n, len(names)), which holds zeros.

        A missing number is replaced by the mean, a missing category by the reference level.
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


def learn_feature(table: Table, name: str, listed: bool, insisted: bool = False, is_grouping: bool = False) -> Feature:
    """The feature of a column: a category if it is listed as one or holds text or booleans, else a number.

    Args:
        table: all rows.
        name: name of the column.
        listed: whether the user listed it as a category.
        insisted: whether it is accepted even if nearly every row has a level of its own.
        is_grouping: whether it names the groups of effects alone, of which each row may have one.

    Raises:
        UsageError: a number is not finite, or there are too many levels.
    """
    whole, (table, _) = table, table.present(name)
    if whole.num_rows and not table.num_rows:
        raise _empty(whole, name, "row")
    column = table.columns[name]
    if not (listed or is_text(column) or column.dtype.kind == "b"):
        numbers(table, name, "a numeric feature")
        return Feature(name, "numeric", is_date=name in whole.dates)
    if column.dtype.kind == "b":
        return Feature(name, "category", BOOLEANS)
    levels, _ = factorize(column)
    if not is_grouping:
        check_levels(table, name, len(levels), insisted or listed)
    ordered = [level for level in table.orders.get(name, ()) if level in levels]
    return Feature(name, "category", tuple(ordered if len(ordered) == len(levels) else levels))


def term_columns(features: Iterable[Feature]) -> dict[str, list[int]]:
    """Positions of the design columns of each feature, by its name: one for a number, several for a category."""
    found: dict[str, list[int]] = {}
    start = 0
    for feature in features:
        found[feature.name] = list(range(start, start + len(feature.names)))
        start += len(feature.names)
    return found


def check_dates(features: Iterable[Feature], table: Table) -> None:
    """Check that columns of dates hold dates.

    Raises:
        UsageError: one holds something else.
    """
    for feature in features:
        name = feature.name
        if feature.is_date and name not in table.dates and len(table.present(name)[1]):
            raise UsageError(
                f"{table.origin}: column {name!r} holds no dates, and in training it did"
                "\n  expected: dates, such as 2024-05-31 or 2024-05-31 12:30"
            )


def check_design_names(features: Iterable[Feature], origin: str) -> None:
    """Check that no two design columns have the same name, which tables of coefficients could not distinguish.

    Raises:
        UsageError: two design columns have the same name.
    """
    taken = dict.fromkeys(RESERVED, "what every table has")
    for name, what in (column for feature in features for column in feature.design()):
        if name in taken:
            raise UsageError(
                f"{origin}: {what} and {taken[name]} would both be called {name!r} in tables of coefficients"
                "\n  rename a column, or leave one out: list the others in data.features"
            )
        taken[name] = what
