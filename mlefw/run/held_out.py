"""Which rows of a run train, validate and test: as its source says, or as one fold of a cross-validation does."""

from typing import Any

import numpy as np

from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Node, Settings
from mlefw.data.base import FEWEST_TRAINING_ROWS, Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table

Parts = dict[str, tuple[Table, np.ndarray]]
"""For each split a table, and the positions of the split's rows in it."""


def is_whole(cv: Node) -> bool:
    """Whether the settings ask for every fold of a cross-validation."""
    return "_target_" in cv and cv.get("fold") is None


def is_ensemble(config: Settings) -> bool:
    """Whether the settings ask for every member of an ensemble."""
    return "_target_" in config.ensemble and config.ensemble.get("member") is None


def parts_of(config: Settings, source: Source, table: Table) -> Parts:
    """The splits of a run.

    Args:
        config: with `cv`, the settings of a cross-validation, whose `fold` is the one that tests, and `ensemble`, whose
            `member` is the one that trains; either is empty for none.
        source: says how rows are shared out.
        table: what the source has read.

    Raises:
        UsageError: all folds are asked for where a run has one, there is no such fold, or as `Source.parts`.
    """
    parts = _of_fold(config.cv, source, table)
    if "_target_" not in config.ensemble:
        return parts
    found: Parts = instantiate("ensemble", config.ensemble).parts(source, table, parts)
    return found


def _of_fold(cv: Node, source: Source, table: Table) -> Parts:
    if "_target_" not in cv:
        return source.parts(table)
    if is_whole(cv):
        raise UsageError(
            "cv= is a fit for each fold, and this is one run\n  expected: cv= with mlefw train or mlefw baseline, and "
            "without -m; or one of the folds, cv.fold=0"
        )
    folds = all_folds(cv, source, table)
    if not 0 <= cv["fold"] < len(folds):
        raise UsageError(f"cv.fold={cv['fold']}: there are {len(folds)} folds, from 0 to {len(folds) - 1}")
    fold = folds[cv["fold"]]
    train = fold.train(table.num_rows)
    drawn = source.splitter.share_out(table, train, {"validation": round(source.validation_fraction * len(train))})
    if len(drawn["train"]) < FEWEST_TRAINING_ROWS:
        raise UsageError(f"cv.fold={cv['fold']}: {len(drawn['train'])} training rows are left; at least 2 are needed")
    parts = {**drawn, "test": fold.test}
    return {name: (table, parts[name]) for name in ("train", "validation", "test") if len(parts[name])}


def whole(table: Table) -> Parts:
    """All rows as training rows."""
    return {"train": (table, np.arange(table.num_rows))}


def all_folds(cv: Node, source: Source, table: Table) -> list[Any]:
    """The folds of a cross-validation (`mlefw.cv.base.Fold`), in order.

    Raises:
        UsageError: rows are given by a file of their own, or the scheme cannot follow the rule of the split.
    """
    for name, given in (("validation", source.read_validation()), ("test", source.read_test())):
        if given is not None:
            raise UsageError(
                f"{given.origin}: {name} rows of their own, and cv= takes both kinds of held-out rows from data.path"
                f"\n  expected: no data.{name}_path, or no cv="
            )
    folds: list[Any] = instantiate("cv", cv).held_out(source.splitter, table, source.id)
    return folds
