"""A table that tests of rows on other machines put there, and its bytes in the formats of files."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

NUM_ROWS = 3000


def drawn() -> pa.Table:
    """Five columns of standard normal numbers, the same each time."""
    columns = np.random.default_rng(0).normal(size=(5, NUM_ROWS))
    return pa.table(dict(zip(("a", "b", "unused", "more", "y"), columns, strict=True)))


def as_csv(table: pa.Table) -> bytes:
    """The bytes of a CSV file."""
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def as_parquet(table: pa.Table, **how: Any) -> bytes:
    """The bytes of a Parquet file, with arguments of `pyarrow.parquet.write_table`."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()
