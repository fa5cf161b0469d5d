"""Tables from Parquet files."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mlefw.arrow_table import check_names, to_table
from mlefw.data.base import Source
from mlefw.data_file import regular_file
from mlefw.errors import UsageError
from mlefw.rows import Table

MAGIC = b"PAR1"


@dataclass(kw_only=True)
class Parquet(Source):
    """Reads Parquet files; rows are counted from zero in messages.

    Attributes:
        path: file of the rows to split.
        validation_path: file of the validation rows.
        test_path: file of the test rows.
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

    def _load(self, path: str | None, setting: str) -> Table:
        origin = str(regular_file(path, setting))
        try:
            with open(origin, "rb") as stream:  # noqa: PTH123 (pyarrow takes the stream, never a path it may interpret)
                if stream.read(len(MAGIC)) != MAGIC:
                    raise UsageError(f"{origin} is not a Parquet file\n  read a text table with data=csv")
                stream.seek(0)
                file = pq.ParquetFile(stream)
                check_names(file.schema_arrow.names, origin)
                return to_table(self._columns(file), Table({}, origin), self.categorical or (), self.id, self.missing)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{origin} cannot be read: {str(error).splitlines()[0]}") from None

    def _columns(self, file: pq.ParquetFile) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """One column at a time, so that the file is never in memory twice."""
        for name in self.wanted(file.schema_arrow.names):
            yield name, file.read(columns=[name]).column(name)
