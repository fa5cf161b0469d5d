"""Tables in memory: frames of pandas, polars or Arrow, and arrays."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.arrow import check_names, to_table
from mlefw.reading.in_memory import array_of
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

    A matrix may be a tensor of torch or a list of rows, and an array in a mapping a tensor or a list.

    Missing are nan, None, the missing values of each library, and masked entries of numpy's masked arrays.

    Args:
        data: the rows.
        names: names of the columns of a matrix; by default x0, x1, …

    Raises:
        UsageError: `data` is of another kind, or has values that no column can hold.
    """
    try:
        if isinstance(data, torch.Tensor):
            data = array_of(data)
        if isinstance(data, list):
            data = np.asarray(data)
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


def with_target(data: Any, target: Any, name: str | Sequence[str], names: Sequence[str] | None = None) -> pa.Table:
    """The rows `data` as an Arrow table, with the target as last column under `name`, or several of them.

    Args:
        data: the rows.
        target: the values of the target, (n,) or (n, 1); of several (n, k), or a frame or mapping of their columns.
        name: the name of the target, or k of them.
        names: names of the columns of a matrix.

    Raises:
        UsageError: as `as_arrow`, or the target has another length, or a column has its name.
    """
    table = as_arrow(data, names)
    targets = [name] if isinstance(name, str) else list(name)
    if len(targets) == 1 and not has_columns(target):
        shape = tuple(np.shape(target))
        values = target.reshape(-1) if shape == (table.num_rows, 1) and hasattr(target, "reshape") else target
        shape = tuple(np.shape(values))
        if shape != (table.num_rows,):
            raise UsageError(f"the target has shape {shape}\n  expected: ({table.num_rows},), a value for each row")
        found = as_arrow({targets[0]: values})
    else:
        found = as_arrow(target, targets)
        if found.num_rows != table.num_rows:
            raise UsageError(f"the target has {found.num_rows} rows\n  expected: {table.num_rows}, as the features")
        if missing := [one for one in targets if one not in found.column_names]:
            raise UsageError(f"the target lacks {', '.join(map(repr, missing))}: expected {', '.join(targets)}")
    for one in targets:
        if one in table.column_names:
            raise UsageError(
                f"the target is called {one!r}, and so is a column\n  expected: another name, or the column's"
            )
        table = table.append_column(one, found.column(one))
    return table


def target_names(target: Any) -> str | list[str]:
    """The names of targets that are values: those of a frame or series, and elsewhere y, or y0, y1 and so on."""
    if has_columns(target) and not isinstance(target, np.ndarray | torch.Tensor):
        found = as_arrow(target).column_names
        return found[0] if len(found) == 1 else found
    shape = tuple(np.shape(target))
    if len(shape) == 2 and shape[1] > 1:
        return [f"y{j}" for j in range(shape[1])]
    return str(getattr(target, "name", None) or "y")


def has_columns(target: Any) -> bool:
    """Whether a target is a frame or mapping of columns, or an array of two dimensions and several columns."""
    if isinstance(target, pa.Array | pa.ChunkedArray | list | tuple) or target is None:
        return False
    if isinstance(target, np.ndarray | torch.Tensor):
        return target.ndim == 2 and target.shape[1] > 1
    return isinstance(target, Mapping) or hasattr(target, "columns") or hasattr(target, "column_names")


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
    values = array_of(values) if isinstance(values, torch.Tensor) else values
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
