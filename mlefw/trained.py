"""A trained model in Python: `from mlefw.trained import load`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.distributions import Distribution

from mlefw.configuration.groups import member_settings
from mlefw.configuration.settings import ExplanationSettings
from mlefw.data.arrays import Arrays, as_arrays, is_dataset
from mlefw.data.base import Source
from mlefw.data.frame import Frame, as_arrow, offered, with_target
from mlefw.data.strings import Strings
from mlefw.errors import UsageError
from mlefw.objective.objective import etas, evaluate
from mlefw.reading.table import Table
from mlefw.report.explanation import Explanation
from mlefw.report.tidy import glance, tidy
from mlefw.rows.rows import Rows
from mlefw.run import build, explain, pooled, predict_positions, predict_tokens
from mlefw.run.checkpoint import Trained
from mlefw.run.exact_checkpoint import with_errors
from mlefw.run.new_data import adapted
from mlefw.run.pooled import Pooled
from mlefw.run.posterior import posterior_of
from mlefw.run.predict import check_probabilities, predictions
from mlefw.run.text_sample import text_sample, text_schema
from mlefw.schema.reach import FarRows, warn_of_far_rows
from mlefw.schema.support import check_support
from mlefw.schema.tensors import TensorSchema
from mlefw.schema.tokens import TokenSchema
from mlefw.score.figures import figures_on
from mlefw.system.atomic import Json
from mlefw.system.process_state import preserved
from mlefw.system.random_state import isolated
from mlefw.uncertainty.base import Method, Uncertain

BLOCK_ROWS = 65536
"""Rows that are predicted at once, which bounds memory."""


@preserved()
def load(
    run: str | Path | Sequence[str | Path],
    missing: str | None = None,
    unseen: str | None = None,
    plugins: Sequence[str] = (),
    weights: str | Sequence[float] = "equal",
) -> "Model":
    """The model of a run directory (its best checkpoint) or of a checkpoint file; for several runs, their mixture.

    Args:
        run: a run directory, a checkpoint file, the directory of an ensemble, or a list of these.
        missing: what to do with missing values, `error`, `drop` or `impute`; None for what training did.
        unseen: what to do with levels of a category that no training row has, `error`, `reference` or `ignore`; None
            for what training did.
        plugins: packages from which parts of the run may come, like those of `--plugin`.
        weights: of several runs in their mixture: `equal`; `stacked` for those with the least NLL on the rows that all
            of them hold out from training; or a number for each run.

    Raises:
        UsageError: the run does not exist or is damaged, or `missing` or `unseen` has another value.
    """
    loaded = pooled.load(run, tuple(plugins), weights)
    return Model(adapted(loaded, missing, unseen), loaded)


class Model:
    """A trained model, which takes frames of pandas, polars or Arrow, mappings of arrays (n,), or a matrix.

    Columns are matched by name, in any order; the columns of a matrix are the features in the order of `features`. Rows
    are counted from zero in messages. A model that was trained on arrays takes an array or tensor (n, *input_shape) of
    the type that it was trained on, a mapping of arrays by the names of training, or a dataset of torch.
    """

    def __init__(self, trained: Trained, loaded: Trained | None = None) -> None:
        self._trained, self._loaded = trained, loaded or trained
        self._known: dict[str, Uncertain | None] = {}

    @property
    def path(self) -> Path:
        """The checkpoint file; for an ensemble its directory, for several runs the first checkpoint file."""
        return self._trained.path

    @property
    def summary(self) -> Json:
        """The content of `summary.json`; empty for several runs, and for a checkpoint outside of its run directory."""
        if isinstance(self._trained, Pooled) and not self.path.is_dir():
            return {}
        file = (self.path if self.path.is_dir() else self.path.parent.parent) / "summary.json"
        content: Json = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return content

    def tidy(self) -> Any:
        """The coefficients of the exact linear estimate of the run, a row for each, with the columns of `report.tidy`.

        Returns:
            A frame of pandas if that is installed, else a dict of lists by column.

        Raises:
            UsageError: the run has no `baseline.json`.
        """
        return as_frame(tidy(self._baseline()))

    def glance(self) -> Any:
        """The figures of the exact linear estimate as a whole, in one row, with the columns of `report.tidy`.

        Returns:
            A frame of pandas if that is installed, else a dict of lists by column.

        Raises:
            UsageError: the run has no `baseline.json`.
        """
        return as_frame({name: [value] for name, value in glance(self._baseline()).items()})

    def _baseline(self) -> Json:
        """The content of `baseline.json` of the run."""
        folder = self.path if self.path.is_dir() else self.path.parent.parent
        try:
            content: Json = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder} has no baseline.json that can be read ({error}): expected a run") from None
        return content

    @property
    def features(self) -> list[str]:
        """The names of the columns that the model predicts from."""
        return [feature.name for feature in self._trained.schema.features]

    @property
    def target(self) -> str:
        """The name of the column that the model predicts."""
        return self._trained.schema.target

    @preserved()
    @isolated("prediction")
    def predict(
        self,
        data: Any,
        level: float = 0.9,
        quantiles: Sequence[float] = (),
        uncertainty: str | Method = "none",
        exact: bool = False,
    ) -> Any:
        """Predictive distributions, as `mlefw predict` writes them.

        Args:
            data: rows, with or without the target.
            level: probability that an observation falls between `lower` and `upper`.
            quantiles: probabilities of further quantiles of an observation.
            uncertainty: `none` for distributions given the fitted parameters; `laplace` to average over a posterior of
                the parameters; `mc_dropout` to average over dropout masks; or a `Method`.
            exact: whether the exact linear estimate beside the network predicts, in place of the network.

        Returns:
            The columns mean, median, sd, lower, upper and further quantiles, in units of the target; or for classes the
            class and the probabilities. Of an exact estimate also mean_lower and mean_upper, or such ends for each
            probability: an interval of the mean of the same level. With a target in `data` also `nll_nats`. It is a
            frame of the kind of `data` (of pandas with its index); for arrays a dict of arrays, (n,), or
            (n, *positions) where rows have positions.
            For text a dict of columns with an entry for each scored token: document, position, token, nll_nats, prob,
            top and entropy_nats.

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        check_probabilities(self._trained, level, quantiles)
        posterior = self._uncertain(uncertainty)
        if exact and isinstance(self._trained.schema, TensorSchema | TokenSchema):
            raise UsageError("exact=True: predictions by the exact estimate are of columns of a table")
        if isinstance(self._trained.schema, TensorSchema):
            return self._predict_arrays(data, level, quantiles, posterior)
        if isinstance(self._trained.schema, TokenSchema):
            return self._predict_text(data)
        table = self._table(data, prediction=True)
        row = table.row_numbers(np.arange(table.num_rows))
        far = FarRows(self._trained.schema)
        if exact and posterior is not None:
            raise UsageError("exact=True predicts by the exact estimate: expected uncertainty='none'")
        trained, errors = with_errors(self._trained, exact) if posterior is None else (self._trained, None)
        parts = [
            predictions(trained, table.take(index), row[index], level, quantiles, posterior, far, errors)
            for index in np.split(np.arange(len(row)), range(BLOCK_ROWS, len(row), BLOCK_ROWS))
        ]
        far.warn()
        return _like(data, pa.concat_tables(parts))

    @preserved()
    @isolated("prediction")
    @torch.no_grad()
    def distribution(self, data: Any) -> Distribution:
        """The predictive distribution of the rows, of batch shape (n, *positions), in units of the target.

        Values of a class are codes: positions in the sorted list of labels.

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        objective = self._trained.objective
        rows = self._rows(self._table(data, prediction=True), target_required=False)
        if isinstance(self._trained.schema, TensorSchema | TokenSchema):
            # Blocks bound the memory that a network takes for its layers.
            return objective.head(torch.cat([eta for _, eta in etas(objective, rows)]))
        return objective.head(objective.eta(rows.x, rows.offset))

    @preserved()
    @isolated("evaluation")
    def evaluate(self, data: Any, target: Any = None) -> dict[str, float]:
        """The figures that `mlefw evaluate` prints: the NLL in nats per row and every metric of the run, by name.

        Args:
            data: rows, with the target among the columns unless it is given.
            target: the values of the target, (n,) or (n, *positions).

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        objective = self._trained.objective
        if target is not None and len(self._trained.schema.targets) > 1:
            raise UsageError(f"the model has the targets {self.target}: expected rows that hold their columns")
        table = self._table(data, prediction=False, target=target)
        rows = self._rows(table, target_required=True)
        check_support(objective.head, rows, table, self.target)
        warn_of_far_rows(self._trained.schema, rows, table)
        metrics = self._trained.metrics()
        return dict(figures_on(objective, evaluate(objective, rows), rows, metrics))

    @preserved()
    @isolated("explanation")
    def explain(self, data: Any, target: Any = None, **settings: int) -> Explanation:
        """Which feature carries how many nats, and how each moves the prediction, as `mlefw explain` says it.

        Args:
            data: rows, with the target among the columns unless it is given.
            target: the values of the target, (n,).
            **settings: `max_rows`, `repeats`, `bins` and `seed` of `ExplanationSettings`.

        Returns:
            The explanation: `tables()` has columns by name, `sentence()` the conclusion, `pictures()` PNG files.

        Raises:
            UsageError: a setting is out of range, columns are missing, or the model is not one of a table.
        """
        explain.check(self._trained)
        known = [one.name for one in fields(ExplanationSettings)]
        if unknown := sorted({*settings} - {*known}):
            raise UsageError(f"explain({unknown[0]}=…): there is no such setting: expected {', '.join(known)}")
        how = ExplanationSettings(**settings)
        return explain.explain(self._trained, [self._table(data, prediction=False, target=target)], how)

    @preserved()
    def sample(
        self, length: int = 500, prompt: Any = "", seed: int = 0, temperature: float = 1.0
    ) -> str | bytes | np.ndarray:
        """A text that a model of the next token draws, the prompt first, as `mlefw sample` writes it.

        Args:
            length: number of tokens to draw behind the prompt.
            prompt: str; of a model of bytes also bytes; of ids whole numbers, (m,).
            seed: of the draws, which depend on it alone.
            temperature: 1 draws from the model's distribution p, any other from p to the power 1/temperature.

        Returns:
            A str of characters, bytes, or ids (n,) int64, as the run was trained on.

        Raises:
            UsageError: the run is not one on text, a setting is out of range, or the prompt holds what the training
                text does not.
        """
        return text_sample(self._trained.objective, text_schema(self._trained), length, prompt, seed, temperature)

    def _uncertain(self, uncertainty: str | Method) -> Uncertain | None:
        """The posterior of a method, or of the method of a name, which is computed once; None for `none`."""
        if isinstance(uncertainty, Method):
            return posterior_of(self._loaded, uncertainty)
        if uncertainty not in (known := member_settings("uncertainty")):
            raise UsageError(f"uncertainty={uncertainty!r}: expected {', '.join(known)}, or a method")
        if uncertainty not in self._known:
            self._known[uncertainty] = posterior_of(self._loaded, build.build_uncertainty(known[uncertainty]))
        return self._known[uncertainty]

    def _rows(self, table: Table, target_required: bool) -> Rows:
        return self._trained.rows(table, target_required)

    def _predict_text(self, data: Any) -> dict[str, np.ndarray]:
        """The forecast of each scored token of a text, as columns by name."""
        with offered(rows=data):
            blocks = self._trained.schema.reading(Strings(), True).read_blocks()
            found = pa.concat_tables(predict_tokens.tables(self._trained, blocks))
        return {name: found.column(name).to_numpy() for name in found.column_names}

    def _predict_arrays(
        self, data: Any, level: float, quantiles: Sequence[float], posterior: Uncertain | None
    ) -> dict[str, np.ndarray]:
        """Predictions of arrays, each (n, *positions), by name."""
        trained, (source, given) = self._trained, self._arrays(data, prediction=True)
        if trained.schema.row_shape.positions:
            predict_positions.check_format(trained, ".npz", "predict", posterior is not None)
        with offered(rows=given):
            blocks = source.read_blocks()
            if trained.schema.row_shape.positions:
                return predict_positions.arrays(trained, blocks, level, quantiles)
            parts = [predictions(trained, block.table, block.row, level, quantiles, posterior) for block in blocks]
        found = pa.concat_tables(parts, promote_options="default")
        return {name: found.column(name).to_numpy() for name in found.column_names}

    def _arrays(self, data: Any, prediction: bool, target: Any = None) -> tuple[Source, Any]:
        """The source of arrays, and what it is to be offered."""
        schema = self._trained.schema
        assert isinstance(schema, TensorSchema)
        given = data if is_dataset(data) and target is None else as_arrays(data, target, schema.x, schema.target)
        return schema.reading(Arrays(), prediction), given

    def _table(self, data: Any, prediction: bool, target: Any = None) -> Table:
        if isinstance(self._trained.schema, TokenSchema):
            source = self._trained.schema.reading(Strings(), prediction)
            assert isinstance(source, Strings)
            with offered(rows=data):
                return source.whole(source.load(), is_new=True)
        if isinstance(self._trained.schema, TensorSchema):
            source, given = self._arrays(data, prediction, target)
            with offered(rows=given):
                return source.read()
        rows = (
            as_arrow(data, self.features) if target is None else with_target(data, target, self.target, self.features)
        )
        with offered(rows=rows):
            return self._trained.schema.reading(Frame(), prediction).read()


def as_frame(columns: dict[str, list[Any]]) -> Any:
    """Columns as a frame of pandas; as they are where it is not installed."""
    try:
        from pandas import DataFrame
    except ImportError:
        return columns
    return DataFrame(columns)


def _like(data: Any, result: pa.Table) -> Any:
    """A table as a frame of the kind of `data`, or a dict of arrays for arrays; an Arrow table for anything else."""
    if type(data).__module__.startswith("pandas"):
        frame = result.to_pandas()
        return frame.drop(columns="row").set_axis(data.index[frame["row"]])
    if type(data).__module__.startswith("polars"):
        return sys.modules["polars"].from_arrow(result)
    if isinstance(data, np.ndarray | Mapping):
        return {name: result.column(name).to_numpy() for name in result.column_names}
    return result
