"""The splits of a run: by the rule of its data source, one fold of a cross-validation, or a member of an ensemble."""

from typing import Any

import numpy as np

from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Node, Settings
from mlefw.data.base import FEWEST_TRAINING_ROWS, Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table

Parts = dict[str, tuple[Table, np.ndarray]]
"""For each split a table, and the positions of the split's rows in it."""


def is_cross_validation(cv: Node) -> bool:
    """Whether the section `cv` of the settings asks for all folds of a cross-validation, and not for one of them."""
    return "_target_" in cv and cv.get("fold") is None


def is_ensemble(config: Settings) -> bool:
    """Whether the settings ask for all members of an ensemble, and not for one of them."""
    return "_target_" in config.ensemble and config.ensemble.get("member") is None


def parts_of(config: Settings, source: Source, table: Table) -> Parts:
    """The splits of a run.

    Args:
        config: `cv.fold` is the fold whose rows are the test rows, `ensemble.member` the member that is trained; both
            sections are empty where they are not used.
        source: knows the rule by which rows are split.
        table: the table that the source has read.

    Raises:
        UsageError: `cv` asks for all folds or for one that does not exist; or as `Source.parts`.
    """
    parts = _of_fold(config.cv, source, table)
    if "_target_" not in config.ensemble:
        return parts
    found: Parts = instantiate("ensemble", config.ensemble).parts(source, table, parts)
    return found


def _of_fold(cv: Node, source: Source, table: Table) -> Parts:
    if "_target_" not in cv:
        return source.parts(table)
    if is_cross_validation(cv):
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


def all_training(table: Table) -> Parts:
    """Splits in which all rows of a table are training rows."""
    return {"train": (table, np.arange(table.num_rows))}


def all_folds(cv: Node, source: Source, table: Table) -> list[Any]:
    """The folds of a cross-validation (`mlefw.cv.base.Fold`), in order.

    Raises:
        UsageError: rows are windows of a text; or validation or test rows are in a file of their own; or the scheme
            does not go with `data.split`.
    """
    if source.form == "tokens":
        raise UsageError(
            "cv= shares out single rows, and those of a text are windows that go on from each other"
            "\n  expected: cv=none; data.split=documents holds out whole documents, data.split=tail the end of the text"
        )
    for name, given in (("validation", source.read_validation()), ("test", source.read_test())):
        if given is not None:
            raise UsageError(
                f"{given.origin}: {name} rows of their own, and cv= takes both kinds of held-out rows from data.path"
                f"\n  expected: no data.{name}_path, or no cv="
            )
    folds: list[Any] = instantiate("cv", cv).held_out(source.splitter, table, source.id)
    return folds
