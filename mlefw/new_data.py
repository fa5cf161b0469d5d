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
            raise UsageError(f"split={split}: the run's data have {', '.join(tables)}")
        return tables[split]
    kind = Parquet if Path(str(given["path"])).suffix in (".parquet", ".pq") else Csv
    schema = trained.schema
    reading = {name: value for name, value in trained.config["data"].items() if name in _READING and kind is Csv}
    features = [feature.name for feature in schema.features]
    roles = {"target": schema.target, "categorical": [f.name for f in schema.features if f.kind == "category"]}
    source = kind(**{**reading, **roles, "features": features, **given})
    return source.read()


_READING = ("delimiter", "decimal", "encoding", "header")
