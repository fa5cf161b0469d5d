"""A dataset of torch, or the datasets of a LightningDataModule, made by a plugin."""

import re
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from mlefw.data.tensor_source import TensorSource
from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.datasets import by_split
from mlefw.reading.table import Table
from mlefw.system.random_state import RandomStream
from mlefw.system.trust import trusted

_ADDRESS = r"(?:[^\W\d]\w*\.)*[^\W\d]\w*:[^\W\d]\w*"
_EXPECTED = "expected module:function, which returns a dataset, and --plugin module"


@dataclass(kw_only=True)
class Torch(TensorSource):
    """Reads the items of map-style datasets into arrays, once.

    Attributes:
        dataset: `module:function`, of a package admitted by `--plugin`. Without arguments the function returns a
            dataset of items (x, y) or (x, y, weight), or a DataLoader; or a mapping with datasets or loaders `train`,
            `validation` and `test`, of which the first alone is needed; or a LightningDataModule. It may draw random
            numbers, which are the same for each `data.seed`.
    """

    dataset: str | None = None

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            UsageError: it is none.
        """
        if self.dataset is not None and not re.fullmatch(_ADDRESS, self.dataset):
            raise UsageError(f"data.dataset={self.dataset}: {_EXPECTED}")
        self._made: dict[str, Any] | None = None

    def load(self) -> ArrayTable:
        """The rows of the training dataset."""
        return self._read("train")

    def read_validation(self) -> Table | None:
        """The rows of the validation dataset, if there is one."""
        return self.accepted(partial(self._read, "validation")) if "validation" in self._datasets() else None

    def read_test(self) -> Table | None:
        """The rows of the test dataset, if there is one."""
        return self.accepted(partial(self._read, "test")) if "test" in self._datasets() else None

    def _read(self, split: str) -> ArrayTable:
        dataset = self._datasets()[split]
        with self._stream():
            return self.of_dataset(dataset, f"{self.dataset} ({split})", split == "train")

    def _datasets(self) -> dict[str, Any]:
        if self._made is None:
            make = _function(self.dataset)
            with self._stream():
                made = make()
            self._made = by_split(made, str(self.dataset), self._stream)
        return self._made

    def _stream(self) -> RandomStream:
        """Random numbers of the dataset, from their start."""
        return RandomStream(self.seed, "dataset")


def _function(address: str | None) -> Any:
    """The function of an address such as `module:function`; its module is imported.

    Raises:
        UsageError: it is not admitted, or there is no such function.
    """
    if address is None:
        raise UsageError(f"data.dataset is not set: {_EXPECTED}")
    module, _, name = address.partition(":")
    if not _is_admitted(module):
        package = module.split(".")[0]
        raise UsageError(
            f"data.dataset={address}: {package} is not admitted"
            f"\n  expected: --plugin {package}, which lets its code run"
        )
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as error:
        raise UsageError(f"data.dataset={address}: the module cannot be imported: {error}") from error
    if not callable(found):
        what = "there is no such function" if found is None else f"it is a {type(found).__name__}"
        raise UsageError(f"data.dataset={address}: {what}\n  expected: a function without arguments, or a class")
    if not _is_admitted(str(getattr(found, "__module__", ""))):
        raise UsageError(
            f"data.dataset={address}: it is defined in {getattr(found, '__module__', 'another module')}"
            f"\n  expected: a function that is defined in {module}"
        )
    return found


def _is_admitted(module: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in trusted())
