"""Predictive distributions of rows with positions, as arrays (n, *positions)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from mlefw.data.base import Block
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.run.checkpoint import Trained
from mlefw.run.predict import figure_columns
from mlefw.schema.pixels import PixelSchema
from mlefw.schema.support import check_support
from mlefw.schema.tokens import TokenSchema


def check_format(trained: Trained, suffix: str, output: Any, averaged: bool) -> None:
    """Refuse a file format that cannot hold the predictions of a model.

    Args:
        trained: the model.
        suffix: the end of the name of the file.
        output: the file.
        averaged: whether predictions are averaged over the parameters.

    Raises:
        UsageError: a table of rows with positions that are no tokens of a text, arrays of other rows, or an average
            over parameters.
    """
    positions = trained.schema.row_shape.positions
    is_text = isinstance(trained.schema, TokenSchema)
    if is_text and suffix == ".npz":
        raise UsageError(f"output={output}: expected a file that ends in .parquet or .csv, with a line for each token")
    if positions and suffix != ".npz" and not is_text:
        raise UsageError(
            f"output={output}: the model predicts {positions} values for each row, which are no cells of a table"
            f"\n  expected: a file that ends in .npz"
        )
    if not positions and suffix == ".npz":
        raise UsageError(f"output={output}: expected a file that ends in .parquet or .csv")
    if positions and averaged:
        raise UsageError("uncertainty= averages over parameters for rows of one observation: expected none")


def arrays(trained: Trained, blocks: Iterable[Block], level: float, quantiles: Sequence[float]) -> dict[str, Any]:
    """The predictions of all blocks, by name, each (n, *positions), and `row`, (n,).

    Names are those of the columns of a table. `nll_nats` is NaN where the target is not known, or has weight zero.
    """
    found: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        for name, array in _of_block(trained, block.table, level, quantiles).items():
            found.setdefault(name, []).append(array)
        found.setdefault("row", []).append(block.row)
    return {name: np.concatenate(parts) for name, parts in found.items()}


@torch.no_grad()
def _of_block(trained: Trained, table: Table, level: float, quantiles: Sequence[float]) -> dict[str, np.ndarray]:
    objective, schema = trained.objective, trained.schema
    rows = trained.rows(table, target_required=False, whole=False)
    shape = (rows.num_rows, *rows.positions)
    eta, y, weight = objective.observations(rows, objective.eta(rows.x, rows.offset))
    columns = figure_columns(trained, objective.head(eta), level, quantiles)
    arrays = {name: np.asarray(column.to_numpy(zero_copy_only=False)) for name, column in columns.items()}
    found = {name: (a.astype(str) if a.dtype == object else a).reshape(shape) for name, a in arrays.items()}
    if isinstance(schema, PixelSchema):
        found["nll_nats"] = objective.head.nll(eta, y).numpy().reshape(shape)
    elif schema.target in table.columns:
        check_support(objective.head, rows, table, schema.target)
        nll = torch.where(weight > 0, objective.head.nll(eta, y), torch.nan)
        found["nll_nats"] = nll.numpy().reshape(shape)
    if schema.id is not None and schema.id in table.columns:
        found[schema.id] = np.array(table.columns[schema.id].tolist())
    return found
