"""Rows that a Python program holds: tensors as arrays, pairs (x, y), and answers in the kind of what was given."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mlefw.errors import UsageError


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor as an array, wherever it is and whether or not gradients are asked for.

    Raises:
        UsageError: it is masked, or sparse, so that not all of its entries are values.
    """
    if type(tensor).__name__ == "MaskedTensor" or tensor.layout != torch.strided:
        raise UsageError(
            f"a {'masked' if tensor.layout == torch.strided else 'sparse'} tensor"
            "\n  expected: a dense one; in columns, nan where a value is missing"
        )
    tensor = tensor.detach().cpu()
    # numpy has no such type; every number of it is one of float32.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).resolve_conj().resolve_neg().numpy()


def pair_of(data: Any, target: Any = None) -> tuple[Any, Any]:
    """Rows and targets, of a pair (x, y) or of both apart; the target is None where there is none.

    Raises:
        UsageError: a pair, and a target beside it.
    """
    if not (isinstance(data, tuple) and len(data) == 2):
        return data, target
    if target is not None:
        raise UsageError("a pair (x, y), and a target beside it\n  expected: one of the two")
    return data


def as_frame(columns: dict[str, list[Any]]) -> Any:
    """Columns as a frame of pandas; as they are where it is not installed."""
    try:
        from pandas import DataFrame
    except ImportError:
        return columns
    return DataFrame(columns)


def like(data: Any, result: pa.Table) -> Any:
    """A table as a frame of the kind of `data`, as a dict of arrays for arrays, else as an Arrow table.

    A frame of pandas takes the index of `data`, by the column `row` of the table.
    """
    if type(data).__module__.startswith("pandas"):
        frame = result.to_pandas()
        return frame.drop(columns="row").set_axis(data.index[frame["row"]])
    if type(data).__module__.startswith("polars"):
        return sys.modules["polars"].from_arrow(result)
    if isinstance(data, np.ndarray | torch.Tensor | Mapping | list):
        return {name: result.column(name).to_numpy() for name in result.column_names}
    return result
