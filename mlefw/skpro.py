"""The likelihoods of mlefw as a probabilistic regressor of skpro (extra `skpro`, which needs pandas below 3.1)."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor
from torch.distributions import Distribution

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, is_discrete
from mlefw.distribution.censored import Censored
from mlefw.sklearn import LikelihoodRegressor

try:
    import pandas as pd
    from skpro.distributions.base import BaseDistribution
    from skpro.regression.base import BaseProbaRegressor
except ImportError as error:
    raise ImportError(f"mlefw.skpro needs skpro ({error}): pip install 'mlefw[skpro]'") from error


class Predictive(BaseDistribution):  # type: ignore[misc]
    """The predictive distributions of a fitted model for some rows, one for each row and target.

        >>> import numpy as np, pandas as pd
        >>> from mlefw.skpro import Predictive
        >>> from mlefw.sklearn import LikelihoodRegressor
        >>> X = pd.DataFrame({"x": np.arange(10.0)})
        >>> model = LikelihoodRegressor(max_epochs=1).fit(X, np.arange(10.0))
        >>> Predictive(model.predict_distribution, X, index=X.index, columns=["y"]).ppf(0.5).shape
        (10, 1)

    Args:
        predict: gives the distribution of rows, as `LikelihoodRegressor.predict_distribution` does.
        x: the rows, a frame of pandas.
        targets: positions of targets of the regressor; by default all.
        index: names of rows; None together with `columns` for the single distribution of one row and target.
        columns: names of targets.
    """

    _tags: ClassVar = {"capabilities:exact": ["mean", "var", "pdf", "log_pdf", "pmf", "log_pmf", "cdf", "ppf"]}

    def __init__(
        self, predict: Any, x: Any, targets: Sequence[int] | None = None, index: Any = None, columns: Any = None
    ) -> None:
        self.predict = predict
        self.x = x
        self.targets = targets
        super().__init__(index=index, columns=columns)
        self.set_tags(**{"distr:measuretype": "discrete" if is_discrete(self._marginals[0]) else "continuous"})

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters with which skpro tests the class: a number and a count, of several rows and of one."""
        random = np.random.default_rng(0)
        x = pd.DataFrame({"a": random.normal(size=30), "b": random.normal(size=30)})
        few: dict[str, Any] = {"max_epochs": 3, "hidden": (4,)}
        number = LikelihoodRegressor(**few).fit(x, x["a"] + random.normal(size=30))
        count = LikelihoodRegressor("poisson", **few).fit(x, random.poisson(np.exp(x["a"])))
        places = {"index": pd.Index([2, 5, 7]), "columns": pd.Index(["y"])}
        return [
            {"predict": number.predict_distribution, "x": x[:3], **places},
            {"predict": count.predict_distribution, "x": x[:3], **places},
            {"predict": number.predict_distribution, "x": x[:1]},
        ]

    @cached_property
    def _marginals(self) -> list[Distribution]:
        """The distribution of each target, of batch shape (n,)."""
        found: Any = self.predict(self.x)
        found = found.latent if isinstance(found, Censored) else found
        each = list(getattr(found, "marginals", [found]))
        return each if self.targets is None else [each[k] for k in self.targets]

    def _each(self, of: Callable[[Distribution, Tensor], Tensor], values: Any = 0.0) -> Any:
        """What `of` makes of each target's distribution and its column of `values`, shaped as this distribution."""
        given = np.broadcast_to(np.asarray(values, dtype=np.float64), (len(self.x), len(self._marginals)))
        columns = [
            of(one, torch.from_numpy(column.copy())).double().numpy()
            for one, column in zip(self._marginals, given.T, strict=True)
        ]
        return np.stack(columns, 1).reshape(self.shape)

    def _mean(self) -> Any:
        return self._each(lambda one, _: one.mean)

    def _var(self) -> Any:
        return self._each(lambda one, _: one.variance)

    def _log_pdf(self, x: Any) -> Any:
        return self._each(_log_density, x)

    def _pdf(self, x: Any) -> Any:
        return np.exp(self._log_pdf(x))

    def _log_pmf(self, x: Any) -> Any:
        return self._each(_log_density, x)

    def _pmf(self, x: Any) -> Any:
        return np.exp(self._log_pmf(x))

    def _cdf(self, x: Any) -> Any:
        return self._each(cdf, x)

    def _ppf(self, p: Any) -> Any:
        return self._each(quantile.quantile, p)

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> "Predictive":
        if np.ndim(rowidx) == 0 and np.ndim(colidx) == 0 and rowidx is not None and colidx is not None:
            return self._iat(rowidx, colidx)
        rows = np.arange(len(self.x)) if rowidx is None else np.arange(len(self.x))[_several(rowidx)]
        known = self._positions
        targets = known if colidx is None else known[_several(colidx)]
        places = np.arange(len(known)) if colidx is None else np.arange(len(known))[_several(colidx)]
        return type(self)(
            self.predict,
            self.x.iloc[rows],
            targets.tolist(),
            None if self.index is None else self.index.take(rows),
            None if self.columns is None else self.columns.take(places),
        )

    def _iat(self, rowidx: Any = None, colidx: Any = None) -> "Predictive":
        if rowidx is None or colidx is None:
            raise ValueError("iat needs a row and a column")
        return type(self)(self.predict, self.x.iloc[[rowidx]], [int(self._positions[colidx])])

    @property
    def _positions(self) -> np.ndarray:
        return np.arange(len(self._marginals)) if self.targets is None else np.asarray(self.targets)


