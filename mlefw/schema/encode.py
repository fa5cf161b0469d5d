"""Encoding of the rows of a table, in memory or block by block into a store."""

import math

import numpy as np
import torch

from mlefw.data.base import Source
from mlefw.head.base import Head
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.rows.stored import Store, StoredRows
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema
from mlefw.schema.support import check_support

_CELLS = 2**21
"""Number of feature values that are encoded at a time."""

_MOST_BYTES = 2**27
"""Most memory that the columns of formulas take: a category of many levels has as many columns."""


def store_of_terms(schema: RowSchema, source: Source, num_rows: int) -> Store | None:
    """Files for the coded rows where columns of formulas would take much memory; None where they would not.

    `data.stream=false` keeps them in memory, and `data.cache` says where files are, if the source has these settings.
    """
    if not isinstance(schema, Schema) or schema.design is None or getattr(source, "stream", None) is False:
        return None
    is_large = 8 * num_rows * len(schema.design.names) > _MOST_BYTES
    return Store(getattr(source, "cache", None)) if is_large else None


def coded(schema: RowSchema, head: Head, table: Table, index: np.ndarray, store: Store | None = None) -> Rows:
    """The rows of a table at `index`, encoded and checked against the head's support; in a store if one is given.

    Raises:
        UsageError: a column or value that the schema or the head cannot take.
        StorageError: the store has no space left.
    """
    if store is None:
        part = table if len(index) == table.num_rows else table.take(index)
        rows = schema.rows(part, head.log_link)
        check_support(head, rows, part, schema.target)
        return rows
    kept: StoredRows | None = None
    size = max(1, _CELLS // max(1, math.prod(schema.row_shape.input_shape)))
    for start in range(0, len(index), size):
        part = table.take(index[start : start + size])
        rows = schema.rows(part, head.log_link, whole=False)
        check_support(head, rows, part, schema.target)
        kept = kept or _empty(store, rows, len(index))
        for column, values in zip(kept, rows, strict=True):
            if is_kept(values):
                column[start : start + len(values)] = values
        store.release()
    assert kept is not None
    if not bool(kept.weight.any()):
        # Raises the error for weights that are all zero.
        schema.rows(table.take(index[:1]), head.log_link)
    return kept


def _empty(store: Store, like: Rows, num_rows: int) -> StoredRows:
    rows = StoredRows(*(_column(store, column, num_rows) for column in like))
    rows.store = store
    return rows


def _column(store: Store, like: torch.Tensor, num_rows: int) -> torch.Tensor:
    shape = (num_rows, *like.shape[1:])
    if not is_kept(like):
        return like[:1].expand(shape)
    return torch.from_numpy(store.array(shape, like.numpy().dtype))


def is_kept(column: torch.Tensor) -> bool:
    """Whether a column has numbers of its own for its rows, and is not one number in the memory of one."""
    return any(column.stride()) or not column.numel()
