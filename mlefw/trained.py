"""A trained run in Python: `from mlefw.trained import load`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.distributions import Distribution

from mlefw import build, checkpoint, score
from mlefw.arrow_table import check_names, to_table
from mlefw.checkpoint import Trained
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.new_data import adapted
from mlefw.objective import evaluate
from mlefw.prediction import check_probabilities, predictions
from mlefw.rows import Rows, Table
from mlefw.support import check_support

BLOCK_ROWS = 65536


def load(run: str | Path, missing: str | None = None, unseen: str | None = None) -> "Model":
    """The model of a run directory (its best checkpoint) or of a checkpoint file.

    Args:
        run: the directory or file.
        missing: `error`, `drop` or `impute`, in place of what training was told.
        unseen: `error`, `reference` or `ignore`, in place of what training was told.

    Raises:
        UsageError: no such run, a damaged one, or a setting that there is not.
    """
    return Model(adapted(checkpoint.load(run), {"missing": missing, "unseen": unseen}))


@dataclass(kw_only=True)
class _Frame(Source):
    """Columns that are in memory already."""

    arrow: pa.Table

    def read(self) -> Table:
        names = self.wanted(self.arrow.column_names)
        check_names(names, "the frame")
        columns = ((name, self.arrow.column(name)) for name in names)
        text, lenient = self.categorical or (), self.lenient(names)
        return to_table(columns, Table({}, "the frame"), text, self.id, self.missing, lenient)


class Model:
    """A trained model that takes frames: of pandas, polars or Arrow, mappings of arrays, or a matrix.

    Columns are matched by name, in any order; those of a matrix are the features in the order of `features`. Rows are
    counted from zero in messages.
    """

    def __init__(self, trained: Trained) -> None:
        self._trained = trained

    @property
    def features(self) -> list[str]:
        """The columns that the model predicts from."""
        return [feature.name for feature in self._trained.schema.features]

    @property
    def target(self) -> str:
        """The column that it predicts."""
        return self._trained.schema.target

    def predict(self, data: Any, level: float = 0.9, quantiles: Sequence[float] = ()) -> Any:
        """What `mlefw predict` writes: mean, median, sd, lower, upper, quantiles; or class and probabilities.

        Args:
            data: rows; where the target is among the columns, `nll_nats` is among the results.
            level: probability of the central interval (lower, upper) of an observation, given the fitted parameters.
            quantiles: probabilities of further quantiles.

        Returns:
            A frame of the kind of `data` (of pandas: with its index); for arrays a dict of arrays, (n,).

        Raises:
            UsageError: columns that are missing, or values that the model cannot take.
        """
        check_probabilities(self._trained, level, quantiles)
        table = self._table(data, prediction=True)
        row = table.row_numbers(np.arange(table.num_rows))
        parts = [
            predictions(self._trained, table.take(index), row[index], level, quantiles)
            for index in np.split(np.arange(len(row)), range(BLOCK_ROWS, len(row), BLOCK_ROWS))
        ]
        return _like(data, pa.concat_tables(parts))

    @torch.no_grad()
    def distribution(self, data: Any) -> Distribution:
        """The predictive distribution of every row, in units of the target; labels are codes in sorted order."""
        objective = self._trained.objective
        rows = self._rows(self._table(data, prediction=True), target_required=False)
        return objective.head(objective.eta(rows.x, rows.offset))

    def evaluate(self, data: Any) -> dict[str, float]:
        """What `mlefw evaluate` prints: the NLL in nats and every metric of the run, on rows with their target."""
        objective = self._trained.objective
        table = self._table(data, prediction=False)
        rows = self._rows(table, target_required=True)
        check_support(objective.head, rows, table, self.target)
        metrics = build.build_metrics(self._trained.config, objective.head)
        return dict(score.figures(objective, evaluate(objective, rows), rows, metrics))

    def _rows(self, table: Table, target_required: bool) -> Rows:
        return self._trained.schema.rows(table, self._trained.objective.head.log_link, target_required)

    def _table(self, data: Any, prediction: bool) -> Table:
        try:
            arrow = _arrow(data, self.features)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UsageError(f"the frame cannot be read: {str(error).splitlines()[0]}") from None
        return self._trained.schema.reading(_Frame(arrow=arrow), prediction).read()


def _arrow(data: Any, features: list[str]) -> pa.Table:
    if isinstance(data, np.ndarray):
        if data.ndim != 2 or data.shape[1] != len(features):
            raise UsageError(
                f"the matrix has shape {data.shape}\n  expected: a column for each of {', '.join(features)}"
            )
        data = {name: data[:, j] for j, name in enumerate(features)}
    if isinstance(data, Mapping):
        return pa.table({name: pa.array(np.asarray(values), from_pandas=True) for name, values in data.items()})
    if type(data).__module__.startswith("pandas"):
        return pa.Table.from_pandas(data, preserve_index=False)
    return pa.table(data)


def _like(data: Any, result: pa.Table) -> Any:
    if type(data).__module__.startswith("pandas"):
        frame = result.to_pandas()
        return frame.drop(columns="row").set_axis(data.index[frame["row"]])
    if type(data).__module__.startswith("polars"):
        return sys.modules["polars"].from_arrow(result)
    if isinstance(data, np.ndarray | Mapping):
        return {name: result.column(name).to_numpy() for name in result.column_names}
    return result
