"""`PixelSchema`, the meaning of images whose pixels are forecast one after the other, as levels of grey."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.reading.columns import require
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows, constant
from mlefw.rows.shape import RowShape
from mlefw.schema.observed import code_type, position_weights
from mlefw.schema.target import Target, TargetKind
from mlefw.schema.tensors import TensorSchema

_CELLS = 2**22
"""Pixels that are rounded at a time."""

_TARGET = "pixel"


@dataclass(frozen=True)
class PixelSchema(TensorSchema):
    """Grey images, each a row of height x width tokens in raster order: row by row from the top, each from the left.

    The target at a position is the level of a pixel, 0 to levels - 1; what is read there is the level of the pixel
    before it, and at the first position the start token, which is `levels`.

    Attributes:
        levels: number of levels, K.
        low: value of the darkest pixels.
        high: value of the brightest pixels.
    """

    levels: int = 2
    low: float | None = None
    high: float | None = None
    form: Literal["tensors", "pixels"] = "pixels"

    @classmethod
    def learn(cls, table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> "PixelSchema":
        """The schema of a table of images; the range of values is learnt by `of_training`, unless the source knows it.

        Raises:
            UsageError: no grey images, or more levels than values.
            MisfitError: the head takes no labels.
        """
        own: Any = source
        if kind != "labels":
            raise MisfitError(
                f"data.levels={own.levels}: the level of a pixel is one of many labels"
                "\n  expected: head=categorical model=transformer"
            )
        require([own.x], table.columns, table.origin, "data.x")
        array = table.columns[own.x]
        _check_grey(array, table.origin, own.x)
        known = own.pixel_range or ([0, 255] if array.dtype == np.uint8 else None)
        low, high = (None, None) if known is None else (float(known[0]), float(known[1]))
        labels = tuple(map(str, range(own.levels)))
        schema = cls(
            (Target(_TARGET, kind, labels),),
            own.x,
            array.shape[1:],
            array.dtype.name,
            (int(np.prod(array.shape[1:])),),
            weight=own.weight,
            id=own.id,
            levels=own.levels,
            low=low,
            high=high,
        )
        schema._check_inputs(table)
        return schema

    def of_training(self, table: Table, index: np.ndarray) -> "PixelSchema":
        """The schema with the range of the pixels at `index`, the training rows, where it is not known.

        Raises:
            UsageError: there are more levels than values, or all pixels have one level.
        """
        parts = [(float(part.min()), float(part.max())) for part in self._parts(table, index)]
        least, greatest = min(low for low, _ in parts), max(high for _, high in parts)
        found = self if self.low is not None else replace(self, low=least, high=greatest)
        if least == greatest:
            raise UsageError(
                f"{table.origin}: array {self.x!r} (data.x) is {least:g} in all training rows"
                "\n  expected: images with two values or more"
            )
        found._check_range(table)
        ends = found.quantised(np.array([least, greatest], self.dtype))
        if ends[0] == ends[1]:
            raise UsageError(
                f"{table.origin}: all pixels of the training rows have level {ends[0]} of data.levels={self.levels}: "
                f"their values are {least:g} to {greatest:g}, and levels divide {found.low:g} to {found.high:g}"
                f"\n  expected: data.range=[{least:g},{greatest:g}]"
            )
        return found

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.input_shape[-2], self.input_shape[-1]

    @property
    def row_shape(self) -> RowShape:
        """What a model may ask of the shape of a row."""
        return RowShape(self.positions, self.positions, self.levels + 1, is_sequential=True, picture=self.height_width)

    @property
    def names(self) -> list[str]:
        """None: a linear model of tokens has no coefficients of inputs."""
        return []

    def reading(self, source: Source, prediction: bool = False) -> Source:
        """The source, set to read images as in training.

        Raises:
            UsageError: the source reads no arrays.
        """
        if source.form != "tensors":
            raise UsageError(
                f"data.path={getattr(source, 'path', None)}: the model takes images of shape {self.input_shape}, and "
                "this is read as a table\n  expected: an .npz file, a folder of .npy files, or images"
            )
        roles: dict[str, Any] = {"x": self.x, "levels": self.levels, "vocabulary": None, "labels": None}
        reading = replace(source, **roles, id=self.id if prediction else None, weight=self.weight, offset=None)
        reading.prediction, reading.input_shape = prediction, self.input_shape
        return reading

    def rows(self, table: Table, log_link: bool, target_required: bool = True, whole: bool = True) -> Rows:
        """Coded rows: y the levels of the pixels, (n, height · width), and x the same behind the start token.

        Both are views of one array in the smallest type.

        Args:
            table: the arrays; others than images and weights are ignored.
            log_link: ignored, since there is no exposure.
            target_required: ignored, since images are their own target.
            whole: whether the table is complete, so that some weight has to be positive.

        Raises:
            UsageError: there are no images, or they have another shape or type than in training.
        """
        require([self.x], table.columns, table.origin, "data.x")
        self._check_inputs(table)
        shape = (table.num_rows, *self.positions)
        tokens = np.empty((shape[0], shape[1] + 1), code_type(self.levels + 1))
        tokens[:, 0] = self.levels
        start = 0
        for part in self._parts(table, np.arange(table.num_rows)):
            tokens[start : start + len(part), 1:] = self.quantised(part).reshape(len(part), -1)
            start += len(part)
        weight = position_weights(table, self.weight, shape, whole and target_required)
        both = torch.from_numpy(tokens)
        return Rows(both[:, :-1], both[:, 1:], weight, constant(0.0, shape))

    def quantised(self, values: np.ndarray) -> np.ndarray:
        """The level of each value, in the smallest type.

        Of whole numbers it is ⌊(value − low) K / (high − low + 1)⌋, so that K divides low, …, high into runs as equal
        as can be (bytes: ⌊value K / 256⌋); of others ⌊(value − low) K / (high − low)⌋. Values outside of low to high
        get level 0 or K − 1.
        """
        assert self.low is not None and self.high is not None
        if values.dtype.kind in "iu":
            inside = values.astype(np.int64).clip(int(self.low), int(self.high)) - int(self.low)
            level = inside * self.levels // (int(self.high) - int(self.low) + 1)
        else:
            share = (values.astype(np.float64) - self.low) / (self.high - self.low)
            level = np.floor(share * self.levels).clip(0, self.levels - 1)
        found: np.ndarray = level.astype(code_type(self.levels))
        return found

    def grey(self, level: np.ndarray) -> np.ndarray:
        """Levels as bytes to be looked at, of the same shape: from 0, black, to 255, white, in equal steps."""
        return np.rint(level.astype(np.float64) * (255 / (self.levels - 1))).astype(np.uint8)

    @classmethod
    def from_dict(cls, plain: Any) -> "PixelSchema":
        """The schema from the content of `to_dict`.

        Raises:
            UsageError: the content is not that of a schema.
        """
        found = super().from_dict(plain)
        assert isinstance(found, PixelSchema)
        image, size = found.input_shape[-2:], len(found.input_shape)
        fits = size in (2, 3) and found.positions == (math.prod(image),) and len(found.labels or ()) == found.levels
        if not fits or found.low is None or found.high is None or not found.low < found.high:
            raise UsageError("schema of pixels: its images, levels and range of values do not fit each other")
        return found

    def _parts(self, table: Table, index: np.ndarray) -> Iterator[np.ndarray]:
        """The images at `index`, some at a time."""
        array, size = table.columns[self.x], max(1, _CELLS // self.positions[0])
        for start in range(0, len(index), size):
            yield array[index[start : start + size]]
            table.release()

    def _check_range(self, table: Table) -> None:
        assert self.low is not None and self.high is not None
        if np.dtype(self.dtype).kind == "f":
            return
        if not (self.low.is_integer() and self.high.is_integer()):
            raise UsageError(f"data.range=[{self.low:g},{self.high:g}]: expected whole numbers, as {self.dtype} holds")
        count = int(self.high) - int(self.low) + 1
        if count < self.levels:
            raise UsageError(
                f"{table.origin}: data.levels={self.levels} are more than the {count} whole numbers from {self.low:g} "
                f"to {self.high:g}\n  expected: data.levels={count} or fewer"
            )


def _check_grey(array: np.ndarray, origin: str, name: str) -> None:
    shape = array.shape[1:]
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return
    if len(shape) == 3:
        what = f"images of {shape[0]} channels, whose values have no one raster order"
        remedy = "grey images, (1, height, width); data=images converts colours (data.color=gray)"
    else:
        what, remedy = "no images", "an array (n, 1, height, width) or (n, height, width)"
    raise UsageError(f"{origin}: array {name!r} (data.x) has rows of shape {shape}: {what}\n  expected: {remedy}")
