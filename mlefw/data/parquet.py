"""Tables from Parquet files, one or several."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlefw.data.base import Block, Source
from mlefw.errors import UsageError
from mlefw.reading.arrow import check_names, empty_table, to_table
from mlefw.reading.file import DataFile, binary, data_files, origin_of
from mlefw.reading.remote.file import remote_files
from mlefw.reading.table import FILE_STEP, Table
from mlefw.rows.stored import Store, memory_limit
from mlefw.system.address import is_remote

MAGIC = b"PAR1"
"""First bytes of a Parquet file."""

SUFFIXES = (".parquet", ".pq")
"""Endings of the files of a folder that are read."""

BLOCK_CELLS = 2**20
"""Cells that are read at a time."""

_BYTES_PER_CELL = 24
"""Bytes of memory per cell: as it was read, as a feature, and standardised, 8 each."""


@dataclass(kw_only=True)
class Parquet(Source):
    """Reads Parquet files; messages count rows from zero.

    Attributes:
        path: file of the rows to split; or a folder, or a pattern such as `part-*.parquet`, of files with the same
            columns. These and other paths may be addresses: s3://…, gs://…, or https://… of one file, of which the
            columns that are used are fetched.
        validation_path: file, folder or pattern of the validation rows; by default they are drawn from `path`.
        test_path: file, folder or pattern of the test rows; by default they are drawn from `path`.
        download: folder in which whole copies of remote files are kept for runs to come; by default none are.
        stream: whether coded rows are kept in temporary files rather than in memory; `auto` does so where they would
            take more than half of the memory.
        cache: directory of these temporary files, which have no name; by default the system's temporary directory.
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    download: str | None = None
    stream: bool | Literal["auto"] = "auto"
    cache: str | None = None

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether `path` is a file that ends with .parquet or .pq, or a folder with such files."""
        if is_remote(path):
            return any(file.name.endswith(SUFFIXES) for file in remote_files(path, "data.path", ("",)))
        folder = Path(path)
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else [folder.name]
        return any(name.endswith(SUFFIXES) for name in names)

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
        files = data_files(self.path, "data.path", SUFFIXES, self.download)
        before = 0
        for k, path in enumerate(files):
            with _opened(path) as file:
                names = self.wanted(file.schema_arrow.names, str(path))
                start, total = 0, max(file.metadata.num_rows, 1)
                if file.metadata.num_rows == 0:
                    yield Block(empty_table(names, Table({}, str(path))), np.arange(0), (k + 1) / len(files))
                for batch in file.iter_batches(max(1, BLOCK_CELLS // max(1, len(names))), columns=names):
                    numbers = np.arange(start, start + batch.num_rows)
                    arrow = pa.table(batch)
                    columns = ((name, [arrow.column(name)]) for name in names)
                    table = self._table(columns, names, Table({}, str(path), numbers=numbers))
                    start += batch.num_rows
                    row = before + table.row_numbers(np.arange(table.num_rows))
                    yield Block(table, row, (k + start / total) / len(files))
                before += start

    def _load(self, path: str | None, setting: str) -> Table:
        paths = data_files(path, setting, SUFFIXES, self.download)
        with ExitStack() as opened:
            files = [opened.enter_context(_opened(part)) for part in paths]
            # Kept in a list, because Arrow builds the schema of all columns anew on each access.
            schemas = [file.schema_arrow for file in files]
            names = self.wanted(schemas[0].names, str(paths[0]))
            for schema, part in zip(schemas, paths, strict=True):
                if odd := sorted(set(self.wanted(schema.names)) ^ set(names)):
                    raise UsageError(f"{part} and {paths[0].name} differ in columns: {', '.join(map(repr, odd[:8]))}")
            counts = [file.metadata.num_rows for file in files]
            if self.store is None and self._is_streamed(sum(counts) * len(names)):
                self.store = Store(self.cache)

            columns = ((name, self._pieces(files, schemas, name, origin_of(str(path)))) for name in names)
            if len(files) == 1:
                return self._table(columns, names, Table({}, str(paths[0])))
            numbers = np.concatenate([np.arange(count) + k * FILE_STEP for k, count in enumerate(counts)])
            place = Table({}, origin_of(str(path)), 0, numbers, tuple(part.name for part in paths))
            return self._table(columns, names, place)

    def _pieces(
        self, files: Sequence[pq.ParquetFile], schemas: Sequence[pa.Schema], name: str, path: str
    ) -> Iterator[pa.ChunkedArray]:
        """A column in pieces: one for each file, or where rows are streamed one for each `BLOCK_CELLS` rows."""
        own = [pa.schema([schema.field(name)]) for schema in schemas]
        try:
            kind = pa.unify_schemas(own, promote_options="permissive").field(name).type
        except pa.ArrowException as error:
            raise UsageError(f"{path}: the types of its files differ: {str(error).splitlines()[0]}") from None
        for file in files:
            whole = self.store is None or not file.metadata.num_rows
            for part in [file.read(columns=[name])] if whole else file.iter_batches(BLOCK_CELLS, columns=[name]):
                column = pa.chunked_array([part.column(0)]) if isinstance(part, pa.RecordBatch) else part.column(0)
                yield column if column.type == kind else column.cast(kind)

    def _is_streamed(self, num_cells: int) -> bool:
        if self.stream != "auto":
            return self.stream
        return _BYTES_PER_CELL * num_cells > memory_limit() / 2

    def _table(self, columns: Iterable[tuple[str, Iterable[pa.ChunkedArray]]], names: list[str], place: Table) -> Table:
        if self.store is None:
            return to_table(columns, place, self.cells(names))
        table = to_table(columns, replace(place, release=self.store.release), self.cells(names), self.store.keep)
        # Arrow keeps freed memory for later use: as much as the largest column needed.
        pa.default_memory_pool().release_unused()
        return table


@contextmanager
def _opened(path: DataFile) -> Iterator[pq.ParquetFile]:
    try:
        with binary(path, whole=False) as stream:  # a stream, since pyarrow may take a path for an address
            if stream.read(len(MAGIC)) != MAGIC:
                raise UsageError(f"{path} is not a Parquet file\n  read a text table with data=csv")
            stream.seek(0)
            # Buffers that pyarrow reads ahead are kept until the file is closed: memory would grow with the file.
            file = pq.ParquetFile(stream, pre_buffer=False)
            check_names(file.schema_arrow.names, str(path))
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
