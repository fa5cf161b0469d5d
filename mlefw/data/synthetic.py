"""Random rows of a model with known parameters, with which estimates can be compared."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table

KINDS = ("gaussian", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson")


@dataclass(kw_only=True)
class Synthetic(Source):
    """Draws y given x from a generalised linear model with standard normal features.

    With x ~ N(0, I) and eta = intercept + x @ coefficients, the target y is

    - gaussian: N(eta, scale)
    - heteroscedastic: N(eta, scale * exp(x @ log_scale_coefficients))
    - laplace: Laplace(eta, scale)
    - bernoulli: 1 with probability sigmoid(eta), else 0
    - poisson: Poisson(exp(eta))
    - categorical: class k in 0 .. num_classes - 1 with probability softmax(logits)[k], where logits[0] = 0 and
      logits[k] = intercept + x @ roll(coefficients, k - 1): the contrasts of a table whose reference is class 0.

    Columns are x0, x1, ... and y. The draw is `numpy.random.default_rng(draw_seed)`: first all of x, then y.

    Attributes:
        kind: distribution of y given x.
        num_rows: number of rows.
        num_features: number of features.
        coefficients: slopes, one for each feature; evenly spaced from 0.5 to -0.5 by default.
        log_scale_coefficients: slopes of log scale; by default half of the default slopes in reverse order.
        intercept: intercept of eta.
        scale: standard deviation of y given x, or scale of the Laplace distribution.
        num_classes: number of classes of a categorical y.
        draw_seed: seed of the random rows; `seed` is the seed of the split.
    """

    kind: Literal["gaussian", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson"] = "gaussian"
    num_rows: int = 1000
    num_features: int = 5
    coefficients: list[float] | None = None
    log_scale_coefficients: list[float] | None = None
    intercept: float = 0.0
    scale: float = 1.0
    num_classes: int = 3
    draw_seed: int = 0

    def __post_init__(self) -> None:
        """Fill in default coefficients and check every setting.

        Raises:
            UsageError: a setting is out of range.
        """
        self.target = self.target or "y"
        for setting, least in (("num_rows", 1), ("num_features", 1), ("num_classes", 2)):
            if getattr(self, setting) < least:
                raise UsageError(f"data.{setting}={getattr(self, setting)}\n  expected: at least {least}")
        if self.kind not in KINDS:
            raise UsageError(f"data.kind={self.kind} is not known\n  expected one of: {', '.join(KINDS)}")
        if not 0 < self.scale < np.inf:
            raise UsageError(f"data.scale={self.scale}\n  expected: a positive number")
        slopes = np.linspace(0.5, -0.5, self.num_features)
        self.coefficients = self._slopes("coefficients", slopes)
        self.log_scale_coefficients = self._slopes("log_scale_coefficients", slopes[::-1] / 2)

    def read(self) -> Table:
        """The rows, equal for equal settings."""
        rng = np.random.default_rng(self.draw_seed)
        x = rng.normal(size=(self.num_rows, self.num_features))
        columns = {f"x{j}": np.ascontiguousarray(x[:, j]) for j in range(self.num_features)}
        columns["y"] = self._draw(rng, x)
        return Table(columns, f"synthetic {self.kind} rows")

    def _draw(self, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        eta = self.intercept + x @ np.asarray(self.coefficients)
        match self.kind:
            case "gaussian":
                y = rng.normal(eta, self.scale)
            case "heteroscedastic":
                y = rng.normal(eta, self.scale * np.exp(x @ np.asarray(self.log_scale_coefficients)))
            case "laplace":
                y = rng.laplace(eta, self.scale)
            case "bernoulli":
                y = rng.random(len(x)) < 1 / (1 + np.exp(-eta))
            case "poisson":
                y = rng.poisson(np.exp(eta))
            case "categorical":
                # The Gumbel-max trick: the argmax of logits plus Gumbel noise is k with probability softmax(logits)[k].
                y = np.argmax(self._logits(x) + rng.gumbel(size=(len(x), self.num_classes)), axis=1)
        return np.asarray(y, dtype=np.float64)

    def _logits(self, x: np.ndarray) -> np.ndarray:
        slopes = [np.roll(np.asarray(self.coefficients), k) for k in range(self.num_classes - 1)]
        logits: np.ndarray = np.column_stack([np.zeros(len(x)), *(self.intercept + x @ slope for slope in slopes)])
        return logits

    def _slopes(self, setting: str, default: np.ndarray) -> list[float]:
        given = getattr(self, setting)
        slopes = default.tolist() if given is None else [float(slope) for slope in given]
        if len(slopes) != self.num_features:
            raise UsageError(
                f"data.{setting} has {len(slopes)} values\n  expected: data.num_features={self.num_features} values"
            )
        return slopes
