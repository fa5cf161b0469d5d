"""Named arrays of rows of any shape, and the files from which they are read."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.columns import require
from mlefw.reading.file import place, regular_file
from mlefw.reading.table import Table

_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What numpy raises for a file that is damaged."""

_SHOWN = 5
"""Most places in a message."""


@dataclass(frozen=True)
class ArrayTable(Table):
    """Named arrays, (num_rows, *shape), whose shapes may differ from array to array behind the first dimension."""

    def __post_init__(self) -> None:
        """Check the shapes of the arrays.

        Raises:
            UsageError: an array has no rows, a dimension of zero, or another number of rows than the others.
        """
        for name, array in self.columns.items():
            if np.ndim(array) == 0 or 0 in np.shape(array)[1:]:
                raise UsageError(
                    f"{self.origin}: array {name!r} has shape {np.shape(array)}\n  expected: (number of rows, …)"
                )
        counts = {name: len(array) for name, array in self.columns.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name!r} {count:,}" for name, count in counts.items())
            raise UsageError(f"{self.origin}: the arrays differ in length\n  rows of {said}\n  expected: equal numbers")

    def by_position(self, name: str) -> Table:
        """An array as one column with a cell for each position of each row: a table whose messages say which."""
        array = self.columns[name]
        if array.ndim == 1:
            return Table({name: array}, self.origin, self.first_row, self.numbers, self.files)
        return PositionTable({name: array.reshape(-1)}, self.origin, rows=self, positions=array.shape[1:])


@dataclass(frozen=True)
class PositionTable(Table):
    """A column of the positions of all rows, row by row.

    Attributes:
        rows: the table whose rows they are.
        positions: the shape of the positions of a row.
    """

    rows: Table | None = None
    positions: tuple[int, ...] = ()

    def where(self, mask: np.ndarray, limit: int = _SHOWN) -> str:
        """The places where `mask` is True, for a message: `row 5, position 17; row 6, position 0 and 7 more`."""
        index = np.flatnonzero(mask)
        said = "; ".join(f"row {one}" for one in self.called(index[:limit]))
        return said + (f" and {len(index) - limit} more" if len(index) > limit else "")

    def called(self, index: np.ndarray) -> list[str]:
        """The row and position of each cell at `index`: `5, position 17`."""
        assert self.rows is not None
        size = int(np.prod(self.positions))
        places = np.stack(np.unravel_index(index % size, self.positions), 1).tolist()
        names = self.rows.called(index // size)
        return [
            f"{name}, position {place[0] if len(place) == 1 else tuple(place)}"
            for name, place in zip(names, places, strict=True)
        ]


def read_arrays(path: str | None, setting: str, roles: Mapping[str, str], optional: Iterable[str]) -> ArrayTable:
    """Arrays of an `.npz` file, or of a folder of `.npy` files, which are memory-mapped; nothing is unpickled.

    Args:
        path: the file or folder.
        setting: the setting that names it.
        roles: the name of each array by the setting that names it.
        optional: names that may be absent.

    Raises:
        UsageError: there is no such file or array, it is damaged, or it holds Python objects, text or complex numbers.
    """
    folder = place(path or "", setting)
    if path and folder.is_dir():
        found: Any = {file.stem: file for file in sorted(folder.glob("*.npy"))}
        if not found:
            raise UsageError(f"{folder} is a directory without files that end in .npy ({setting})")
        return _selected(folder, found, roles, optional, lambda file: np.load(file, mmap_mode="r", allow_pickle=False))
    file = regular_file(path, setting)
    try:
        with file.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise UsageError(
                    f"{file} holds one array without a name ({setting})"
                    "\n  expected: an .npz file, or the folder with all .npy files, one for each array"
                )
            return _selected(file, {name: name for name in content.files}, roles, optional, content.__getitem__)
    except _BROKEN as error:
        raise UsageError(
            f"{file} cannot be read as an .npz file ({setting}): {_line(error)}\n  expected: a file of numpy.savez"
        ) from None


def _selected(
    origin: Path, found: dict[str, Any], roles: Mapping[str, str], optional: Iterable[str], load: Any
) -> ArrayTable:
    columns, left_out = {}, set(optional)
    for setting, name in roles.items():
        if name not in found and name in left_out:
            continue
        require([name], found, str(origin), setting)
        try:
            array = load(found[name])
        except MemoryError:
            raise UsageError(
                f"{origin}: array {name!r} does not fit into memory"
                "\n  expected: a folder of .npy files, which are memory-mapped"
            ) from None
        except _BROKEN as error:
            objects = "pickle" in str(error) or "Python objects" in str(error)
            what = "holds Python objects, which are never unpickled" if objects else f"is damaged: {_line(error)}"
            raise UsageError(f"{origin}: array {name!r} {what}\n  expected: an array of numbers") from None
        columns[name] = native(array, str(origin), name, setting)
    return ArrayTable(columns, str(origin))


def native(array: np.ndarray, origin: str, name: str, setting: str) -> np.ndarray:
    """An array in the machine's byte order and a type that torch has; names of rows or groups may be text.

    Raises:
        UsageError: it holds text, complex numbers, or other objects.
    """
    is_name = setting in ("data.id", "data.group")
    if is_name and array.dtype.kind in "US":
        return np.array(np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array, dtype=object)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        remedy = "numbers, or their codes as integers" if array.dtype.kind in "US" else "real numbers"
        raise UsageError(f"{origin}: array {name!r} ({setting}) holds {array.dtype}\n  expected: {remedy}")
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype in (np.uint32, np.uint64):
        if array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise UsageError(f"{origin}: array {name!r} ({setting}) holds {int(array.max())}, beyond 64-bit integers")
        return array.astype(np.int64)
    return array.view(np.uint8) if array.dtype == np.bool_ and not is_name else array


def check_finite(
    table: ArrayTable, name: str, setting: str, counted: np.ndarray | None = None, block_cells: int = 2**22
) -> None:
    """Check that an array of floats holds neither NaN nor infinite values, some rows at a time.

    Args:
        table: the arrays.
        name: name of the array.
        setting: the setting that gave the array its role.
        counted: whether each cell counts, in the shape of the array; None for all.
        block_cells: cells looked at together.

    Raises:
        UsageError: it does; the message has the first places.
    """
    array = table.columns[name]
    if array.dtype.kind != "f":
        return
    places, count = list[str](), 0
    size = max(1, block_cells // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), size):
        bad = ~np.isfinite(array[start : start + size])
        if counted is not None:
            bad &= counted[start : start + size]
        count += int(bad.sum())
        for row, *at in np.argwhere(bad)[: _SHOWN - len(places)].tolist():
            inside = f", position {at[0] if len(at) == 1 else tuple(at)}" if at else ""
            value = array[(start + row, *at)]
            places.append(f"row {table.called(np.array([start + row]))[0]}{inside}: {value}")
        table.release()
    if places:
        more = f" and {count - len(places)} more" if count > len(places) else ""
        remedy = "finite numbers" + ("; a weight of 0 masks a target" if setting == "data.target" else "")
        raise UsageError(
            f"{table.origin}: array {name!r} ({setting}) holds values that are no finite numbers"
            f"\n  {'; '.join(places)}{more}\n  expected: {remedy}"
        )


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
