"""Rows that a Python program holds, as a trained model reads them, and predictions of these."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlefw.data.arrays import Arrays, as_arrays, is_dataset
from mlefw.data.base import Source
from mlefw.data.frame import Frame, as_arrow, offered, with_target
from mlefw.data.strings import Strings
from mlefw.errors import UsageError
from mlefw.reading.in_memory import like
from mlefw.reading.table import Table
from mlefw.run import predict_positions, predict_tokens
from mlefw.run.checkpoint import Trained
from mlefw.run.exact_checkpoint import with_errors
from mlefw.run.predict import predictions
from mlefw.schema.reach import FarRows
from mlefw.schema.tensors import TensorSchema
from mlefw.schema.tokens import TokenSchema
from mlefw.uncertainty.base import Uncertain

BLOCK_ROWS = 65536
"""Rows that are predicted at once, which bounds memory."""


def predict(
    trained: Trained,
    data: Any,
    target: Any,
    level: float,
    quantiles: Sequence[float],
    posterior: Uncertain | None,
    exact: bool,
) -> Any:
    """The predictive distributions of rows, as `mlefw.trained.Model.predict` returns them.

    Args:
        trained: the model.
        data: rows as `mlefw.trained.Model` takes them.
        target: the values of the target, unless `data` has them or they are not known.
        level: probability that an observation falls between `lower` and `upper`.
        quantiles: probabilities of further quantiles.
        posterior: the parameters over which the distributions are averaged; None for the fitted ones.
        exact: whether the exact linear estimate beside the network predicts.

    Raises:
        UsageError: columns are missing, or the exact estimate cannot be asked for.
    """
    if exact and isinstance(trained.schema, TensorSchema | TokenSchema):
        raise UsageError("exact=True: predictions by the exact estimate are of columns of a table")
    if isinstance(trained.schema, TensorSchema):
        return _predict_arrays(trained, data, target, level, quantiles, posterior)
    if isinstance(trained.schema, TokenSchema):
        return _predict_text(trained, data)
    table = table_of(trained, data, prediction=True, target=target)
    if exact and posterior is not None:
        raise UsageError("exact=True predicts by the exact estimate: expected uncertainty='none'")
    row = table.row_numbers(np.arange(table.num_rows))
    far = FarRows(trained.schema)
    model, errors = with_errors(trained, exact) if posterior is None else (trained, None)
    parts = [
        predictions(model, table.take(index), row[index], level, quantiles, posterior, far, errors)
        for index in np.split(np.arange(len(row)), range(BLOCK_ROWS, len(row), BLOCK_ROWS))
    ]
    far.warn()
    return like(data, pa.concat_tables(parts))


def _predict_text(trained: Trained, data: Any) -> dict[str, np.ndarray]:
    """The forecast of each scored token of a text, as columns by name."""
    with offered(rows=data):
        blocks = trained.schema.reading(Strings(), True).read_blocks()
        found = pa.concat_tables(predict_tokens.tables(trained, blocks))
    return {name: found.column(name).to_numpy() for name in found.column_names}


def _predict_arrays(
    trained: Trained, data: Any, target: Any, level: float, quantiles: Sequence[float], posterior: Uncertain | None
) -> dict[str, np.ndarray]:
    """Predictions of arrays, each (n, *positions), by name."""
    source, given = _arrays(trained, data, prediction=True, target=target)
    if trained.schema.row_shape.positions:
        predict_positions.check_format(trained, ".npz", "predict", posterior is not None)
    with offered(rows=given):
        blocks = source.read_blocks()
        if trained.schema.row_shape.positions:
            return predict_positions.arrays(trained, blocks, level, quantiles)
        parts = [predictions(trained, block.table, block.row, level, quantiles, posterior) for block in blocks]
    found = pa.concat_tables(parts, promote_options="default")
    return {name: found.column(name).to_numpy() for name in found.column_names}


def _arrays(trained: Trained, data: Any, prediction: bool, target: Any = None) -> tuple[Source, Any]:
    """The source of arrays, and what it is to be offered."""
    schema = trained.schema
    assert isinstance(schema, TensorSchema)
    given = data if is_dataset(data) and target is None else as_arrays(data, target, schema.x, schema.target)
    return schema.reading(Arrays(), prediction), given


def table_of(trained: Trained, data: Any, prediction: bool, target: Any = None) -> Table:
    """Rows as the table that the schema of a model codes.

    Args:
        trained: the model.
        data: rows as `mlefw.trained.Model` takes them.
        prediction: whether the target may be missing.
        target: the values of the target, unless `data` has them.

    Raises:
        UsageError: columns are missing, or are not what they were in training.
    """
    schema = trained.schema
    if isinstance(schema, TokenSchema):
        source = schema.reading(Strings(), prediction)
        assert isinstance(source, Strings)
        with offered(rows=data):
            return source.whole(source.load(), is_new=True)
    if isinstance(schema, TensorSchema):
        arrays, given = _arrays(trained, data, prediction, target)
        with offered(rows=given):
            return arrays.read()
    names, features = trained.config.data["target"], [feature.name for feature in schema.features]
    rows = as_arrow(data, features) if target is None else with_target(data, target, names, features)
    with offered(rows=rows):
        return schema.reading(Frame(), prediction).read()
