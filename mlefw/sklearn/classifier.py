"""A classifier of scikit-learn with the predictive distribution of any head for classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from mlefw.errors import UsageError
from mlefw.sklearn.estimator import LikelihoodEstimator
from mlefw.uncertainty.pool import log_probabilities

_SHARING = ("data.split=", "data.group=", "data.time=")
"""Settings that say how rows are shared out to training and validation."""


class LikelihoodClassifier(LikelihoodEstimator, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network or linear model that predicts the probabilities of classes, trained by maximum likelihood.

        model = LikelihoodClassifier(prior="l2", prior_scale=0.5).fit(X, y)
        model.predict(X), model.predict_proba(X), model.score(X, y)  # score: mean log-likelihood
        LikelihoodClassifier("ordinal", model="linear", settings=["head.link=probit"])

    Classes are numbers, booleans or text. With `head="ordinal"` they have an order: that of an ordered categorical of
    pandas, or of numbers.

    Of the rows given to `fit`, a share of `validation_fraction`, equal in each class, is not trained on: it decides
    when training stops, and the state with the best validation NLL is the one that is kept. Without it training takes
    all `max_epochs`. There are no test rows: hold them out beforehand, as `cross_val_score` does.

    Nothing is written unless `run_dir` is given, and nothing is printed unless `verbose` is. The settings are those of
    `mlefw train`, but for `data.split=stratified` and `trainer.precision=64`, by which the prediction of a row does not
    depend on other rows.

    Args:
        head: the likelihood: `categorical`, `ordinal`, or `bernoulli` for two classes.
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
            `{"optimizer.lr": 0.01}`. Where they name columns of a frame X (`data.group`, …), these are no features.
        random_state: a whole number for numbers that can be repeated; None for another seed in each fit. Numpy's global
            generator is not used.
        run_dir: directory in which the run is kept, with its report, as that of `mlefw train`; new for each fit.
        plugins: packages from which heads, models and other parts may come.
        verbose: whether warnings, and progress on a terminal, are printed; else warnings are those of Python.

    Parameters that are None are as in `mlefw train`.

    Attributes:
        classes_: the classes, in the order of the columns of `predict_proba`: sorted, or in their own order.
        n_features_in_: number of columns of X.
        feature_names_in_: their names, if X was a frame.
        summary_: what `summary.json` of a run holds.
        model_: the trained `mlefw.trained.Model`.
    """

    def __init__(
        self,
        head: str = "categorical",
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
        """The most probable class of each row, (n,).

        Args:
            X: rows, as in `fit`.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`.
        """
        codes = self.predict_log_proba(X, offset, exposure).argmax(1)
        return np.asarray(self.classes_[codes])

    def predict_proba(self, X: Any, offset: Any = None, exposure: Any = None) -> np.ndarray:  # noqa: N803
        """The probability of each class, (n, num_classes), in the order of `classes_`.

        Args:
            X: rows, as in `fit`.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`.
        """
        return np.exp(self.predict_log_proba(X, offset, exposure))

    def predict_log_proba(self, X: Any, offset: Any = None, exposure: Any = None) -> np.ndarray:  # noqa: N803
        """The logarithm of the probability of each class, (n, num_classes), in the order of `classes_`.

        Args:
            X: rows, as in `fit`.
            offset: (n,), where `fit` got one.
            exposure: (n,), where `fit` got one.

        Raises:
            ValueError: X is not as in `fit`.
        """
        return np.asarray(log_probabilities(self.predict_distribution(X, offset, exposure)).numpy())

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may expect: `bernoulli` is for two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.head != "bernoulli"
        return tags

    def _targets(self, y: Any, num_rows: int, kept: np.ndarray) -> tuple[str | list[str], list[pa.Array]]:
        values = _labels(y, num_rows)[kept]
        dtype: Any = getattr(y, "dtype", None)
        is_stated = bool(getattr(dtype, "ordered", False))
        self._is_ordered = is_stated or values.dtype.kind in "biuf"
        classes = np.unique(values)
        if is_stated:
            stated = np.asarray(dtype.categories)
            classes = stated[np.isin(stated, classes)]
        if len(classes) < 2:
            raise UsageError(f"y holds one class alone: {classes.tolist()[0]!r}\n  expected: at least two classes")
        self.classes_ = classes
        name = getattr(y, "name", None)
        return name if isinstance(name, str) else "y", [self._coded(values)]

    def _observed(self, y: Any, num_rows: int) -> list[pa.Array]:
        values = _labels(y, num_rows)
        unknown = values[~np.isin(values, self.classes_)]
        if len(unknown):
            known = self.classes_.tolist()
            raise UsageError(f"y holds the class {unknown.tolist()[0]!r}\n  expected: one of those of fit, {known}")
        return [self._coded(values)]

    def _coded(self, values: np.ndarray) -> pa.Array:
        """Labels, (n,), as text whose order is stated."""
        order = np.argsort(self.classes_, kind="stable")
        codes = order[np.searchsorted(self.classes_, values, sorter=order)]
        names = [str(label) for label in self.classes_.tolist()]
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names), ordered=True)

    def _check(self, kind: str) -> None:
        if kind == "numeric":
            raise UsageError(f"head={self.head} is for numbers\n  expected: LikelihoodRegressor, or a head for classes")
        if kind == "binary" and len(self.classes_) > 2:
            raise UsageError(f"head={self.head} is for two classes, and y holds {len(self.classes_)}")
        if kind == "ordered" and not self._is_ordered:
            raise UsageError(
                f"head={self.head}: the classes {', '.join(map(str, self.classes_[:5]))} have no known order"
                "\n  expected: y as an ordered categorical of pandas, or as numbers"
            )

    def _defaults(self, given: Sequence[str]) -> list[str]:
        shares = any(item.lstrip("+~").startswith(_SHARING) for item in given)
        return [] if shares else ["data.split=stratified"]


def _labels(y: Any, num_rows: int) -> np.ndarray:
    """The classes of rows, (n,).

    Raises:
        ValueError: they are numbers that are no classes, missing, or not one for each row.
    """
    values = column_or_1d(y, warn=True)
    check_consistent_length(range(num_rows), values)
    assert_all_finite(values, input_name="y")
    check_classification_targets(values)
    return np.asarray(values)
