"""A trained model in Python: `from mlefw.trained import load`."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.distributions import Distribution

from mlefw.configuration.explanation import ExplanationSettings
from mlefw.data.frame import offered
from mlefw.head.base import Head
from mlefw.objective.objective import etas, evaluate
from mlefw.reading.in_memory import as_frame, pair_of
from mlefw.reading.table import Table
from mlefw.report.explanation import Explanation
from mlefw.report.notebook import model_html, run_html
from mlefw.report.tidy import glance, tidy
from mlefw.rows.rows import Rows
from mlefw.run import drawn, explain, export, from_memory, pooled
from mlefw.run.checkpoint import Trained
from mlefw.run.coefficients import coefficients, exact_record
from mlefw.run.from_memory import table_of
from mlefw.run.new_data import adapted
from mlefw.run.pooled import Pooled
from mlefw.run.posterior import method_of, posterior_of
from mlefw.run.predict import check_probabilities
from mlefw.run.text_sample import text_sample, text_schema
from mlefw.schema.reach import warn_of_far_rows
from mlefw.schema.support import check_support
from mlefw.schema.tensors import TensorSchema
from mlefw.schema.tokens import TokenSchema
from mlefw.score.figures import figures_on
from mlefw.system.atomic import Json
from mlefw.system.local_path import local_path
from mlefw.system.process_state import preserved
from mlefw.system.random_state import isolated
from mlefw.uncertainty.base import Method, Uncertain


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

    def __init__(
        self, trained: Trained, loaded: Trained | None = None, given: Callable[[], Mapping[str, Any]] | None = None
    ) -> None:
        self._trained, self._loaded, self._given = trained, loaded or trained, given
        self._known: dict[str, Uncertain | None] = {}

    def with_rows(self, given: Callable[[], Mapping[str, Any]]) -> "Model":
        """The model with the rows of its run, for pictures and uncertainties, as `given` returns them for `offered`."""
        return Model(self._trained, self._loaded, given)

    def __repr__(self) -> str:
        """The main settings and the file in one line."""
        return f"Model({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        """The verdict, the NLL beside the exact estimates and the warnings of the run, as a notebook shows them."""
        return run_html(self.summary, _from_here(self._trained.folder)) if self.summary else model_html(self._facts())

    def _facts(self) -> dict[str, Any]:
        config = self._trained.config
        return {
            **{name: config.choice(name) for name in ("head", "model")},
            **{"target": self.target, "path": _from_here(self.path)},
        }

    @property
    def path(self) -> Path:
        """The checkpoint file; for an ensemble its directory, for several runs the first checkpoint file."""
        return self._trained.path

    @property
    def summary(self) -> Json:
        """The content of `summary.json`; empty for several runs, and for a checkpoint outside of its run directory."""
        if isinstance(self._trained, Pooled) and not self.path.is_dir():
            return {}
        file = self._trained.folder / "summary.json"
        content: Json = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return content

    def tidy(self) -> Any:
        """The coefficients of the exact linear estimate of the run, a row for each, with the columns of `report.tidy`.

        Returns:
            A frame of pandas if that is installed, else a dict of lists by column.

        Raises:
            UsageError: the run has no `baseline.json`.
        """
        return as_frame(tidy(exact_record(self._trained.folder)))

    def glance(self) -> Any:
        """The figures of the exact linear estimate as a whole, in one row, with the columns of `report.tidy`.

        Returns:
            A frame of pandas if that is installed, else a dict of lists by column.

        Raises:
            UsageError: the run has no `baseline.json`.
        """
        return as_frame({name: [value] for name, value in glance(exact_record(self._trained.folder)).items()})

    def coefficients(self) -> Any:
        """The coefficients of the run, a row for each, in the units of the data.

        Returns:
            The columns `parameter` and `term`; `trained`, what training has left, where the model is linear; and of the
            exact linear estimate `exact`, `std_error`, `z`, `p_value`, `ci_low` and `ci_high` (95 %), as in
            `baseline.json`. A frame of pandas if that is installed, else a dict of lists by column.

        Raises:
            UsageError: the model is not linear, and its run has no exact estimate.
        """
        return as_frame(coefficients(self._trained, self._trained.folder))

    @property
    def network(self) -> nn.Module:
        """The network, on the CPU and in evaluation mode: `network(x)` is its raw output, (*batch, eta_dim).

        It takes x in the units of the data, as `rows(data).x` has it, and standardises it inside. The parameters of the
        distribution are `head(head.center + head.gain * network(x))`, plus the offset of the data on the first column.
        """
        return self._trained.objective.model

    @property
    def head(self) -> Head:
        """The likelihood head, which maps eta, (*batch, eta_dim), to a distribution; with the recalibration, if any."""
        return self._trained.objective.head

    @preserved()
    def rows(self, data: Any, target: Any = None) -> Rows:
        """Rows as tensors, coded as the model takes them: `x`, `y`, `weight` and `offset`.

        Args:
            data: rows, with or without the target; or a pair (x, y).
            target: the values of the target, unless `data` has them.

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        data, target = self._pair(data, target)
        return self._rows(
            table_of(self._trained, data, prediction=target is None, target=target), target_required=False
        )

    @preserved()
    @isolated("conclusion")
    def plot(self, name: str, data: Any = None, target: Any = None) -> Figure:
        """A picture of the run as a figure of matplotlib, which notebooks show; elsewhere `figure.savefig("it.png")`.

            model.plot("learning_curves")
            model.plot("calibration")  # a PIT histogram of numbers, a reliability diagram of classes
            model.plot("calibration", frame)

        Pictures of predictions are drawn anew: of the rows of the run where they can be read again, or `fit` was given
        them and has returned this model; or of `data`. Others, such as the path of coefficients and the terms of
        formulas, are shown as the run has drawn them.

        Args:
            name: `calibration`, or the name of a file in the folder `plots` of a run, without `.png`.
            data: other rows than those of the run, with the target among the columns unless it is given.
            target: the values of the target.

        Raises:
            UsageError: there is no such picture, or the rows are not those of the run.
        """
        data, target = self._pair(data, target)
        if data is None:
            with self._offered():
                return drawn.picture(self._trained, self._trained.folder, name, self.summary, self._given is not None)
        table = table_of(self._trained, data, prediction=False, target=target)
        return drawn.of_new_rows(self._trained, name, self._rows(table, target_required=True))

    def _offered(self) -> AbstractContextManager[None]:
        """Offer the rows of the run, where the program has them, to its source."""
        return offered(**(self._given() if self._given is not None else {}))

    def _pair(self, data: Any, target: Any = None) -> tuple[Any, Any]:
        """Rows and targets of a pair; a tuple of texts is no pair."""
        return (data, target) if isinstance(self._trained.schema, TokenSchema) else pair_of(data, target)

    @property
    def features(self) -> list[str]:
        """The names of the columns that the model predicts from."""
        return [feature.name for feature in self._trained.schema.features]

    @property
    def target(self) -> str:
        """The name of the column that the model predicts."""
        return self._trained.schema.target

    @property
    def trials(self) -> str | None:
        """The name of the column with the number of trials of each row; None where there is none."""
        return getattr(self._trained.schema, "trials", None)

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
            data: rows, with or without the target; or a pair (x, y).
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
        data, target = self._pair(data)
        posterior = self._uncertain(uncertainty)
        return from_memory.predict(self._trained, data, target, level, quantiles, posterior, exact)

    @preserved()
    @isolated("prediction")
    @torch.no_grad()
    def distribution(self, data: Any) -> Distribution:
        """The predictive distribution of the rows, of batch shape (n, *positions), in units of the target.

        `data` are rows, with or without the target; or a pair (x, y), whose y is not looked at.

        Values of a class are codes: positions in the sorted list of labels.

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        objective = self._trained.objective
        rows = self._rows(table_of(self._trained, self._pair(data)[0], prediction=True), target_required=False)
        if isinstance(self._trained.schema, TensorSchema | TokenSchema):
            # Blocks bound the memory that a network takes for its layers.
            return objective.head(torch.cat([eta for _, eta in etas(objective, rows)]))
        return objective.head(objective.eta(rows.x, rows.offset))

    @preserved()
    @isolated("evaluation")
    def log_likelihood(self, data: Any, target: Any = None) -> np.ndarray:
        """The logarithm of the density, or of the probability, of what was observed in each row, (n,), in nats.

        Where rows have positions, it is the weighted mean over those of the row. Arguments and errors as of `evaluate`.
        """
        _, rows = self._observed(data, target)
        return -evaluate(self._trained.objective, rows).nll.double().numpy()

    @preserved()
    @isolated("evaluation")
    def evaluate(self, data: Any, target: Any = None) -> dict[str, float]:
        """The figures that `mlefw evaluate` prints: the NLL in nats per row and every metric of the run, by name.

        Args:
            data: rows, with the target among the columns unless it is given; or a pair (x, y).
            target: the values of the target, (n,) or (n, *positions); of several targets as for `fit`.

        Raises:
            UsageError: columns are missing, or the model cannot take a value.
        """
        objective = self._trained.objective
        table, rows = self._observed(data, target)
        warn_of_far_rows(self._trained.schema, rows, table)
        metrics = self._trained.metrics()
        return dict(figures_on(objective, evaluate(objective, rows), rows, metrics))

    @preserved()
    @isolated("prediction")
    def export(
        self,
        path: str | Path,
        data: Any,
        format: str = "onnx",
        quantiles: Sequence[float] = (),
        overwrite: bool = False,
    ) -> Path:
        """Write the model to one file for other programs, and its description beside it, as `mlefw export` does.

        Args:
            path: the file; the description has its name with `.json` behind it.
            data: rows on which the file is compared with `predict`, without need of the target.
            format: `onnx`, with the packages of `mlefw[export]`, or `torch_export`.
            quantiles: probabilities of quantiles among the outputs, of heads that have a closed form of them.
            overwrite: whether it may replace files.

        Returns:
            The absolute path of the file.

        Raises:
            UsageError: the model or a quantile cannot be exported, packages are missing, or the file differs from the
                model. No file is left behind.
        """
        target = local_path(path, "path")
        export.check_place(target, overwrite)
        table = table_of(self._trained, data, prediction=True)
        return export.export(self._trained, table, target, format, quantiles)[0]

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
        how = ExplanationSettings.given(**settings)
        data, target = self._pair(data, target)
        return explain.explain(self._trained, [table_of(self._trained, data, prediction=False, target=target)], how)

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

    def _observed(self, data: Any, target: Any) -> tuple[Table, Rows]:
        """Rows with their target, as a table and as coded rows, whose target the head can take."""
        data, target = self._pair(data, target)
        table = table_of(self._trained, data, prediction=False, target=target)
        rows = self._rows(table, target_required=True)
        check_support(self._trained.objective.head, rows, table, self.target)
        return table, rows

    def _uncertain(self, uncertainty: str | Method) -> Uncertain | None:
        """The posterior of a method, or of the method of a name, which is computed once; None for `none`."""
        if isinstance(uncertainty, Method):
            with self._offered():
                return posterior_of(self._loaded, uncertainty)
        if uncertainty not in self._known:
            with self._offered():
                self._known[uncertainty] = posterior_of(self._loaded, method_of(uncertainty))
        return self._known[uncertainty]

    def _rows(self, table: Table, target_required: bool) -> Rows:
        return self._trained.rows(table, target_required)


def _from_here(path: Path) -> str:
    """A path as one would type it: relative to the working directory where it is inside."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
