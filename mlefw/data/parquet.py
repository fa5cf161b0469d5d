"""Tables from Parquet files, one or several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlefw.arrow_table import check_names, empty_table, to_table
from mlefw.data.base import Block, Source
from mlefw.data_file import regular_files
from mlefw.errors import UsageError
from mlefw.rows import FILE_STEP, Table

MAGIC = b"PAR1"
SUFFIXES = (".parquet", ".pq")
BLOCK_CELLS = 2**20


@dataclass(kw_only=True)
class Parquet(Source):
    """Reads Parquet files; rows are counted from zero in messages.

    Attributes:
        path: file of the rows to split; or a folder, or a pattern such as `part-*.parquet`, of files with the same
            columns.
        validation_path: the same for the validation rows.
        test_path: the same for the test rows.
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None

    def read(self) -> Table:
        """All rows of `path`."""
        return self._load(self.path, "data.path")

    def read_validation(self) -> Table | None:
        """All rows of `validation_path`, if set."""
        return self._load(self.validation_path, "data.validation_path") if self.validation_path else None

    def read_test(self) -> Table | None:
        """All rows of `test_path`, if set."""
        return self._load(self.test_path, "data.test_path") if self.test_path else None

    def read_blocks(self) -> Iterator[Block]:
        """The rows of `path`, some megabytes of numbers at a time."""
        files = regular_files(self.path, "data.path", SUFFIXES)
        before = 0
        for k, path in enumerate(files):
            with _opened(path) as file:
                names = self.wanted(file.schema_arrow.names)
                start, total = 0, max(file.metadata.num_rows, 1)
                if file.metadata.num_rows == 0:
                    yield Block(empty_table(names, Table({}, str(path))), np.arange(0), (k + 1) / len(files))
                for batch in file.iter_batches(max(1, BLOCK_CELLS // max(1, len(names))), columns=names):
                    numbers = np.arange(start, start + batch.num_rows)
                    arrow = pa.table(batch)
                    table = self._table(arrow.column, names, Table({}, str(path), numbers=numbers))
                    start += batch.num_rows
                    row = before + table.row_numbers(np.arange(table.num_rows))
                    yield Block(table, row, (k + start / total) / len(files))
                before += start

    def _load(self, path: str | None, setting: str) -> Table:
        paths = regular_files(path, setting, SUFFIXES)
        if len(paths) == 1:
            with _opened(paths[0]) as file:
                names = self.wanted(file.schema_arrow.names)
                return self._table(lambda name: file.read(columns=[name]).column(name), names, Table({}, str(paths[0])))
        parts = []
        for part in paths:
            with _opened(part) as file:
                parts.append(file.read(columns=self.wanted(file.schema_arrow.names)))
        names = parts[0].column_names
        for table, part in zip(parts, paths, strict=True):
            if odd := sorted(set(table.column_names) ^ set(names)):
                raise UsageError(f"{part} and {paths[0].name} differ in columns: {', '.join(map(repr, odd[:8]))}")
        try:
            arrow = pa.concat_tables([table.select(names) for table in parts], promote_options="permissive")
        except pa.ArrowException as error:
            raise UsageError(f"{path}: the types of its files differ: {str(error).splitlines()[0]}") from None
        numbers = np.concatenate([np.arange(table.num_rows) + k * FILE_STEP for k, table in enumerate(parts)])
        files = tuple(part.name for part in paths)
        return self._table(arrow.column, names, Table({}, str(Path(str(path)).absolute()), 0, numbers, files))

    def _table(self, column: Callable[[str], pa.ChunkedArray], names: list[str], place: Table) -> Table:
        # One column at a time, so that the file is never in memory twice.
        columns = ((name, column(name)) for name in names)
        return to_table(columns, place, self.categorical or (), self.id, self.missing, self.lenient(names))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with path.open("rb") as stream:  # pyarrow takes the stream, never a path it may interpret
            if stream.read(len(MAGIC)) != MAGIC:
                raise UsageError(f"{path} is not a Parquet file\n  read a text table with data=csv")
            stream.seek(0)
            # A buffer read ahead is kept until the file is closed: memory would grow with the file.
            file = pq.ParquetFile(stream, pre_buffer=False)
            check_names(file.schema_arrow.names, str(path))
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
