"""`Table`, the named columns that a data source reads, before any encoding."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mlefw.errors import UsageError

FILE_STEP = 2**40
"""Distance of the row numbers of successive files, above the number of rows of any file."""


@dataclass(frozen=True)
class Table:
    """Named columns of equal length, before any encoding.

    Attributes:
        columns: arrays (num_rows,) by name: float64 (or integer) numbers, booleans, or objects that are `str`.
        origin: where the rows come from, for messages.
        first_row: number of the first row for a user (2 for a CSV file with a header), for messages.
        numbers: numbers of all rows, (num_rows,), if they are not consecutive, as after a random split or with blank
            lines; in a table of several files those of each file start at a multiple of `FILE_STEP`.
        files: names of the files of a table of several files.
        holes: masks (num_rows,) of missing cells, for columns that have any; values there have no meaning.
        orders: levels, from lowest to highest, of text columns for which the source states an order.
        dates: names of columns of dates, which are numbers of days since 1970-01-01.
        release: frees memory of columns that are stored in files.
    """

    columns: dict[str, np.ndarray]
    origin: str
    first_row: int = 0
    numbers: np.ndarray | None = None
    files: tuple[str, ...] = ()
    holes: dict[str, np.ndarray] = field(default_factory=dict)
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    release: Callable[[], None] = field(default=lambda: None, compare=False)
    dates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes of the columns, which may come from a plugin.

        Raises:
            UsageError: a column is not of shape (num_rows,).
        """
        for name, column in self.columns.items():
            if np.ndim(column) != 1 or len(column) != self.num_rows:
                raise UsageError(
                    f"{self.origin}: column {name!r} has shape {np.shape(column)}\n"
                    f"  expected: one value for each row, ({np.shape(next(iter(self.columns.values())))[0]},)"
                )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def take(self, index: np.ndarray) -> "Table":
        """The rows at `index`, in that order."""
        columns = {name: column[index] for name, column in self.columns.items()}
        holes = {name: hole[index] for name, hole in self.holes.items() if hole[index].any()}
        place = (self.origin, self.first_row, self.row_numbers(index), self.files)
        return type(self)(columns, *place, holes, self.orders, dates=self.dates)

    def one_by_one(self, names: Iterable[str]) -> Iterator[str]:
        """Iterate over names, releasing the memory of columns in files after each."""
        for name in names:
            yield name
            self.release()

    def only(self, names: Collection[str]) -> "Table":
        """The table with only the columns `names`."""
        columns = {name: column for name, column in self.columns.items() if name in names}
        return replace(self, columns=columns, holes={name: hole for name, hole in self.holes.items() if name in names})

    def present(self, name: str) -> tuple["Table", np.ndarray]:
        """The rows where a column is not missing, with only that column, and their positions."""
        hole = self.holes.get(name)
        index = np.arange(self.num_rows) if hole is None else np.flatnonzero(~hole)
        alone = replace(self, columns={name: self.columns[name]}, holes={})
        return (alone if hole is None else alone.take(index)), index

    def row_numbers(self, index: np.ndarray) -> np.ndarray:
        """The user's numbers of the rows at `index`."""
        return index + self.first_row if self.numbers is None else self.numbers[index]

    def where(self, mask: np.ndarray, limit: int = 5) -> str:
        """The rows where `mask` (num_rows,) is True, for a message: `rows 3, 8, 9, 12, 40 and 7 more`."""
        index = np.flatnonzero(mask)
        return listed(self.called(index[:limit]), len(index))

    def called(self, index: np.ndarray) -> list[str]:
        """The name in messages of each row at `index`."""
        return [self._called(number) for number in self.row_numbers(index).tolist()]

    def _called(self, number: int) -> str:
        return f"{number % FILE_STEP} of {self.files[number // FILE_STEP]}" if self.files else str(number)


def listed(names: Sequence[str], count: int) -> str:
    """A list for messages of the first names of `count` rows."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{'row' if count == 1 else 'rows'} {', '.join(names)}{more}"
