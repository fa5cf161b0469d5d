"""`RowSchema`, what every schema offers, and the schema that a source or a stored description asks for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.schema.feature import Feature
from mlefw.schema.pixels import PixelSchema
from mlefw.schema.schema import Schema
from mlefw.schema.target import Target, TargetKind
from mlefw.schema.tensors import TensorSchema
from mlefw.schema.tokens import TokenSchema


class RowSchema(Protocol):
    """The meaning of what a source reads: what the inputs and the target of a row are, and how they are coded."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets with their labels."""

    @property
    def target(self) -> str:
        """The name of the target; for several, all names, separated by commas."""

    @property
    def observed(self) -> list[str]:
        """Names of what is observed of a row."""

    @property
    def kind(self) -> TargetKind:
        """Kind of the target, or of the first of several."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of a single target that has labels; None otherwise."""

    @property
    def all_labels(self) -> list[str] | dict[str, list[str] | None] | None:
        """The labels of the target, None for a number; for several targets, by name."""

    @property
    def features(self) -> Sequence[Feature]:
        """The features of a table; empty for arrays."""

    @property
    def names(self) -> list[str]:
        """Names of the inputs of a row, one for each coefficient of a linear model."""

    @property
    def num_features(self) -> int:
        """How many numbers a model gets of a row."""

    @property
    def row_shape(self) -> RowShape:
        """What a model may ask of the shape of a row."""

    @property
    def id(self) -> str | None:
        """Name of what identifies a row in predictions."""

    @property
    def token_bytes(self) -> np.ndarray | None:
        """Bytes of text of each token, (num_tokens,); None where rows hold no tokens, or it is not known."""

    @property
    def partial(self) -> bool:
        """Whether a row may lack some of several targets."""

    @property
    def bounds(self) -> bool:
        """Whether two targets are the bounds of one number."""

    def of_training(self, table: Table, index: np.ndarray) -> "RowSchema":
        """The schema with what is learnt from the training rows at `index`."""

    def adapted(self, **ways: Any) -> "RowSchema":
        """The schema with other ways to treat `missing` and `unseen` values."""

    def columns_of(self, features: Iterable[str] | None, setting: str) -> list[int]:
        """Positions among `names` of some features, by default of all."""

    def reading(self, source: Source, prediction: bool = False) -> Source:
        """The source, set to read what the model needs; with `prediction` the target may be missing."""

    def rows(self, table: Table, log_link: bool, target_required: bool = True, whole: bool = True) -> Rows:
        """Coded rows."""

    def to_dict(self) -> dict[str, Any]:
        """The schema as dicts, lists and plain values."""


def learn_schema(table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> RowSchema:
    """The schema of what a source has read.

    Raises:
        UsageError: as `learn` of the schema.
    """
    if source.form == "tokens":
        return TokenSchema.learn_source(table, source, kind)
    if source.form == "tensors" and getattr(source, "levels", None) is not None:
        return PixelSchema.learn(table, source, kind)
    if source.form == "tensors":
        return TensorSchema.learn(table, source, kind)
    return Schema.learn(table, source, kind)


def schema_from(plain: Any) -> RowSchema:
    """The schema from plain values; those without a `form` are columns.

    Raises:
        UsageError: they are not those of a schema.
    """
    form = plain.get("form", "columns") if isinstance(plain, dict) else "columns"
    if form == "tensors":
        return TensorSchema.from_dict(plain)
    if form == "pixels":
        return PixelSchema.from_dict(plain)
    if form == "tokens":
        return TokenSchema.from_dict(plain)
    if form != "columns":
        raise UsageError(f"schema.form is {form!r}: expected columns, tensors, pixels or tokens")
    return Schema.from_dict(plain)
