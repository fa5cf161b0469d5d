"""Tables in memory: frames of pandas, polars or Arrow, and arrays."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.arrow import check_names, to_table
from mlefw.reading.table import Table

# A context variable, since settings, by which a source is built, hold no tables, and threads may train at once.
_offered: ContextVar[Mapping[str, Any]] = ContextVar("_offered")


@contextmanager
def offered(**tables: Any) -> Iterator[None]:
    """Let every `Frame` read these tables, and every other source of rows in memory what it takes, in the block.

    `tables`: under `rows`, and where they are given under `validation` and `test`.
    """
    token = _offered.set({name: table for name, table in tables.items() if table is not None})
    try:
        yield
    finally:
        _offered.reset(token)


def handed_over(name: str) -> Any:
    """What the program offers under a name; None where it offers nothing."""
    return _offered.get({}).get(name)


@dataclass(kw_only=True)
class Frame(Source):
    """Rows handed over by a Python program (`mlefw.fit`); messages count them from zero."""

    def read(self) -> Table:
        """All rows.

        Raises:
            UsageError: there are none, since the run was started by another program.
        """
        arrow = handed_over("rows")
        if arrow is None:
            raise UsageError(
                "data=frame: the rows of this run came from Python, and no file has them"
                "\n  expected: data.path=FILE where rows are to be predicted or scored, data=csv or data=parquet for "
                "training, or in Python mlefw.fit.fit"
            )
        return self._table(arrow, "the frame")

    def read_validation(self) -> Table | None:
        """The validation rows, if the program gave any."""
        return self._given("validation")

    def read_test(self) -> Table | None:
        """The test rows, if the program gave any."""
        return self._given("test")

    def _given(self, split: str) -> Table | None:
        arrow = handed_over(split)
        return None if arrow is None else self._table(arrow, f"the {split} frame")

    def _table(self, arrow: pa.Table, origin: str) -> Table:
        check_names(arrow.column_names, origin)
        names = self.wanted(arrow.column_names, origin)
        columns = ((name, [arrow.column(name)]) for name in names)
        return to_table(columns, Table({}, origin), self.cells(names))


def as_arrow(data: Any, names: Sequence[str] | None = None) -> pa.Table:
    """A frame of pandas, polars or Arrow, a mapping of arrays (n,), or a matrix (n, num_columns) as an Arrow table.

    A matrix may be a tensor of torch.

    Masked entries of numpy's masked arrays are missing values.

    Args:
        data: the rows.
        names: names of the columns of a matrix; by default x0, x1, …

    Raises:
        UsageError: `data` is of another kind, or has values that no column can hold.
    """
    try:
        if type(data).__module__ == "torch":
            data = data.numpy(force=True)
        if isinstance(data, np.ndarray):
            data = _by_name(data, names)
        if isinstance(data, Mapping):
            return pa.table({name: _column(str(name), values) for name, values in data.items()})
        if type(data).__module__.startswith("pandas"):
            return pa.Table.from_pandas(_with_written_categories(data), preserve_index=False)
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the frame cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}"
            "\n  expected: a frame of pandas, polars or Arrow, a mapping of arrays, or a matrix"
        ) from None


def with_target(data: Any, target: Any, name: str, names: Sequence[str] | None = None) -> pa.Table:
    """The rows `data` as an Arrow table, with the target (n,) as last column under `name`.

    Raises:
        UsageError: as `as_arrow`, or the target has another length, or a column has its name.
    """
    table = as_arrow(data, names)
    shape = np.shape(target)
    if shape != (table.num_rows,):
        raise UsageError(f"the target has shape {shape}\n  expected: ({table.num_rows},), a value for each row")
    if name in table.column_names:
        raise UsageError(
            f"the target is called {name!r}, and so is a column\n  expected: another name, or the column's"
        )
    return table.append_column(name, as_arrow({name: target}).column(name))


def _by_name(matrix: np.ndarray, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    shape = matrix.shape
    if matrix.dtype.names is not None and matrix.ndim == 1:
        return {name: matrix[name] for name in matrix.dtype.names}
    if matrix.ndim != 2 or (names is not None and shape[1] != len(names)):
        expected = "two dimensions" if names is None else f"a column for each of {', '.join(names)}"
        raise UsageError(f"the matrix has shape {shape}\n  expected: {expected}")
    return {name: matrix[:, j] for j, name in enumerate(names or [f"x{j}" for j in range(shape[1])])}


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    """Values (n,) as an Arrow column; a categorical of pandas keeps its levels and their order."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if type(values).__module__.startswith("pandas"):
        series = sys.modules["pandas"].Series(values)
        return pa.array(_with_written_categories(series.to_frame(name))[name], from_pandas=True)
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    is_masked = np.ma.isMaskedArray(values)
    array = np.asarray(values)
    if array.ndim != 1:
        raise UsageError(f"column {name!r} has shape {array.shape}\n  expected: one dimension, a value for each row")
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return pa.array(array, mask=np.ma.getmaskarray(values) if is_masked else None, from_pandas=True)


def _with_written_categories(frame: Any) -> Any:
    """The pandas frame with other categories than strings and numbers as text: intervals (of `cut`), dates."""
    pandas = sys.modules["pandas"]
    odd = {
        name: column.cat.rename_categories(str)
        for name, column in frame.items()
        if isinstance(column.dtype, pandas.CategoricalDtype)
        and not pandas.api.types.is_numeric_dtype(column.cat.categories)
        and not pandas.api.types.is_string_dtype(column.cat.categories)
    }
    return frame.assign(**odd) if odd else frame
