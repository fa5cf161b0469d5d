"""Targets and weights of arrays with a value for each row, or for each position of a row."""

from collections.abc import Sequence

import numpy as np
import torch

from mlefw.errors import MisfitError, UsageError
from mlefw.reading.arrays import ArrayTable, check_finite
from mlefw.reading.columns import require
from mlefw.reading.levels import codes
from mlefw.reading.table import Table
from mlefw.rows.rows import constant
from mlefw.schema.target import TargetKind, learn_labels


def covered(table: Table, name: str, setting: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array in the shape of the targets, (n, *positions); one number for each row holds for all its positions.

    Raises:
        UsageError: it has another shape.
    """
    require([name], table.columns, table.origin, setting)
    array = table.columns[name]
    if array.shape not in (shape, shape[:1]) or array.dtype == object:
        either = f"{shape[:1]} or {shape}" if len(shape) > 1 else f"{shape}"
        raise UsageError(
            f"{table.origin}: array {name!r} ({setting}) has shape {array.shape} and type {array.dtype.name}"
            f"\n  expected: numbers of shape {either}"
        )
    return np.broadcast_to(array.reshape(-1, *(1,) * (len(shape) - 1)) if array.ndim == 1 else array, shape)


def position_weights(table: Table, name: str | None, shape: tuple[int, ...], whole: bool = True) -> torch.Tensor:
    """The weights, (n, *positions), float64; all 1, in the memory of one number, if there is no array of weights.

    Args:
        table: the arrays, which may lack the weights.
        name: name of the array, if any.
        shape: the shape of the targets.
        whole: whether the table is complete, so that some weight has to be positive.

    Raises:
        UsageError: a weight is negative or not finite, or with `whole` none is positive.
    """
    if name is None or name not in table.columns:
        if name is not None and whole:
            require([name], table.columns, table.origin, "data.weight")
        return constant(1.0, shape)
    assert isinstance(table, ArrayTable)
    weight = covered(table, name, "data.weight", shape)
    check_finite(table, name, "data.weight")
    if (weight < 0).any():
        own = table.columns[name]
        raise UsageError(
            f"{table.origin}: array {name!r} (data.weight) holds {own[own < 0].ravel()[0]:g}"
            f"\n  {table.by_position(name).where((own < 0).reshape(-1))}\n  expected: weights of zero or more"
        )
    if whole and not weight.any():
        raise UsageError(
            f"{table.origin}: array {name!r} (data.weight) is zero everywhere\n  expected: a positive weight somewhere"
        )
    return torch.from_numpy(np.array(weight, dtype=np.float64, order="C"))


def known_weights(table: Table, name: str, weight: torch.Tensor) -> torch.Tensor:
    """The weights, but zero where a target is missing: a hole, or a number that is none (NaN)."""
    if name in table.holes:
        return weight * torch.from_numpy(~table.holes[name])
    array = table.columns.get(name)
    if array is None or array.dtype.kind != "f" or array.shape != tuple(weight.shape) or not np.isnan(array).any():
        return weight
    return weight * torch.from_numpy(~np.isnan(array))


def labels_of(
    table: Table, name: str, kind: TargetKind, order: Sequence[object] | None, weight: torch.Tensor
) -> tuple[str, ...] | None:
    """The labels of the observations of weight above zero, in the order of their codes; None for a number.

    Raises:
        MisfitError: the target does not fit the kind; a search over heads skips such a head.
    """
    assert isinstance(table, ArrayTable)
    array = table.columns[name]
    counted = _counted(weight)
    check_finite(table, name, "data.target", None if counted is None else counted)
    cells = table.by_position(name)
    if counted is not None:
        cells = Table({name: array[counted]}, table.origin)
    try:
        return learn_labels(cells, name, kind, order)
    except UsageError as error:
        raise MisfitError(str(error)) from error


def code_type(num_labels: int) -> type[np.generic]:
    """The smallest type of codes that torch can index with after a conversion."""
    return np.uint8 if num_labels <= 2**8 else np.int16 if num_labels <= 2**15 else np.int32


def position_codes(
    table: Table, name: str, labels: tuple[str, ...], weight: torch.Tensor, kind: TargetKind
) -> np.ndarray:
    """The code of each label, (n, *positions): float64 for a binary target, else the smallest type; 0 where masked.

    Raises:
        UsageError: a label that training did not have, where the weight is above zero.
    """
    assert isinstance(table, ArrayTable)
    array, counted = table.columns[name], _counted(weight)
    check_finite(table, name, "data.target", counted)
    wanted = np.float64 if kind == "binary" else code_type(len(labels))
    if counted is None:
        return codes(table.by_position(name), name, labels, "data.target").astype(wanted).reshape(array.shape)
    # A masked cell gets a label that is known, so that what it holds does not matter.
    some = array[counted]
    if not len(some):
        return np.zeros(array.shape, wanted)
    filled = np.where(counted, array, some[0])
    alike = ArrayTable({name: filled}, table.origin, table.first_row, table.numbers, table.files)
    found = codes(alike.by_position(name), name, labels, "data.target").reshape(array.shape)
    return np.where(counted, found, 0).astype(wanted)


def masked_numbers(table: ArrayTable, name: str, weight: torch.Tensor) -> np.ndarray:
    """Numbers of a target, (n, *positions), in their own type; a masked one is replaced by one that is observed.

    Raises:
        UsageError: a number is not finite where the weight is above zero.
    """
    array, counted = table.columns[name], _counted(weight)
    check_finite(table, name, "data.target", counted)
    if counted is not None:
        some = array[counted]
        array = np.where(counted, array, some[0] if len(some) else array.dtype.type(0))
    # In int64 they would be taken for codes of labels.
    return np.require(array.astype(np.float64) if array.dtype == np.int64 else array, None, ["C", "W"])


def _counted(weight: torch.Tensor) -> np.ndarray | None:
    """Whether each cell has a weight above zero; None where all have weight 1 in the memory of one number."""
    if weight.numel() and not any(weight.stride()):
        return None
    seen: np.ndarray = (weight > 0).numpy()
    return None if seen.all() else seen