class LikelihoodProbaRegressor(BaseProbaRegressor):  # type: ignore[misc]
    """A `LikelihoodRegressor` as a probabilistic regressor of skpro.

        model = LikelihoodProbaRegressor(LikelihoodRegressor("student_t", prior="l2")).fit(X, y)
        model.predict_proba(X), model.predict_interval(X, coverage=0.9), model.predict_quantiles(X, alpha=[0.1])

        >>> import numpy as np, pandas as pd
        >>> from mlefw.skpro import LikelihoodProbaRegressor
        >>> from mlefw.sklearn import LikelihoodRegressor
        >>> X = pd.DataFrame({"x": np.arange(10.0)})
        >>> model = LikelihoodProbaRegressor(LikelihoodRegressor(max_epochs=1)).fit(X, X)
        >>> model.predict_quantiles(X, alpha=[0.1, 0.9]).shape
        (10, 2)

    Args:
        estimator: a `LikelihoodRegressor`, of which a copy is fitted; None for one with its defaults.

    Attributes:
        estimator_: the fitted `LikelihoodRegressor`.
    """

    _tags: ClassVar = {
        "capability:multioutput": True,
        "capability:missing": False,
        "X_inner_mtype": "pd_DataFrame_Table",
        "y_inner_mtype": "pd_DataFrame_Table",
    }

    def __init__(self, estimator: LikelihoodRegressor | None = None) -> None:
        self.estimator = estimator
        super().__init__()
        self.set_tags(**{"capability:missing": getattr(estimator, "missing", "error") == "impute"})

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters with which skpro tests the class."""
        few: dict[str, Any] = {"max_epochs": 3, "hidden": (4,)}
        return [
            {"estimator": LikelihoodRegressor(**few)},
            {"estimator": LikelihoodRegressor("laplace", prior="l2", prior_scale=0.5, **few)},
        ]

    def _fit(self, X: Any, y: Any, C: Any = None) -> "LikelihoodProbaRegressor":  # noqa: N803
        self.estimator_ = clone(LikelihoodRegressor() if self.estimator is None else self.estimator).fit(_named(X), y)
        return self

    def _predict(self, X: Any) -> Any:  # noqa: N803
        return pd.DataFrame(self.estimator_.predict(_named(X)), index=X.index, columns=self._get_columns())

    def _predict_proba(self, X: Any) -> Predictive:  # noqa: N803
        return Predictive(self.estimator_.predict_distribution, _named(X), index=X.index, columns=self._get_columns())


def _log_density(distribution: Distribution, y: Tensor) -> Tensor:
    """The log-density or log-probability of y, minus infinity outside of the support."""
    support: Any = distribution.support
    inside = support.check(y)
    known = distribution.log_prob(torch.where(inside, y, distribution.sample()))
    return torch.where(inside, known, -torch.inf)


def _several(positions: Any) -> Any:
    """Positions as an array, or the slice that they are."""
    return positions if isinstance(positions, slice) else np.atleast_1d(np.asarray(positions))


def _named(x: Any) -> Any:
    """A frame whose columns have texts as names, as scikit-learn asks for."""
    return x.set_axis(x.columns.astype(str), axis=1)
