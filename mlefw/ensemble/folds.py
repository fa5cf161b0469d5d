"""Members each of which validates on another part of the rows."""

from dataclasses import dataclass

import numpy as np

from mlefw.cv.kfold import KFold
from mlefw.data.base import Source
from mlefw.ensemble.base import Ensemble
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run.held_out import Parts


@dataclass(kw_only=True)
class Folds(Ensemble):
    """Member f validates on fold f of the training and validation rows, and trains on the others.

    So every row trains all members but one, which has not seen it: the row has an out-of-fold prediction. Test rows are
    those of the run without an ensemble. Folds are those of `cv=kfold` on the rows that are left, by `data.seed`:
    stratified or in whole groups where `data.split` is.
    """

    def parts(self, source: Source, table: Table, parts: Parts) -> Parts:
        """Training and validation rows of the member, or for the whole both as training rows; the test rows.

        Raises:
            UsageError: fewer rows or groups than members, rows in the order of time, validation rows of their own, or
                rows beyond memory.
        """
        if "validation" in parts and parts["validation"][0] is not parts["train"][0]:
            raise UsageError(
                "ensemble=folds takes validation rows from data.path, and data.validation_path gives others\n"
                "  expected: no data.validation_path, or ensemble=seeds"
            )
        if source.store is not None:
            raise UsageError("ensemble=folds keeps rows in memory: expected ensemble=seeds, or data.stream=false")
        if source.splitter.rule == "time":
            raise UsageError(
                f"ensemble=folds would train on the future of data.time={source.splitter.time}: expected ensemble=seeds"
            )
        rows = np.sort(np.concatenate([parts[name][1] for name in ("train", "validation") if name in parts]))
        if self.members > len(rows):
            raise UsageError(
                f"ensemble.members={self.members}: there are {len(rows)} rows to share; expected at most {len(rows)}"
            )
        test = {name: part for name, part in parts.items() if name == "test"}
        if self.member is None:
            return {"train": (table, rows), **test}
        if self.members < 2:
            raise UsageError("ensemble=folds has a fold for each member: expected ensemble.members=2 or more")
        scheme = KFold(folds=self.members, seed=source.seed)
        fold = scheme.held_out(source.splitter, table.take(rows), source.id)[self.member]
        train = rows[fold.train(len(rows))]
        return {"train": (table, train), "validation": (table, rows[fold.test]), **test}
