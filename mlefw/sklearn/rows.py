"""What scikit-learn's users hand over, X and y and values of rows, as columns of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from mlefw.data.frame import as_arrow
from mlefw.errors import UsageError

METADATA = ("sample_weight", "offset", "exposure")
"""Values of rows beside X and y, which may be given to `fit`, and by the roles of their columns in `ROLES`."""

ROLES = {"sample_weight": "weight", "offset": "offset", "exposure": "exposure"}


@dataclass(frozen=True)
class Columns:
    """The names of columns that `fit` has seen, in plain containers.

    Attributes:
        features: the columns of X.
        target: the name of the target, or a list of several.
        roles: for each of `METADATA` that was given, the name of its column.
    """

    features: list[str]
    target: str | list[str]
    roles: dict[str, str]

    @classmethod
    def named(cls, features: Sequence[str], target: str | Sequence[str], given: Sequence[str]) -> "Columns":
        """Names that differ from each other; those of features are taken as they are."""
        taken = list(features)

        def free(name: str) -> str:
            while name in taken:
                name += "_"
            taken.append(name)
            return name

        targets = free(target) if isinstance(target, str) else [free(name) for name in target]
        return cls(list(features), targets, {name: free(name) for name in given})

    @property
    def targets(self) -> list[str]:
        """The names of the targets."""
        return [self.target] if isinstance(self.target, str) else self.target

    def table(self, x: pa.Table, y: Sequence[pa.Array], given: Mapping[str, np.ndarray | None]) -> pa.Table:
        """The rows with all columns.

        Args:
            x: the features.
            y: the targets; none where they are not known.
            given: values of rows, by names among `METADATA`.
        """
        for name, column in zip(self.targets if y else [], y, strict=True):
            x = x.append_column(name, column)
        for name, role in self.roles.items():
            if (values := given.get(name)) is not None:
                x = x.append_column(role, pa.array(values))
        return x


def is_frame(x: Any) -> bool:
    """Whether X is a frame of pandas, polars or Arrow, whose columns may be of different types."""
    return hasattr(x, "columns") and (hasattr(x, "__dataframe__") or hasattr(x, "__arrow_c_stream__"))


def features(estimator: Any, x: Any, allow_nan: bool, y: Any = "no_validation", reset: bool = False) -> pa.Table:
    """X as a table of Arrow with the names of `estimator.feature_names_in_`, or x0, x1 and so on.

    Of a matrix the values are checked as scikit-learn does; columns of a frame are checked when they are coded.

    Args:
        estimator: gets, or else has, the attributes `n_features_in_` and `feature_names_in_`.
        x: a frame, or a matrix, (n, num_features).
        allow_nan: whether cells may be missing.
        y: the target in `fit`, where it may not be None.
        reset: whether X is that of `fit`.

    Raises:
        ValueError, TypeError: as scikit-learn's `validate_data`.
        UsageError: a frame that cannot be read.
    """
    fewest = 2 if reset else 1
    if not is_frame(x):
        x = check_array(
            x,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if allow_nan else True,
            ensure_min_samples=fewest,
            estimator=estimator,
            input_name="X",
        )
    validate_data(estimator, x, y, reset=reset, skip_check_array=True)
    table = as_arrow(x)
    if table.num_rows < fewest:
        raise UsageError(f"Found a frame with {table.num_rows} sample(s) while a minimum of {fewest} is required.")
    names = getattr(estimator, "feature_names_in_", None)
    # A frame whose columns are no texts, such as those of `pandas.DataFrame(matrix)`, has the names of a matrix.
    return table.rename_columns([f"x{j}" for j in range(table.num_columns)] if names is None else list(names))


def row_values(values: Any, name: str, num_rows: int) -> np.ndarray | None:
    """Values of rows, (n,) float64; None if they are not given.

    Raises:
        ValueError: they are not finite numbers, or of another shape.
    """
    if values is None:
        return None
    found = check_array(values, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name)
    if found.shape != (num_rows,):
        raise UsageError(f"{name} has shape {found.shape}\n  expected: ({num_rows},), a value for each row of X")
    return np.asarray(found)


def positive(weight: np.ndarray | None, num_rows: int) -> np.ndarray:
    """Positions of the rows whose weight is not zero: a row that was never seen is no row.

    Raises:
        UsageError: every weight is zero.
    """
    kept = np.arange(num_rows) if weight is None else np.flatnonzero(weight)
    if not len(kept):
        raise UsageError("sample_weight is zero in every row\n  expected: a positive weight somewhere")
    return kept
