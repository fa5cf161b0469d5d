"""An ensemble in which each member validates on a different fold of the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlefw.cv.base import Fold
from mlefw.cv.kfold import KFold
from mlefw.data.base import Source
from mlefw.ensemble.base import Ensemble
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run.held_out import Parts


@dataclass(kw_only=True)
class Folds(Ensemble):
    """Member k validates on fold k of the training and validation rows, and trains on the other folds.

    Each row is used for training by all members but one, whose prediction of the row is out of fold. Test rows are
    those of a run without an ensemble. Folds are those of `cv=kfold` with `data.seed` on the other rows: stratified, or
    of whole groups, as `data.split` says.
    """

    out_of_fold: ClassVar = True

    def parts(self, source: Source, table: Table, parts: Parts) -> Parts:
        """The splits of the member; for the whole ensemble, training and validation rows are one training split.

        Raises:
            UsageError: there are fewer rows or groups than members, a member would train on no row of a class,
                `data.time` orders the rows, validation rows come from another file, or rows are streamed from disk or
                windows of a text.
        """
        if source.form == "tokens":
            raise UsageError(
                "ensemble=folds shares out single rows, and those of a text are windows that go on from each other"
                "\n  expected: ensemble=none"
            )
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
        if self.members < 2:
            raise UsageError("ensemble=folds has a fold for each member: expected ensemble.members=2 or more")
        if self.member is None and not source.classes:
            return {"train": (table, rows), **test}
        scheme = KFold(folds=self.members, seed=source.seed)
        folds = scheme.held_out(source.splitter, table.take(rows), source.id)
        if self.member is None:
            _check_classes(table, source.targets[0], rows, folds)
            return {"train": (table, rows), **test}
        fold = folds[self.member]
        train = rows[fold.train(len(rows))]
        return {"train": (table, train), "validation": (table, rows[fold.test]), **test}


def _check_classes(table: Table, target: str, rows: np.ndarray, folds: Sequence[Fold]) -> None:
    """Refuse folds of which one holds all rows of a class, which its member would give hardly any probability."""
    labels = table.columns[target][rows]
    classes = {label for label in labels.tolist() if label is not None and label == label}
    for number, fold in enumerate(folds):
        lost = classes - set(labels[fold.train(len(rows))].tolist())
        if lost:
            names = ", ".join(sorted(map(str, lost)))
            raise UsageError(
                f"{table.origin}: all rows with {target}={names} are in fold {number}, whose member would train on none"
                "\n  expected: data.split=stratified, other folds (data.seed), or ensemble=seeds"
            )
