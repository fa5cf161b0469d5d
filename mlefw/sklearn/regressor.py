"""A regressor of scikit-learn with the predictive distribution of any head for numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags, assert_all_finite, check_array, check_consistent_length
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution import quantile
from mlefw.distribution.censored import Censored
from mlefw.errors import UsageError
from mlefw.sklearn.estimator import LikelihoodEstimator
from mlefw.sklearn.output import TableOutput
from mlefw.sklearn.training import refusing


class LikelihoodRegressor(LikelihoodEstimator, TableOutput, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A network or linear model that predicts the distribution of a number, trained by maximum likelihood.

        model = LikelihoodRegressor(head="student_t", prior="l2", prior_scale=0.5).fit(X, y)
        model.predict(X), model.predict_interval(X, 0.9), model.score(X, y)  # score: mean log-likelihood
        LikelihoodRegressor(settings={"head.scale": "predicted", "early_stopping.patience": 20})

    Of the rows given to `fit`, a share of `validation_fraction`, drawn at random, is not trained on: it decides when
    training stops, and the state with the best validation NLL is the one that is kept. Without it training takes all
    `max_epochs`. There are no test rows: hold them out beforehand, as `cross_val_score` does.

    Nothing is written unless `run_dir` is given, and nothing is printed unless `verbose` is. The settings are those of
    `mlefw train`, but for `trainer.precision=64`, by which the prediction of a row does not depend on other rows.

    Args:
        head: the likelihood, such as `gaussian`, `student_t`, `poisson`, `gamma` or `quantiles`.
        prior: on the weights: `none`, `l2`, `l1` or `elastic_net`.
        prior_scale: the scale of the prior, such as the standard deviation of weights under `l2`.
        model: `mlp`, `linear` or `residual`.
        hidden: widths of the hidden layers.
        dropout: probability that a hidden unit is dropped in training.
        batch: how rows are shared out to steps: `mini`, `full`, `growing` or `replacement`.
        batch_size: rows of a step.
        lr: learning rate of the optimiser.
        max_epochs: most passes over the training rows.
        validation_fraction: share of rows by which training is stopped; 0 for none.
        missing: of missing cells in X: `error`, or `impute` by the mean of the training rows beside a feature that says
            where they are.
        settings: any other settings of `mlefw train`: a list of texts, `["batch=full", "optimizer=lbfgs"]`, or a dict,
            `{"optimizer.lr": 0.01}`. Columns of a frame X that they name (`data.group`, `data.trials`) are no features.
        random_state: a whole number for numbers that can be repeated; None for another seed in each fit. Numpy's global
            generator is not used.
        run_dir: directory in which the run is kept, with its report, as that of `mlefw train`; new for each fit.
        plugins: packages from which heads, models and other parts may come.
        verbose: whether warnings, and progress on a terminal, are printed; else warnings are those of Python.

    Parameters that are None are as in `mlefw train`.

    Attributes:
        n_features_in_: number of columns of X.
        feature_names_in_: their names, if X was a frame.
        summary_: what `summary.json` of a run holds.
        model_: the trained `mlefw.trained.Model`.
    """

    def __init__(
        self,
        head: str = "gaussian",
        *,
        prior: str = "none",
        prior_scale: float | None = None,
        model: str = "mlp",
        hidden: Sequence[int] | None = None,
        dropout: float | None = None,
        batch: str = "mini",
        batch_size: int | None = None,
        lr: float | None = None,
        max_epochs: int | None = None,
        validation_fraction: float = 0.2,
        missing: str = "error",
        settings: Any = None,
        random_state: Any = 0,
        run_dir: str | Path | None = None,
        plugins: Sequence[str] = (),
        verbose: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**given)

    def predict(self, X: Any, offset: Any = None, exposure: Any = None) -> np.ndarray:  # noqa: N803
        """The mean of the predictive distribution, shaped as y in `fit`.

        Args:
            X: rows, as in `fit`.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`.
        """
        return self._each(self.predict_distribution(X, offset, exposure), lambda one: one.mean)

    def predict_quantile(
        self,
        X: Any,  # noqa: N803
        q: float | Sequence[float] = 0.5,
        offset: Any = None,
        exposure: Any = None,
    ) -> Any:
        """The smallest value that an observation does not exceed with a probability of at least q.

        Args:
            X: rows, as in `fit`.
            q: a probability between 0 and 1, or several.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Returns:
            The quantile shaped as `predict`; of several probabilities with a last dimension more, or in a frame, if
            `set_output` asks for one.

        Raises:
            ValueError: X is not as in `fit`, or q is not between 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
        with refusing():
            if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
                raise UsageError(f"q={q}: expected a probability between 0 and 1, or a list of them")
        found = self.predict_distribution(X, offset, exposure)
        values = [self._each(found, lambda one, level=p: quantile.quantile(one, level)) for p in levels.tolist()]
        if np.ndim(q) == 0:
            return values[0]
        return self._columned(np.stack(values, -1), [f"quantile_{p:g}" for p in levels], X)

    def predict_interval(self, X: Any, level: float = 0.9, offset: Any = None, exposure: Any = None) -> Any:  # noqa: N803
        """The central interval of an observation: the quantiles at (1 − level) / 2 and (1 + level) / 2.

        Args:
            X: rows, as in `fit`.
            level: probability of the interval.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Returns:
            Lower and upper end, (n, 2), or (n, num_targets, 2); or in a frame, if `set_output` asks for one.

        Raises:
            ValueError: X is not as in `fit`, or `level` is not between 0 and 1.
        """
        with refusing():
            if not isinstance(level, int | float | np.floating) or not 0 < level < 1:
                raise UsageError(f"level={level}: expected a probability between 0 and 1, such as 0.9")
        found = self.predict_distribution(X, offset, exposure)
        ends = [self._each(found, lambda one, k=k: quantile.interval(one, level)[k]) for k in (0, 1)]
        return self._columned(np.stack(ends, -1), ["lower", "upper"], X)

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may expect: y of several columns, and no particular score."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # The score is a log-likelihood, for which the 0.5 that scikit-learn expects of R² means nothing.
        tags.regressor_tags.poor_score = True
        return tags

    def _each(self, found: Distribution, of: Any) -> np.ndarray:
        """A tensor (n,) of the distribution of each target, shaped as y in `fit`."""
        # Two bounds are those of one number.
        is_one = self._is_vector or isinstance(found, Censored)
        found = found.latent if isinstance(found, Censored) else found
        values: list[Tensor] = [of(one) for one in getattr(found, "marginals", [found])]
        shape = [] if is_one else [len(values)]
        return np.stack([value.double().numpy() for value in values], -1).reshape(-1, *shape)

    def _columned(self, values: np.ndarray, names: Sequence[str], x: Any) -> Any:
        """Values with a last dimension of columns, in the container that `set_output` asks for."""
        if values.ndim == 3:
            names = [f"{target}_{name}" for target in self._columns.targets for name in names]
        table = self._contained(values.reshape(len(values), -1), names, x)
        return values if isinstance(table, np.ndarray) else table

    def _targets(self, y: Any, num_rows: int, kept: np.ndarray) -> tuple[str | list[str], list[pa.Array]]:
        values = _numbers(y, num_rows)
        self._is_vector = values.ndim < 2
        columns = _columns(values[kept])
        if len(columns) > 1:
            names = getattr(y, "columns", None)
            return [f"y{k}" if names is None else str(names[k]) for k in range(len(columns))], columns
        name = getattr(y, "name", None)
        return name if isinstance(name, str) else "y", columns

    def _observed(self, y: Any, num_rows: int) -> list[pa.Array]:
        return _columns(_numbers(y, num_rows))

    def _check(self, kind: str) -> None:
        if kind != "numeric":
            raise UsageError(
                f"head={self.head} is for classes\n  expected: LikelihoodClassifier, or a head for numbers"
            )


def _numbers(y: Any, num_rows: int) -> np.ndarray:
    """The target, (n,) or (n, num_targets).

    Raises:
        ValueError: it holds other values than numbers, a single column does not hold finite ones, or rows are missing.
    """
    values = check_array(y, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name="y")
    check_consistent_length(range(num_rows), values)
    # Cells of several columns may be missing: bounds that are not known, or targets of a row that has others.
    if values.ndim < 2 or values.shape[1] < 2:
        assert_all_finite(values, input_name="y")
    return np.asarray(values)


def _columns(values: np.ndarray) -> list[pa.Array]:
    return [pa.array(np.ascontiguousarray(column), from_pandas=True) for column in values.reshape(len(values), -1).T]
