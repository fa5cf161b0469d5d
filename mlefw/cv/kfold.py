"""k-fold cross-validation, stratified or grouped, with repeats."""

from dataclasses import dataclass

import numpy as np

from mlefw.cv.base import Fold, Scheme, hashed, row_names
from mlefw.errors import UsageError
from mlefw.reading.split import Split, warn_of_scarce
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class KFold(Scheme):
    """k folds, in which each row is held out once in every repeat.

    Rows are dealt to the folds in turn, in the order of a hash of the seed, the repeat, and the row (its `data.id`, or
    its position), so that sizes of folds differ by at most one row. Under `data.split=stratified` rows are dealt
    stratum by stratum, and the counts of a stratum differ by at most one, too. Under `data.split=group` whole
    groups go, in the order of their hash, to the fold that has the fewest rows so far.

    Attributes:
        folds: number of folds.
        repeats: number of times that all rows are dealt out, each with another hash.
        seed: seed of the hash.
    """

    folds: int = 10
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UsageError: naming the setting.
        """
        super().__post_init__()
        for name, least in (("folds", 2), ("repeats", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"cv.{name}={getattr(self, name)}: expected a whole number of at least {least}")

    def held_out(self, split: Split, table: Table, identifier: str | None) -> list[Fold]:
        """The folds of the first repeat, then those of the next.

        Raises:
            UsageError: there are more folds than rows or groups, or `data.time` orders the rows.
        """
        if split.rule == "time":
            raise UsageError(f"cv=kfold fits on the future of data.time={split.time}\n  expected: cv=rolling")
        names, groups = split.groups(table) if split.rule == "group" else ([], np.empty(0))
        count, what = (len(names), "groups") if split.rule == "group" else (table.num_rows, "rows")
        if self.folds > count:
            raise UsageError(f"cv.folds={self.folds}: {table.origin} has {count} {what}\n  expected: at most {count}")
        labels, strata = split.strata(table) if split.rule == "stratified" else ([], np.empty(0))
        if split.rule == "stratified":
            warn_of_scarce(labels, strata, self.folds, "folds")
        known = row_names(table, identifier) if split.rule != "group" else names
        found = []
        for repeat in range(self.repeats):
            order = hashed(self.seed, repeat, known)
            if split.rule == "group":
                fold_of = self._of_groups(np.argsort(order, kind="stable"), np.bincount(groups))[groups]
            else:
                fold_of = self._of_rows(
                    np.lexsort((order, strata)) if len(strata) else np.argsort(order, kind="stable")
                )
            found += [Fold(np.flatnonzero(fold_of == fold), repeat) for fold in range(self.folds)]
        return found

    def _of_rows(self, order: np.ndarray) -> np.ndarray:
        """The fold of each row, (n,), if rows are dealt to the folds in turn, in the given order."""
        fold_of = np.empty(len(order), dtype=np.int64)
        fold_of[order] = np.arange(len(order)) % self.folds
        return fold_of

    def _of_groups(self, order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The fold of each group, (g,), if each goes to the fold with the fewest rows so far, in the given order."""
        num_rows, fold_of = np.zeros(self.folds), np.empty(len(sizes), dtype=np.int64)
        for group in order.tolist():
            fold_of[group] = int(num_rows.argmin())
            num_rows[fold_of[group]] += sizes[group]
        return fold_of
