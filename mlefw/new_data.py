"""Tables for a model that is trained already."""

from pathlib import Path
from typing import Any

from mlefw import build
from mlefw.checkpoint import Trained
from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.rows import Table

_READING = ("delimiter", "decimal", "thousands", "encoding", "header")


def check_output(path: Path, overwrite: bool, setting: str = "output") -> None:
    """Refuse to replace a file.

    Raises:
        UsageError: it is there, and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{setting}={path} exists: expected a new file, or overwrite=true")


def read_table(trained: Trained, settings: dict[str, Any], split: str) -> Table:
    """All rows of `data.path`, or without one the rows of a split of the run's own data.

    Args:
        trained: whose schema and data settings apply.
        settings: the `data` section of the command; null means as in training.
        split: which rows of the run's own data.

    Raises:
        UsageError: no such split, or what the source raises.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "path" not in given:
        source: Source = build.instantiate({**trained.config["data"], **given})
        tables = source.splits()
        if split not in tables:
            raise UsageError(f"the run's data have no {split} rows: choose split={' or split='.join(tables)}")
        return tables[split]
    if Path(str(given["path"])).suffix in (".parquet", ".pq"):
        fresh: Source = Parquet(**{name: value for name, value in given.items() if name not in _READING})
    else:
        trained_on = trained.config["data"]
        fresh = Csv(**{**{name: trained_on[name] for name in _READING if name in trained_on}, **given})
    return trained.schema.reading(fresh).read()
