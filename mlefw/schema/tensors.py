"""`TensorSchema`, the meaning of arrays whose rows may have any shape, learnt from the training rows."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from mlefw.configuration.record import typed
from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.reading.arrays import ArrayTable, check_finite
from mlefw.reading.columns import require
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows, constant
from mlefw.rows.shape import RowShape
from mlefw.schema.observed import (
    code_type,
    covered,
    known_weights,
    labels_of,
    masked_numbers,
    position_codes,
    position_weights,
)
from mlefw.schema.target import Target, TargetKind

_MOST_NAMES = 10_000
"""Inputs of a row up to which each has a name of its own."""


@dataclass(frozen=True)
class TensorSchema:
    """Inputs of one shape and type, and a target with a value for each row, or for each position of a row.

    Attributes:
        targets: the one target, with the name of its array.
        x: name of the array of inputs.
        input_shape: shape of the inputs of a row.
        dtype: numpy's name of their type, which rows keep.
        positions: shape of the targets of a row.
        vocabulary: number of distinct ids, where inputs are ids from 0 to below it; else None.
        offset: name of the array that is added to the first column of eta.
        weight: name of the array of weights.
        id: name of the array that identifies rows in predictions.
        form: says in a checkpoint that this is no schema of columns.
    """

    targets: tuple[Target, ...]
    x: str
    input_shape: tuple[int, ...]
    dtype: str
    positions: tuple[int, ...] = ()
    vocabulary: int | None = None
    offset: str | None = None
    weight: str | None = None
    id: str | None = None
    form: Literal["tensors", "pixels"] = "tensors"
    partial: bool = field(default=False, init=False)
    bounds: bool = field(default=False, init=False)

    @classmethod
    def learn(cls, table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> "TensorSchema":
        """The schema of a table of arrays with the roles that a source names.

        Args:
            table: all rows that will be split at random. Labels come from all of them, so that no split has an unknown
                one.
            source: the source, which names the roles.
            kind: kind of target that the head takes.

        Raises:
            UsageError: arrays of a shape or type that their role does not allow.
            MisfitError: the head is for several targets, or not for this kind.
        """
        x, name = str(getattr(source, "x", "x")), ", ".join(source.targets)
        if not isinstance(kind, str) or len(source.targets) != 1:
            raise MisfitError(f"data.target={source.target}: expected the name of one array, and a head of one target")
        require([x], table.columns, table.origin, "data.x")
        require([name], table.columns, table.origin, "data.target")
        array, y = table.columns[x], table.columns[name]
        if array.dtype == object:
            raise UsageError(f"{table.origin}: array {x!r} (data.x) holds text\n  expected: numbers")
        if y.ndim > 1 and set(y.shape[1:]) == {1}:
            raise UsageError(
                f"{table.origin}: array {name!r} (data.target) has shape {y.shape}"
                f"\n  expected: ({len(y)},), or a value for each position of a row"
            )
        vocabulary = getattr(source, "vocabulary", None)
        schema = cls(
            (Target(name, kind),),
            x,
            array.shape[1:],
            array.dtype.name,
            y.shape[1:],
            vocabulary,
            source.offset,
            source.weight,
            source.id,
        )
        schema._check_inputs(table)
        labels = labels_of(table, name, kind, source.labels, position_weights(table, source.weight, y.shape))
        return replace(schema, targets=(Target(name, kind, labels),))

    def of_training(self, table: Table, index: np.ndarray) -> "TensorSchema":
        """The schema as it is: nothing but labels is learnt, and those from all rows."""
        return self

    @property
    def target(self) -> str:
        """The name of the target."""
        return self.targets[0].name

    @property
    def observed(self) -> list[str]:
        """The arrays that are observed of a row: the target."""
        return [self.target]

    @property
    def kind(self) -> TargetKind:
        """Kind of the target."""
        return self.targets[0].kind

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the target; None for a number."""
        return self.targets[0].labels

    @property
    def all_labels(self) -> list[str] | None:
        """The labels of the target, None for a number."""
        return None if self.labels is None else list(self.labels)

    @property
    def row_shape(self) -> RowShape:
        """What a model may ask of the shape of a row."""
        return RowShape(self.input_shape, self.positions, self.vocabulary)

    @property
    def num_features(self) -> int:
        """How many numbers a row holds; of ids their number of kinds."""
        return self.row_shape.num_features

    @property
    def names(self) -> list[str]:
        """A name for each input of a row, flattened: `x[0,3,4]`; empty for ids, and for very many inputs."""
        if self.vocabulary is not None or self.num_features > _MOST_NAMES:
            return []
        return [f"{self.x}[{','.join(map(str, place))}]" for place in np.ndindex(*self.input_shape)]

    @property
    def features(self) -> tuple[()]:
        """No columns."""
        return ()

    @property
    def token_bytes(self) -> None:
        """None: rows hold no text."""

    def adapted(self, **ways: Any) -> "TensorSchema":
        """The schema as it is.

        Raises:
            UsageError: another way than `error` to treat missing values is asked for.
        """
        if asked := [f"data.{name}={way}" for name, way in ways.items() if way != "error"]:
            raise UsageError(f"{asked[0]} is for columns of a table: expected error, since rows hold {self.row_shape}")
        return self

    def columns_of(self, features: Iterable[str] | None, setting: str) -> list[int]:
        """Positions of all inputs of a row, flattened.

        Raises:
            UsageError: some of them are asked for by name.
        """
        if features is not None:
            raise UsageError(f"{setting} names columns of a table: expected null, since rows hold {self.row_shape}")
        return list(range(self.num_features))

    def reading(self, source: Source, prediction: bool = False) -> Source:
        """The source, set to read the arrays of the model; with `prediction` the target may be missing.

        Raises:
            UsageError: the source is one of tables.
        """
        if source.form != self.form:
            raise UsageError(
                f"data.path={getattr(source, 'path', None)}: the model takes rows of {self.row_shape}, and this is read"
                " as a table\n  expected: an .npz file, or a folder of .npy files"
            )
        roles: dict[str, Any] = {"target": self.target, "x": self.x, "vocabulary": self.vocabulary}
        # Scores need no names of rows.
        roles |= {"id": self.id if prediction else None, "labels": self.all_labels}
        reading = replace(source, **roles, weight=self.weight, offset=self.offset)
        reading.prediction, reading.input_shape = prediction, self.input_shape
        return reading

    def rows(self, table: Table, log_link: bool, target_required: bool = True, whole: bool = True) -> Rows:
        """Coded rows: x in its own type, y (n, *positions), weight and offset alike.

        Where a target is masked, it is replaced by one that the head can take.

        Args:
            table: the arrays; additional ones are ignored.
            log_link: ignored, since there is no exposure.
            target_required: whether targets must be present; otherwise one that is missing or NaN has weight 0.
            whole: whether the table is complete, so that some weight has to be positive.

        Raises:
            UsageError: an array is missing, or has another shape or type than in training, or values are not allowed.
        """
        asked = [(self.x, "data.x"), *([(self.offset, "data.offset")] if self.offset else [])]
        asked += [(self.target, "data.target")] if target_required else []
        for name, setting in asked:
            require([name], table.columns, table.origin, setting)
        self._check_inputs(table)
        shape = (table.num_rows, *self.positions)
        weight = position_weights(table, self.weight, shape, whole and target_required)
        if not target_required:
            weight = known_weights(table, self.target, weight)
        offset = constant(0.0, shape)
        if self.offset:
            check_finite(_arrays(table), self.offset, "data.offset")
            offset = torch.from_numpy(covered(table, self.offset, "data.offset", shape).astype(np.float64))
        x = table.columns[self.x]
        # Vectors with one target are rows of a table, whose features are in 64 bit.
        x = x.astype(np.float64) if self.row_shape.is_table else x
        return Rows(_tensor(x), self._y(table, weight, shape), weight, offset)

    def _y(self, table: Table, weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        labels = self.labels
        if self.target not in table.columns:
            blank = code_type(len(labels)) if labels and self.kind != "binary" else np.float64
            return torch.from_numpy(np.full(shape, 0 if labels else np.nan, blank))
        y = table.columns[self.target]
        if y.shape != shape:
            raise UsageError(
                f"{table.origin}: array {self.target!r} (data.target) has shape {y.shape}\n  expected: {shape}"
            )
        if labels is None:
            return torch.from_numpy(masked_numbers(_arrays(table), self.target, weight))
        return torch.from_numpy(position_codes(table, self.target, labels, weight, self.kind))

    def _check_inputs(self, table: Table) -> None:
        """Check shape, type and values of the inputs.

        Raises:
            UsageError: they are not as in training, not finite, or no ids.
        """
        array = table.columns[self.x]
        if array.shape[1:] != self.input_shape:
            raise UsageError(
                f"{table.origin}: rows of array {self.x!r} (data.x) have shape {array.shape[1:]}"
                f"\n  expected: {self.input_shape}, as in training"
            )
        if array.dtype.name != self.dtype:
            raise UsageError(
                f"{table.origin}: array {self.x!r} (data.x) holds {array.dtype.name}\n  expected: {self.dtype}, as in "
                "training, and in the same unit"
            )
        check_finite(_arrays(table), self.x, "data.x")
        if self.vocabulary is not None:
            _check_ids(table, self.x, self.vocabulary)

    def to_dict(self) -> dict[str, Any]:
        """The schema as dicts, lists and plain values."""
        return {name: _listed(value) for name, value in asdict(self).items() if name not in ("partial", "bounds")}

    @classmethod
    def from_dict(cls, plain: Any) -> "TensorSchema":
        """The schema from the content of `to_dict`.

        Raises:
            UsageError: the content is not that of a schema.
        """
        return typed(cls, plain, "schema")


def _arrays(table: Table) -> ArrayTable:
    assert isinstance(table, ArrayTable)
    return table


def _check_ids(table: Table, name: str, vocabulary: int) -> None:
    array = table.columns[name]
    if array.dtype.kind not in "iu":
        raise UsageError(
            f"{table.origin}: array {name!r} (data.x) holds {array.dtype.name}, and data.vocabulary={vocabulary} makes "
            "it ids\n  expected: whole numbers, or data.vocabulary=null"
        )
    outside = (array < 0) | (array >= vocabulary)
    if outside.any():
        cells = _arrays(table).by_position(name)
        raise UsageError(
            f"{table.origin}: array {name!r} (data.x) holds {array[outside].ravel()[0]}\n"
            f"  {cells.where(outside.reshape(-1))}\n  expected: ids from 0 to {vocabulary - 1} (data.vocabulary)"
        )


def _tensor(array: np.ndarray) -> torch.Tensor:
    # torch does not support the read-only arrays that a memory-mapped file gives.
    # torch chooses kernels by strides, also by those of dimensions of size one, which numpy lets be anything.
    return torch.from_numpy(np.require(array, None, ["C", "W"]).reshape(-1)).view(array.shape)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, tuple) else value
