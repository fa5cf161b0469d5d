"""Frames of the columns that formulas read, with replacements of missing values and unknown levels."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefw.reading.levels import codes, numbers, written
from mlefw.reading.table import Table
from mlefw.schema.feature import Feature, Unseen
from mlefw.schema.formula_library import category_of, reference_of


@dataclass(frozen=True)
class Frames:
    """Makes frames of tables.

    Attributes:
        features: the features of the schema.
        numbers: values of numeric columns that `C(…)` makes categories of.
        shares: shares of these values in the training rows.
        stated: the expressions of the formulas that are categories, which may state a reference level.
    """

    features: Sequence[Feature]
    numbers: Mapping[str, tuple[float, ...]]
    shares: Mapping[str, tuple[float, ...]]
    stated: Sequence[str]

    def categories(self, feature: Feature) -> list[Any] | None:
        """The levels of a column as the library sees them; None for a number that is no category."""
        if feature.kind == "category":
            return list(feature.levels)
        values = self.numbers.get(feature.name)
        if values is None:
            return None
        return [int(value) if all(float(v).is_integer() for v in values) else value for value in values]

    def frame(self, table: Table, unseen: Unseen | None, only: Collection[str]) -> tuple[Any, dict[str, np.ndarray]]:
        """A frame of pandas with columns of the formulas, and the rows (n,) of unknown levels by column.

        Missing values are replaced as `data.missing` says, and unknown levels by the reference.

        Args:
            table: the rows.
            unseen: what to do with unknown levels; None where there are none by construction.
            only: the columns to take.

        Raises:
            UsageError: a level is unknown, or a value is missing.
        """
        import pandas as pd

        taken, unknown = {}, {}
        for feature in self.features:
            if feature.name not in only:
                continue
            levels = self.categories(feature)
            if levels is None:
                taken[feature.name] = _filled(feature, table, unseen is not None)
                continue
            code, unknown[feature.name] = self._codes(feature, levels, table, unseen)
            as_text = feature.kind == "category"
            taken[feature.name] = pd.Categorical.from_codes(code, levels) if as_text else np.array(levels)[code]
        frame = pd.DataFrame(taken, index=np.arange(table.num_rows), copy=False)
        return frame, {name: mask for name, mask in unknown.items() if mask.any()}

    def _codes(
        self, feature: Feature, levels: list[Any], table: Table, unseen: Unseen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a column among its levels, (n,), and whether it holds an unknown one, (n,).

        Unknown levels and missing values have the position of the reference.
        """
        present, index = table.present(feature.name)
        known = tuple(written(level) for level in levels)
        setting = "a category" if feature.kind == "category" else f"a category by C({feature.name})"
        found = codes(present, feature.name, known, setting, unseen not in (None, "error"))
        reference = levels.index(self._reference(feature.name, levels))
        code = np.full(table.num_rows, reference, dtype=np.int64)
        code[index] = np.where(found < 0, reference, found)
        unknown = np.zeros(table.num_rows, dtype=bool)
        unknown[index] = found < 0
        if unseen is not None:
            _warn_of_holes(feature, table, f"reference level {levels[reference]!r}")
        return code, unknown

    def _reference(self, name: str, levels: list[Any]) -> Any:
        """The reference level of a column: that of the first term that states one."""
        return next((reference_of(key, levels) for key in self.stated if category_of(key) == name), levels[0])

    def _level_shares(self, feature: Feature) -> tuple[float, ...]:
        """Shares of the levels of a category in the training rows."""
        if feature.kind == "numeric":
            return self.shares[feature.name]
        others = feature.means[: len(feature.levels) - 1]
        return (1 - sum(others), *others)

    def averaged(
        self,
        columns: Callable[[Any, Table], np.ndarray],
        frame: Any,
        table: Table,
        unknown: Mapping[str, np.ndarray],
        names: Sequence[str],
    ) -> np.ndarray:
        """Design columns of some rows, (n, m); of unknown levels of the columns `names` the means over the known ones.

        Args:
            columns: makes them of a frame and its table.
            frame: as `frame` returns it.
            table: the rows.
            unknown: the rows of unknown levels by column.
            names: the columns whose levels are averaged over, by their shares in the training rows.
        """
        if not names:
            return columns(frame, table)
        name, *others = names
        found = self.averaged(columns, frame, table, unknown, others)
        some = np.flatnonzero(unknown[name])
        if not len(some):
            return found
        feature = next(one for one in self.features if one.name == name)
        levels = self.categories(feature)
        assert levels is not None
        part, fewer = table.take(some), {other: unknown[other][some] for other in others}
        mean = np.zeros((len(some), found.shape[1]))
        for level, share in zip(levels, self._level_shares(feature), strict=True):
            changed = frame.iloc[some].copy()
            changed[name] = level
            mean += share * self.averaged(columns, changed, part, fewer, others)
        found[some] = mean
        return found


def _filled(feature: Feature, table: Table, is_told: bool) -> np.ndarray:
    """A numeric column, (n,), with its mean in the training rows where it is missing, with a warning if `is_told`."""
    present, index = table.present(feature.name)
    values = np.full(table.num_rows, feature.means[0] if feature.means else np.nan)
    values[index] = numbers(present, feature.name, "a numeric feature")
    if is_told:
        _warn_of_holes(feature, table, "mean")
    return values


def _warn_of_holes(feature: Feature, table: Table, what: str) -> None:
    """Warn of missing values that the training rows had not."""
    if feature.name in table.holes and not feature.indicator:
        message = f"{table.origin}: column {feature.name!r} has missing values, which the training rows had not"
        hole = table.holes[feature.name]
        warnings.warn(f"{message} ({table.where(hole)}): the {what} is taken", UserWarning, stacklevel=2)
