"""The small data sets that come with scikit-learn."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn import datasets

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table

TARGETS = {  # the target of each data set
    "diabetes": "progression",
    "breast_cancer": "benign",
    "iris": "species",
    "digits": "digit",
    "wine": "cultivar",
}


@dataclass(kw_only=True)
class Bundled(Source):
    """Reads a data set of scikit-learn in its original units; any of its columns may be the target.

    Targets by default: `progression` of diabetes (a number), `benign` of breast_cancer (1 is benign), and the labels
    `species` of iris, `digit` of digits and `cultivar` of wine.

    Attributes:
        name: which data set.
    """

    name: Literal["diabetes", "breast_cancer", "iris", "digits", "wine"]

    def __post_init__(self) -> None:
        """Set the target to that of the data set unless another is named.

        Raises:
            UsageError: an unknown data set.
        """
        if self.name not in TARGETS:
            raise UsageError(f"data.name={self.name} is not bundled\n  expected one of: {', '.join(TARGETS)}")
        self.target = self.target or TARGETS[self.name]

    def read(self) -> Table:
        """All rows: the features, then the target of the data set."""
        loader = getattr(datasets, f"load_{self.name}")
        data = loader(scaled=False) if self.name == "diabetes" else loader()
        x = np.asarray(data.data, dtype=np.float64)
        columns = {str(name): np.ascontiguousarray(x[:, j]) for j, name in enumerate(data.feature_names)}
        columns[TARGETS[self.name]] = self._target(np.asarray(data.target), data.get("target_names"))
        return Table(columns, f"{self.name} (bundled with scikit-learn)")

    def _target(self, target: np.ndarray, names: np.ndarray | None) -> np.ndarray:
        if self.name in ("diabetes", "breast_cancer") or names is None:
            return target.astype(np.float64)
        labels = np.array([str(name) for name in names], dtype=object)
        return np.asarray(labels[target])
