"""Tables that are in memory already: frames of pandas, polars or Arrow, and arrays."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlefw.arrow_table import check_names, to_table
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.rows import Table

_offered: ContextVar[Mapping[str, pa.Table]] = ContextVar("_offered")


@contextmanager
def offered(**tables: pa.Table | None) -> Iterator[None]:
    """Let every `Frame` read these while the block runs: `rows`, and perhaps `validation` and `test`."""
    token = _offered.set({name: table for name, table in tables.items() if table is not None})
    try:
        yield
    finally:
        _offered.reset(token)


@dataclass(kw_only=True)
class Frame(Source):
    """Rows that Python handed over (`mlefw.fit`); they are counted from zero in messages."""

    def read(self) -> Table:
        """All rows.

        Raises:
            UsageError: there are none, as this is another process than the one that had them.
        """
        arrow = _offered.get({}).get("rows")
        if arrow is None:
            raise UsageError(
                "data=frame: the rows of this run came from Python, and no file has them"
                "\n  expected: data.path=FILE where rows are to be predicted or scored, data=csv or data=parquet for "
                "training, or in Python mlefw.fit.fit"
            )
        return self._table(arrow, "the frame")

    def read_validation(self) -> Table | None:
        """The validation rows, if given."""
        return self._given("validation")

    def read_test(self) -> Table | None:
        """The test rows, if given."""
        return self._given("test")

    def _given(self, split: str) -> Table | None:
        arrow = _offered.get({}).get(split)
        return None if arrow is None else self._table(arrow, f"the {split} frame")

    def _table(self, arrow: pa.Table, origin: str) -> Table:
        check_names(arrow.column_names, origin)
        names = self.wanted(arrow.column_names)
        columns = ((name, [arrow.column(name)]) for name in names)
        return to_table(columns, Table({}, origin), self.cells(names))


def as_arrow(data: Any, names: Sequence[str] | None = None) -> pa.Table:
    """A frame of pandas, polars or Arrow, a mapping of arrays (n,), or a matrix (n, num_columns) as an Arrow table.

    Args:
        data: the rows.
        names: of the columns of a matrix; x0, x1, … without them.

    Raises:
        UsageError: it is none of these, or holds what no column can.
    """
    try:
        if isinstance(data, np.ndarray):
            data = _by_name(data, names)
        if isinstance(data, Mapping):
            return pa.table({name: pa.array(np.asarray(values), from_pandas=True) for name, values in data.items()})
        if type(data).__module__.startswith("pandas"):
            return pa.Table.from_pandas(data, preserve_index=False)
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the frame cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}"
            "\n  expected: a frame of pandas, polars or Arrow, a mapping of arrays, or a matrix"
        ) from None


def _by_name(matrix: np.ndarray, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    shape = matrix.shape
    if matrix.ndim != 2 or (names is not None and shape[1] != len(names)):
        expected = "two dimensions" if names is None else f"a column for each of {', '.join(names)}"
        raise UsageError(f"the matrix has shape {shape}\n  expected: {expected}")
    return {name: matrix[:, j] for j, name in enumerate(names or [f"x{j}" for j in range(shape[1])])}
