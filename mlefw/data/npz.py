"""Arrays of rows of any shape, from an .npz file or a folder of .npy files."""

from dataclasses import dataclass
from pathlib import Path

from mlefw.data.tensor_source import TensorSource
from mlefw.reading.arrays import ArrayTable, read_arrays
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class Npz(TensorSource):
    """Reads the arrays of an `.npz` file, or of a folder of `.npy` files, which are memory-mapped.

    Attributes:
        path: an `.npz` file, or a folder with an `.npy` file for each array.
        validation_path: file or folder of the validation rows; by default they are drawn from `path`.
        test_path: file or folder of the test rows; by default they are drawn from `path`.
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether `path` ends with .npz, or is a folder with .npy files."""
        folder = Path(path)
        return folder.name.endswith(".npz") or (folder.is_dir() and any(folder.glob("*.npy")))

    def load(self) -> ArrayTable:
        """The arrays of `path`."""
        return self._load(self.path, "data.path")

    def read_validation(self) -> Table | None:
        """All rows of `validation_path`, if set."""
        path = self.validation_path
        return self.accepted(lambda: self._load(path, "data.validation_path")) if path else None

    def read_test(self) -> Table | None:
        """All rows of `test_path`, if set."""
        path = self.test_path
        return self.accepted(lambda: self._load(path, "data.test_path")) if path else None

    def _load(self, path: str | None, setting: str) -> ArrayTable:
        optional = [name for name in (self.weight, self.id) if name] if self.prediction else []
        optional += [] if self.needs_target else [self.targets[0]]
        optional += [self.group] if self.group and self.is_new else []
        return read_arrays(path, setting, self.roles, optional)
