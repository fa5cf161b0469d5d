"""Named columns as a data source read them, before any coding."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mlefw.errors import UsageError

FILE_STEP = 2**40
"""More rows than any one file has."""


@dataclass(frozen=True)
class Table:
    """Named columns of equal length as a source read them, before any coding.

    A column is a one-dimensional array: float64 (or integer) numbers, booleans, or objects holding `str`.
    `first_row` is the number a user would give to the first row (2 for a CSV file with a header), and
    `origin` says where the rows come from, both for error messages alone. `numbers` holds these numbers row by
    row where they are not consecutive: after a random split, or between blank lines. Of a table read from several
    files they count on from file to file in steps of `FILE_STEP`, and `files` has the names.
    `holes` marks the missing cells of a column that has any; what the column itself holds there means nothing.
    `orders` has the levels of a column of text whose source says their order, from the lowest to the highest.
    `release` lets the memory go that holds what was read of columns in files.
    """

    columns: dict[str, np.ndarray]
    origin: str
    first_row: int = 0
    numbers: np.ndarray | None = None
    files: tuple[str, ...] = ()
    holes: dict[str, np.ndarray] = field(default_factory=dict)
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    release: Callable[[], None] = field(default=lambda: None, compare=False)

    def __post_init__(self) -> None:
        """Hold columns to what they are to be: a source may be a stranger's.

        Raises:
            UsageError: naming the column and its shape.
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
        return Table(columns, self.origin, self.first_row, self.row_numbers(index), self.files, holes, self.orders)

    def one_by_one(self, names: Iterable[str]) -> Iterator[str]:
        """The names, of columns that are looked at in turn: what was read of one is let go before the next."""
        for name in names:
            yield name
            self.release()

    def only(self, names: Collection[str]) -> "Table":
        """The same rows with these columns alone."""
        columns = {name: column for name, column in self.columns.items() if name in names}
        return replace(self, columns=columns, holes={name: hole for name, hole in self.holes.items() if name in names})

    def present(self, name: str) -> tuple["Table", np.ndarray]:
        """The rows that have a column, with that column alone, and their positions."""
        hole = self.holes.get(name)
        index = np.arange(self.num_rows) if hole is None else np.flatnonzero(~hole)
        alone = replace(self, columns={name: self.columns[name]}, holes={})
        return (alone if hole is None else alone.take(index)), index

    def row_numbers(self, index: np.ndarray) -> np.ndarray:
        """The numbers a user would give to the rows at `index`."""
        return index + self.first_row if self.numbers is None else self.numbers[index]

    def where(self, mask: np.ndarray, limit: int = 5) -> str:
        """The rows at which `mask` holds, as a message names them: `rows 3, 8, 9, 12, 40 and 7 more`."""
        index = np.flatnonzero(mask)
        return listed(self.called(index[:limit]), len(index))

    def called(self, index: np.ndarray) -> list[str]:
        """The rows at `index`, each as a message names it."""
        return [self._called(number) for number in self.row_numbers(index).tolist()]

    def _called(self, number: int) -> str:
        return f"{number % FILE_STEP} of {self.files[number // FILE_STEP]}" if self.files else str(number)


def listed(names: Sequence[str], count: int) -> str:
    """The first names of `count` rows, as a message lists them."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{'row' if count == 1 else 'rows'} {', '.join(names)}{more}"
