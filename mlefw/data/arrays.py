"""Arrays and datasets in memory, handed over by a Python program."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from mlefw.data.frame import handed_over
from mlefw.data.tensor_source import TensorSource
from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.datasets import by_split, numpy_array, plain_array
from mlefw.reading.table import Table
from mlefw.system.random_state import RandomStream


@dataclass(kw_only=True)
class Arrays(TensorSource):
    """Arrays, or datasets of torch, handed over by a Python program (`mlefw.fit`); messages count rows from zero."""

    def __post_init__(self) -> None:
        """No dataset has been looked at yet."""
        self._datasets: dict[str, Any] | None = None

    def load(self) -> ArrayTable:
        """The rows to split.

        Raises:
            UsageError: there are none, since the run was started by another program.
        """
        given = self._given()
        if "train" not in given:
            raise UsageError(
                "data=arrays: the rows of this run came from Python, and no file has them"
                "\n  expected: data.path=FILE where rows are to be predicted or scored, data=npz or data=torch for "
                "training, or in Python mlefw.fit.fit"
            )
        return self._read(given["train"], "train")

    def read_validation(self) -> Table | None:
        """The validation rows, if the program gave any."""
        return self._other("validation")

    def read_test(self) -> Table | None:
        """The test rows, if the program gave any."""
        return self._other("test")

    def _other(self, split: str) -> Table | None:
        given = self._given().get(split)
        return None if given is None else self.accepted(partial(self._read, given, split))

    def _given(self) -> dict[str, Any]:
        """What the program gave of each split."""
        rows = handed_over("rows")
        others = {split: handed_over(split) for split in ("validation", "test")}
        if rows is None:
            return {}
        if self._datasets is None:
            is_read = isinstance(rows, ArrayTable)
            stage = partial(RandomStream, self.seed, "dataset")
            self._datasets = {"train": rows} if is_read else by_split(rows, "the dataset", stage)
        found = self._datasets
        for split, given in others.items():
            if given is not None and split in found:
                raise UsageError(f"{split}=: the datasets have {split} rows of their own\n  expected: one of the two")
        return found | {split: given for split, given in others.items() if given is not None}

    def _read(self, given: Any, split: str) -> ArrayTable:
        if isinstance(given, ArrayTable):
            return given
        with RandomStream(self.seed, "dataset"):
            return self.of_dataset(given, f"the dataset ({split})", split == "train")


def is_dataset(data: Any) -> bool:
    """Whether data are a dataset of torch or alike, a mapping with one called `train`, or a LightningDataModule."""
    if isinstance(data, Dataset | DataLoader | LightningDataModule):
        return True
    if isinstance(data, Mapping):
        return is_dataset(data.get("train"))
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], tuple)
    foreign = type(data).__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "numpy", "torch", "builtins")
    return not foreign and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def are_arrays(data: Any, are_ids: bool = False) -> bool:
    """Whether data are arrays rather than a table: more than two dimensions, or a mapping with an array of two or more.

    Args:
        data: an array, a tensor, a mapping of these, or anything else.
        are_ids: whether an array of two dimensions holds ids.
    """
    if isinstance(data, Mapping):
        return any(isinstance(value, np.ndarray | torch.Tensor) and value.ndim > 1 for value in data.values())
    return isinstance(data, np.ndarray | torch.Tensor) and data.ndim > (1 if are_ids else 2)


def as_arrays(data: Any, target: Any, x: str, y: str, origin: str = "the arrays") -> ArrayTable:
    """Arrays or tensors by name.

    Args:
        data: the inputs (n, …), or a mapping of arrays (n, …).
        target: the targets (n,) or (n, *positions), numbers or text; None where there are none, or `data` has them.
        x: name of the inputs, where `data` is one array.
        y: name of the targets.
        origin: what they are, for messages.

    Raises:
        UsageError: another kind of object, arrays of unequal length, or an array that is called as the targets.
    """
    given = {str(name): value for name, value in data.items()} if isinstance(data, Mapping) else {x: data}
    if target is not None:
        if y in given:
            raise UsageError(f"the target is called {y!r}, and so is an array\n  expected: another name")
        given[y] = target
    arrays = {name: numpy_array(value, f"{origin}: {name!r}") for name, value in given.items()}
    setting = {x: "data.x", y: "data.target"}
    plain = {n: plain_array(array, origin, n, setting.get(n, "a column of data")) for n, array in arrays.items()}
    return ArrayTable(plain, origin)
