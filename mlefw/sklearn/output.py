"""Tables of predictions in the container that `set_output` asks for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import get_config

CONTAINERS = ("default", "pandas", "polars")


class TableOutput:
    """Adds `set_output` to an estimator whose predictions have several columns."""

    def set_output(self, *, transform: str | None = None) -> Any:
        """Choose the container of `predict_interval` and `predict_quantile`, as that of a transformer's output.

        Args:
            transform: `default` for arrays, `pandas` or `polars` for a frame with named columns; None changes nothing.
                Without a choice it is `transform_output` of `sklearn.set_config`.

        Returns:
            The estimator.

        Raises:
            ValueError: there is no such container.
        """
        if transform is not None:
            if transform not in CONTAINERS:
                raise ValueError(f"transform={transform!r}: expected {', '.join(CONTAINERS)}")
            # The name by which `sklearn.base.clone` copies the choice.
            self._sklearn_output_config = {"transform": transform}
        return self

    def _contained(self, values: np.ndarray, names: Sequence[str], x: Any) -> Any:
        """Columns, (n, num_columns), in the container that was chosen; a frame of pandas has the index of X."""
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform", get_config()["transform_output"])
        if chosen == "pandas":
            import pandas

            return pandas.DataFrame(values, columns=list(names), index=getattr(x, "index", None))
        if chosen == "polars":
            import polars

            return polars.DataFrame(values, schema=list(names), orient="row")
        return values
