"""What the estimators have in common: parameters, the training, and predictive distributions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch.distributions import Distribution

from mlefw.distribution.trials import GivenTrials
from mlefw.errors import UsageError
from mlefw.sklearn import rows
from mlefw.sklearn.rows import METADATA, ROLES, Columns
from mlefw.sklearn.settings import SETTINGS, naming_parameters, overrides
from mlefw.sklearn.training import alone, model_of, refusing, train
from mlefw.trained import Model

EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a row of weight 2 has the likelihood of two rows, but the random share of validation rows and the random "
        "batches of a table with that row twice are others"
    ),
}
"""Why a check of `sklearn.utils.estimator_checks.check_estimator` fails, by its name: its `expected_failed_checks`."""


class LikelihoodEstimator(BaseEstimator):  # type: ignore[misc]
    """A model that is trained by maximum likelihood, or to the maximum of a posterior, as an estimator of scikit-learn.

    A concrete class has a constructor with the parameters in `SETTINGS`, and writes `_targets` and `_check`.
    """

    def __init__(
        self,
        head: str,
        prior: str,
        prior_scale: float | None,
        model: str,
        hidden: Sequence[int] | None,
        dropout: float | None,
        batch: str,
        batch_size: int | None,
        lr: float | None,
        max_epochs: int | None,
        validation_fraction: float,
        missing: str,
        settings: Any,
        random_state: Any,
        run_dir: str | Path | None,
        plugins: Sequence[str],
        verbose: bool,
    ) -> None:
        self.head = head
        self.prior = prior
        self.prior_scale = prior_scale
        self.model = model
        self.hidden = hidden
        self.dropout = dropout
        self.batch = batch
        self.batch_size = batch_size
        self.lr = lr
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.missing = missing
        self.settings = settings
        self.random_state = random_state
        self.run_dir = run_dir
        self.plugins = plugins
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None) -> Any:  # noqa: N803
        """Train.

        Args:
            X: a matrix, (n, num_features), of numbers; or a frame of pandas, polars or Arrow, in which text, booleans
                and categories are one-hot coded.
            y: the target, (n,), or (n, num_targets) where a regressor's head takes several.
            sample_weight: how often each row was seen, (n,): a weight of 2 is the row twice.
            offset: added to the first column of eta, (n,).
            exposure: positive, (n,); its logarithm is added to the first column of eta of a head with a log link.

        Returns:
            The estimator.

        Raises:
            ValueError: parameters or data are wrong; nothing was written.
            NumericalError: training diverged.
        """
        with refusing():
            x = rows.features(self, X, self.missing == "impute", y, reset=True)
            given = self._metadata(x, sample_weight=sample_weight, offset=offset, exposure=exposure)
            kept = rows.positive(given["sample_weight"], x.num_rows)
            target, columns = self._targets(y, x.num_rows, kept)
            x, given = x.take(kept), {name: None if v is None else v[kept] for name, v in given.items()}
            self._columns = Columns.named(x.column_names, target, [k for k, v in given.items() if v is not None])
            if isinstance(self.plugins, str):
                raise UsageError(f"plugins={self.plugins!r}: expected a list of names, such as [{self.plugins!r}]")
            parameters = {name: getattr(self, name) for name in SETTINGS}
            found = overrides(parameters, self.settings, self.random_state, self.run_dir is not None)
            with naming_parameters(parameters):
                fitted = train(
                    [*self._defaults(found), *found],
                    self._columns,
                    self._columns.table(x, columns, given),
                    self._check,
                    self.run_dir,
                    self.plugins,
                    self.verbose,
                )
            self._contents, self.summary_ = fitted.contents, fitted.summary
            self._model = model_of(self._contents, self.plugins)
        return self

    def predict_distribution(self, X: Any, offset: Any = None, exposure: Any = None) -> Distribution:  # noqa: N803
        """The predictive distributions, of batch shape (n,), in units of the target; of a class, of its code.

        The code of a class is its position in `classes_`.

        Args:
            X: rows, as in `fit`.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`.
        """
        return self._distribution(self._table(X, offset=offset, exposure=exposure))

    def score(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
    ) -> float:
        """The mean log-likelihood, in nats per row: of what was observed under the predictive distributions.

        It is of a density where the target is a number, and so may be positive, and depends on the unit of the target.

        Args:
            X: rows, as in `fit`.
            y: their target.
            sample_weight: weights of the rows in the mean, (n,).
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`, or y holds a value that the head gives no probability.
        """
        with refusing():
            table = self._table(X, y, offset=offset, exposure=exposure)
            weight = rows.row_values(sample_weight, "sample_weight", table.num_rows)
            if (role := self._columns.roles.get("sample_weight")) is not None:
                table = table.append_column(role, pa.array(np.ones(table.num_rows)))
            with alone:
                found = self._model.log_likelihood(table)
            return float(np.average(found, weights=weight))

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may expect: missing cells where they are imputed, and categories in frames."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "impute"
        tags.input_tags.categorical = True
        tags.non_deterministic = self.random_state is None
        return tags

    def __getstate__(self) -> Any:
        """Parameters and attributes, in plain containers, arrays and tensors: the model is built anew from them."""
        state = {name: value for name, value in super().__getstate__().items() if name != "_model"}
        return state | ({"_columns": asdict(self._columns)} if "_columns" in state else {})

    def __setstate__(self, state: Any) -> None:
        """Take up a state, and build the model."""
        super().__setstate__(state)
        if "_contents" in state:
            self._columns = Columns(**state["_columns"])
            self._model = model_of(self._contents, self.plugins)

    @property
    def model_(self) -> Model:
        """The trained model, as `mlefw.load` gives it.

        Raises:
            NotFittedError: there is none yet.
        """
        check_is_fitted(self)
        return self._model

    @abstractmethod
    def _targets(self, y: Any, num_rows: int, kept: np.ndarray) -> tuple[str | list[str], list[pa.Array]]:
        """Names of the target of `fit`, and its columns in the rows at `kept`, (m,)."""

    @abstractmethod
    def _observed(self, y: Any, num_rows: int) -> list[pa.Array]:
        """Columns of a target, of new rows."""

    @abstractmethod
    def _check(self, kind: str) -> None:
        """Refuse a head that takes another kind of target."""

    def _defaults(self, given: Sequence[str]) -> list[str]:
        """Settings of the kind of estimator that none of those given replaces."""
        return []

    def _metadata(self, x: pa.Table, **values: Any) -> dict[str, np.ndarray | None]:
        return {name: rows.row_values(values.get(name), name, x.num_rows) for name in METADATA}

    def _table(self, X: Any, y: Any = None, **values: Any) -> pa.Table:  # noqa: N803
        """New rows as a table; with the target, unless y is None."""
        check_is_fitted(self)
        with refusing():
            x = rows.features(self, X, self.missing == "impute")
            given = self._metadata(x, **values)
            for name in ("offset", "exposure"):
                if (given[name] is None) == (name in self._columns.roles):
                    what = "with" if given[name] is None else "without"
                    raise UsageError(
                        f"{name}= is {'missing' if given[name] is None else 'given'}, and the model was fitted {what} "
                        f"it (data.{ROLES[name]})\n  expected: {name}= for these rows and those of fit, or for neither"
                    )
            return self._columns.table(x, [] if y is None else self._observed(y, x.num_rows), given)

    def _distribution(self, table: pa.Table) -> Distribution:
        with refusing(), alone:
            found = self._model.distribution(table)
        if isinstance(found, GivenTrials):
            trials = np.array(table.column(self._model.trials), dtype=np.float64)
            found = found.given(torch.from_numpy(trials))
        return found
