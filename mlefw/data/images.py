"""Image files: a folder with a sub-folder for each label, or a table of files and targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mlefw.data.base import Block
from mlefw.data.csv import SUFFIXES as TABLES
from mlefw.data.csv import Csv
from mlefw.data.tensor_source import BLOCK_CELLS, TensorSource
from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.reading.columns import require
from mlefw.reading.file import place, regular_file
from mlefw.reading.image_files import labelled_files, new_files
from mlefw.reading.picture import SUFFIXES, text
from mlefw.reading.pictures import Pictures
from mlefw.reading.table import Table, listed

_FILE = "file"
"""The column of a table that names the files."""
_ID = "id"
"""The array with the names of the files below their folder, unless `data.id` names a column of the table."""


@dataclass(kw_only=True)
class Images(TensorSource):
    """Reads image files as arrays of bytes, (n, channels, height, width), each decoded once, by Pillow.

    EXIF orientation is applied, palettes become colours, and an alpha channel is left out, with a warning. Without a
    table the target is the name of the sub-folder of `path` in which a file lies.

    Attributes:
        path: a folder with a sub-folder for each label; or a table like `table`. For predictions also a folder without
            labels, or one image.
        table: a CSV file with a column `file`, and a column for each role; its files lie below `path`, by default
            below the folder of the table.
        validation_path: folder or table of the validation rows; by default they are drawn from `path`.
        test_path: folder or table of the test rows; by default they are drawn from `path`.
        size: height and width to which images are scaled, by the shorter side, and cut around the centre; by default
            all images have to be of one size.
        color: `gray` for one channel, `rgb` for three, `auto` for one if all images are grey.
        max_pixels: most pixels of an image.
        bad: what happens to files that cannot be decoded, have several frames or too many pixels: `error`, or `skip`.
    """

    target: str | list[str] | None = "label"
    id: str | None = _ID
    path: str | None = None
    table: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    size: list[int] | None = None
    color: Literal["auto", "gray", "rgb"] = "auto"
    max_pixels: float = 5e7
    bad: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: a size that is not two positive numbers, no pixels, or ids in place of images.
        """
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"data.size={self.size}: expected [height,width] in pixels, or null")
        if self.max_pixels < 1:
            raise UsageError(f"data.max_pixels={self.max_pixels}: expected a number of at least 1")
        if self.vocabulary is not None:
            raise UsageError(f"data.vocabulary={self.vocabulary} is for ids: expected null with images")
        self._shape: tuple[int, ...] | None = None

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether `path` is a folder without .npy files, a table, or an image by its name."""
        place = Path(path)
        return place.name.lower().endswith((*TABLES, *SUFFIXES)) or (place.is_dir() and not any(place.glob("*.npy")))

    def load(self) -> ArrayTable:
        """All images of `path`, or of `table`."""
        loaded = self._decoded(self.path, self.table, "data.path", self.input_shape)
        self._shape = loaded.columns[self.x].shape[1:]
        return loaded

    def read_validation(self) -> Table | None:
        """All images of `validation_path`, if set."""
        return self._given(self.validation_path, "data.validation_path")

    def read_test(self) -> Table | None:
        """All images of `test_path`, if set."""
        return self._given(self.test_path, "data.test_path")

    def read_blocks(self) -> Iterator[Block]:
        """The images of `path`, some megabytes at a time."""
        self._check()
        pictures, content = self._listed(self.path, self.table, "data.path", self.input_shape)
        survey = pictures.survey()
        size = max(1, BLOCK_CELLS // int(np.prod(survey.shape)))
        for start in range(0, len(survey.taken), size):
            index = survey.taken[start : start + size]
            out = np.empty((len(index), *survey.shape), np.uint8)
            kept = pictures.decode(survey, index, out)
            block = self.accepted(partial(self._joined, content, kept, out[: len(kept)]))
            yield Block(block, kept, (start + len(index)) / len(survey.taken))

    def _given(self, path: str | None, setting: str) -> Table | None:
        if not path:
            return None
        # Colours are decided by the training images.
        return self.accepted(lambda: self._decoded(path, None, setting, self.input_shape or self._shape))

    def _decoded(
        self, path: str | None, table: str | None, setting: str, expected: tuple[int, ...] | None
    ) -> ArrayTable:
        pictures, content = self._listed(path, table, setting, expected)
        survey = pictures.survey()
        out = self.new_array((len(survey.taken), *survey.shape), np.uint8)
        kept = pictures.decode(survey, survey.taken, out, self.store.release if self.store else lambda: None)
        return self._joined(content, kept, out[: len(kept)])

    def _listed(
        self, path: str | None, table: str | None, setting: str, expected: tuple[int, ...] | None
    ) -> tuple[Pictures, Table]:
        """The image files of a folder or table, and a table of what is known of each."""
        if table is None and path is not None and path.lower().endswith(TABLES):
            path, table, setting = None, path, setting
        elif table is not None:
            setting = "data.table"
        found = self._of_folder(path, setting) if table is None else self._of_table(path, table, setting)
        files, names, content = found
        size = (self.size[0], self.size[1]) if self.size else None
        rules = (size, self.color, self.max_pixels, self.bad == "skip", expected)
        return Pictures(files, names, content.origin, *rules), content

    def _of_folder(self, path: str | None, setting: str) -> tuple[list[Path], list[str], Table]:
        if not path:
            raise UsageError(
                f"{setting} is not set\n  expected: a folder with a sub-folder of images for each label, or "
                "data.table=labels.csv"
            )
        folder = place(path, setting)
        known = None if self.labels is None else [str(label) for label in self.labels]
        if not folder.is_dir():
            file = regular_file(path, setting)
            if not self.prediction:
                raise UsageError(f"{file} is a file ({setting})\n  expected: a folder, or a table that ends in .csv")
            return [file], [text(file.name)], self._content([text(file.name)], None, str(file))
        if not self.needs_target:
            found = new_files(folder, setting, known or ())
        else:
            found = labelled_files(folder, setting, known, few=setting != "data.path")
        return found.files, found.names, self._content(found.names, found.labels, str(folder))

    def _content(self, names: list[str], labels: np.ndarray | None, origin: str) -> Table:
        columns = {self.targets[0]: labels} if labels is not None else {}
        return Table({_ID: np.array(names, dtype=object), **columns}, origin)

    def _of_table(self, path: str | None, table: str, setting: str) -> tuple[list[Path], list[str], Table]:
        """The files that a CSV file names.

        Raises:
            UsageError: a column is missing, or files are.
        """
        file = regular_file(table, setting)
        source = Csv(path=str(file), target=self.target, features=[_FILE], categorical=[_FILE])
        source.weight, source.offset, source.group = self.weight, self.offset, self.group
        source.id = None if self.id == _ID else self.id
        # Missing cells are kept, since what mends them in a table of numbers does not mend them here.
        source.prediction = True
        # What has to be there is checked below.
        source.checks_names = False
        content = source.read()
        needed: dict[str, str | None] = {"data.target": self.targets[0]} if self.needs_target else {}
        needed |= {} if self.prediction else {"data.weight": self.weight}
        needed |= {"data.table": _FILE, "data.offset": self.offset, "data.id": source.id}
        needed |= {} if self.is_new else {"data.group": self.group}
        for asked, name in needed.items():
            require([name] if name else [], content.columns, content.origin, asked)
        for asked, name in (("data.target", self.targets[0]), ("data.weight", self.weight)):
            if name in content.holes and name in needed.values():
                raise UsageError(
                    f"{file}: column {name!r} ({asked}) has missing values\n  {content.where(content.holes[name])}"
                    "\n  expected: a value in each row, or no row for the file"
                )
        names = [str(name) for name in content.columns[_FILE].tolist()]
        folder = file.parent if path is None else place(path, "data.path")
        files = [folder / name for name in names]
        if missing := [k for k, one in enumerate(files) if not one.is_file()]:
            first = ", ".join(repr(names[k]) for k in missing[:5])
            rows = listed(content.called(np.array(missing[:5])), len(missing))
            raise UsageError(
                f"{file}: {len(missing):,} files are missing in {folder}\n  {rows}: {first}\n  expected: column "
                f"{_FILE!r} with paths below this folder" + ("" if path else ", or another one in data.path")
            )
        columns = {name: column for name, column in content.columns.items() if name not in (_FILE, _ID)}
        columns[_ID] = content.columns[_FILE]
        return files, names, replace(content, columns=columns)

    def _joined(self, content: Table, index: np.ndarray, images: np.ndarray) -> ArrayTable:
        """The arrays of the files at `index`.

        Raises:
            UsageError: there are none.
        """
        if not len(index):
            raise UsageError(f"{content.origin}: no image file can be decoded")
        part = content.take(index)
        columns = {self.x: images, **part.columns}
        return ArrayTable(columns, part.origin, part.first_row, part.numbers, part.files, part.holes, part.orders)
