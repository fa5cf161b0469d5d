"""Reads tables for a trained model, as its schema says."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from mlefw.configuration.admission import admit
from mlefw.configuration.check import check_parts
from mlefw.configuration.instantiate import class_of
from mlefw.configuration.settings import Node, TableSettings
from mlefw.data.base import Block, Source
from mlefw.data.csv import Csv
from mlefw.data.npz import Npz
from mlefw.data.parquet import BLOCK_CELLS, Parquet
from mlefw.data.tensor_source import TensorSource
from mlefw.data.text import Text
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows
from mlefw.run.checkpoint import Trained
from mlefw.run.held_out import parts_of
from mlefw.run.source import source_of
from mlefw.system.address import check_named, is_remote
from mlefw.system.local_path import local_path
from mlefw.system.trust import trusted

_READING = ("delimiter", "decimal", "thousands", "encoding", "header")
"""Settings of a CSV source on how text is read; a Parquet source does not have them."""


def check_output(path: Path, overwrite: bool, setting: str = "output") -> None:
    """Refuse to replace a file unless asked to.

    Raises:
        UsageError: `path` exists, and `overwrite` is false.
    """
    if local_path(path, setting).exists() and not overwrite:
        raise UsageError(f"{setting}={path} exists: expected a new file, or overwrite=true")


def check_folder(path: Path, setting: str = "output") -> None:
    """Check that a file or folder can be written at `path`.

    Raises:
        UsageError: the directory that it would be in is not there.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{setting}={path}: there is no directory {folder}")


def adapted(trained: Trained, missing: str | None, unseen: str | None) -> Trained:
    """The model with other ways to treat missing and unseen values; None keeps the way of the training.

    Raises:
        UsageError: there is no such way.
    """
    given: Node = {name: way for name, way in (("missing", missing), ("unseen", unseen)) if way is not None}
    check_parts({"data": {"_target_": "mlefw.data.csv.Csv", **given}})
    return trained.adapted(**given)


def num_unseen(rows: Rows) -> int:
    """Number of tokens of a new text that training never saw, which no figure counts; 0 of other rows."""
    return int(rows.hidden.sum()) if isinstance(rows, TokenRows) and rows.hidden is not None else 0


def read_table(trained: Trained, settings: TableSettings, split: str) -> tuple[Table, np.ndarray]:
    """A table with the rows of a split of the run's own data, and their positions in it.

    Args:
        trained: the model; its schema and data settings apply.
        settings: the `data` section of the command; a setting that is null is as in training.
        split: name of the split.

    Raises:
        UsageError: the run has no such split, or as the source.
    """
    source = source_of({**trained.config.data, **settings.given})
    source.partial, source.bounds = trained.schema.partial, trained.schema.bounds
    source.classes = trained.schema.kind != "numeric"
    parts = parts_of(trained.config, source, source.read())
    if split not in parts:
        raise UsageError(f"the run's data have no {split} rows: choose split={' or split='.join(parts)}")
    return parts[split]


def read_blocks(
    trained: Trained, settings: TableSettings, split: str = "test", prediction: bool = True
) -> Iterator[Block]:
    """The rows of `data.path` in tables of bounded size, or without one those of a split of the run's own data.

    Args:
        trained: the model; its schema and data settings apply.
        settings: the `data` section of the command; a setting that is null is as in training.
        split: name of the split, where `data.path` is not given.
        prediction: whether the target may be missing.

    Raises:
        UsageError: as the source.
    """
    if settings.path is None:
        table, index = read_table(trained, settings, split)
        size = max(1, BLOCK_CELLS // max(1, len(table.columns)))
        for start in range(0, len(index), size):
            some = index[start : start + size]
            yield Block(table.take(some), start + np.arange(len(some)), (start + len(some)) / len(index))
    else:
        yield from _source(trained, settings, prediction).read_blocks()


def _source(trained: Trained, settings: TableSettings, prediction: bool) -> Source:
    """The source of a new table, with the columns and roles of the training."""
    given = settings.given
    check_named([str(given["path"])])
    kind, own = _kind(trained, str(given["path"])), _own_settings(trained)
    if issubclass(kind, Parquet):
        given = {name: value for name, value in given.items() if name not in _READING}
    elif issubclass(kind, Csv):
        given = {**{name: own[name] for name in _READING if name in own}, **given}
    else:
        known = {one.name for one in fields(kind)}
        given = {**{name: value for name, value in own.items() if name in known}, **given}
    check_parts({"data": {"_target_": f"{kind.__module__}.{kind.__name__}", **given}}, trusted())
    source = trained.schema.reading(kind(**given), prediction)
    if isinstance(source, TensorSource) and not prediction:
        source.group, source.is_new = trained.config.data.get("group"), True
    # There is a warning of columns that training did not have, unless `data.features` or formulas named those to take.
    source.warns_of_unused = trained.config.data.get("features") is None and not trained.config.data.get("terms")
    clusters = trained.config.data.get("cluster") or []
    roles = [trained.config.data.get(role) for role in ("group", "time")]
    roles += clusters if isinstance(clusters, list) else [clusters]
    source.expected_unused = tuple(str(column) for column in roles if column)
    return source


def _kind(trained: Trained, path: str) -> type[Source]:
    """The class of source for a file or folder: the class used in training if it reads such files, else by the name."""
    known: type[Source] = class_of(admit("data", trained.config.data))
    file = path if is_remote(path) else str(local_path(path, "data.path"))
    others: dict[str, type[Source]] = {"tensors": Npz, "tokens": Text}
    return next((kind for kind in (known, Parquet) if kind.reads(file)), others.get(known.form, Csv))


def _own_settings(trained: Trained) -> Node:
    """The settings of the training's source that only its class has; rows and roles of columns are not among them.

    Nor are the names of files and folders, since new rows are elsewhere.
    """
    shared = {one.name for one in fields(Source)} | {"_target_", "table", "validation_path", "test_path"}
    return {name: value for name, value in trained.config.data.items() if name not in shared}
