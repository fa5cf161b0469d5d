"""The interface of sources of arrays, whose rows may have any shape."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from mlefw.data.base import Block, Source
from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.datasets import read_dataset
from mlefw.reading.table import Table
from mlefw.rows.stored import Store, memory_limit

BLOCK_CELLS = 2**22
"""Numbers of a block of rows."""

_REFUSED = ("features", "categorical", "exposure", "event", "event_code", "trials", "time", "cluster")
"""Settings of columns of a table."""


@dataclass(kw_only=True)
class TensorSource(Source):
    """Reads named arrays whose first dimension counts rows; messages count rows from zero.

    Whole numbers as a target are labels for a head of labels. Arrays keep their types. A concrete source writes `load`.

    Attributes:
        x: name of the array of inputs, (n, *input_shape).
        target: name of the array of targets, (n,), or (n, *positions) with one for each position of a row.
        vocabulary: the number of distinct ids, where inputs are ids from 0 on; null where they are numbers.
        levels: number of levels to which the values of grey images (1, height, width) or (height, width) are rounded;
            the target of a row is then each pixel given those before it, and no array of targets is needed. Null where
            images are inputs.
        range: lowest and highest value of a pixel, between which levels are equally wide; null for 0 and 255 of bytes,
            and else for the least and greatest of the training images. Values outside get the outermost levels.
        stream: whether coded rows are kept in temporary files rather than in memory; `auto` does so where they would
            take more than half of the memory.
        cache: directory of these temporary files, which have no name; by default the system's temporary directory.
    """

    form: ClassVar = "tensors"

    x: str = "x"
    target: str | list[str] | None = "y"
    vocabulary: int | None = None
    levels: int | None = None
    range: list[float] | None = None
    stream: bool | Literal["auto"] = "auto"
    cache: str | None = None
    is_new: bool = field(default=False, init=False)
    """Whether the rows are new ones for a trained model, which need not be in groups."""

    @abstractmethod
    def load(self) -> ArrayTable:
        """The arrays of all rows.

        Raises:
            UsageError: they cannot be read.
        """

    def read(self) -> Table:
        """The arrays of all rows, held to the settings."""
        return self.accepted(self.load)

    def read_blocks(self) -> Iterator[Block]:
        """The rows, some megabytes at a time."""
        table = self.read()
        cells = sum(int(np.prod(array.shape[1:])) for array in table.columns.values())
        size = max(1, BLOCK_CELLS // max(1, cells))
        for start in range(0, max(1, table.num_rows), size):
            row = np.arange(start, min(start + size, table.num_rows))
            yield Block(table.take(row), row, (start + len(row)) / max(1, table.num_rows))

    @property
    def pixel_range(self) -> list[float] | None:
        """Lowest and highest value of a pixel, where they are known before any image is read."""
        return self.range

    @property
    def needs_target(self) -> bool:
        """Whether there has to be an array of targets: not for predictions, nor where images are their own target."""
        return not self.prediction and self.levels is None

    @property
    def roles(self) -> dict[str, str]:
        """The names of the arrays that are needed, by setting."""
        known = {role: getattr(self, role) for role in ("weight", "offset", "id", "group")}
        named = {f"data.{role}": name for role, name in known.items() if name}
        return {"data.x": self.x, "data.target": self.targets[0], **named}

    def accepted(self, load: Callable[[], ArrayTable]) -> ArrayTable:
        """The arrays that are loaded, once settings of columns are refused, and where their shapes are right.

        Raises:
            UsageError: a setting that arrays do not have, or an array of another shape.
        """
        self._check()
        table = load()
        for role in ("id", "group"):
            array = table.columns.get(getattr(self, role) or "")
            if array is not None and array.ndim != 1:
                name = getattr(self, role)
                raise UsageError(
                    f"{table.origin}: array {name!r} (data.{role}) has shape {array.shape}"
                    f"\n  expected: one value for each row, ({len(array)},)"
                )
        y = table.columns.get(self.targets[0])
        if self.prediction and y is not None and y.ndim == 1 and y.dtype.kind == "f" and (hole := np.isnan(y)).any():
            table = replace(table, holes={**table.holes, self.targets[0]: hole})
        self._choose_store(sum(array.nbytes for array in table.columns.values()))
        return table

    def new_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array to be filled: in temporary files where rows are streamed, else in memory.

        Raises:
            StorageError: the disk has no room for it.
        """
        self._choose_store(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.empty(shape, dtype) if self.store is None else self.store.array(shape, dtype)

    def of_dataset(self, dataset: Any, origin: str, is_training: bool) -> ArrayTable:
        """The items of a map-style dataset of torch as arrays; weights of a training dataset get their role.

        Raises:
            UsageError: as `read_dataset`, or another dataset has weights where that of training has none.
        """
        name = self.weight or "weight"
        fewest = 2 if self.needs_target else 1
        table = read_dataset(dataset, origin, (self.x, self.targets[0], name), self.new_array, fewest)
        if is_training and name in table.columns:
            self.weight = name
        elif name in table.columns and self.weight is None:
            raise UsageError(f"{origin}: items have weights, and those of training have none\n  expected: (x, y)")
        return table

    def _choose_store(self, num_bytes: int) -> None:
        if self.store is None and (num_bytes > memory_limit() / 2 if self.stream == "auto" else self.stream):
            self.store = Store(self.cache)

    def _check(self) -> None:
        """Refuse settings that arrays do not have.

        Raises:
            UsageError: naming the setting.
        """
        for name in _REFUSED:
            if getattr(self, name):
                raise UsageError(
                    f"data.{name}={getattr(self, name)} is for columns of a table"
                    "\n  expected: no such setting with arrays, whose inputs are one of them (data.x)"
                )
        if len(self.targets) != 1:
            raise UsageError(f"data.target={self.target}: expected the name of one array")
        for name in ("missing", "unseen"):
            if getattr(self, name) != "error":
                raise UsageError(f"data.{name}={getattr(self, name)} is for columns of a table: expected error")
        if self.vocabulary is not None and self.vocabulary < 2:
            raise UsageError(f"data.vocabulary={self.vocabulary}: expected the number of distinct ids, at least 2")
        self._check_levels()

    def _check_levels(self) -> None:
        low, high = self.range or (0, 1)
        if self.levels is None and self.range is not None:
            raise UsageError(f"data.range={self.range} is for the pixels of images (data.levels): expected null")
        if self.levels is not None and self.vocabulary is not None:
            raise UsageError(f"data.levels={self.levels} is for images, and data.vocabulary for ids: expected one")
        if self.levels is not None and self.offset:
            raise UsageError(f"data.offset={self.offset} belongs to one eta, and pixels have several alike")
        if not low < high:
            raise UsageError(f"data.range={self.range}: expected [lowest,highest], such as [0,255]")
