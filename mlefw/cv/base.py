"""The interface of a scheme of cross-validation, which says which rows each fold holds out."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.levels import written
from mlefw.reading.split import Split
from mlefw.reading.table import Table


@dataclass(frozen=True)
class Fold:
    """The rows that one fit holds out, as sorted positions in the table.

    Attributes:
        test: positions of the rows that are held out, (m,).
        repeat: number of the repeat of the whole scheme, from 0.
        past: positions of the rows that are fitted, (k,); None for all rows that are not held out.
    """

    test: np.ndarray
    repeat: int = 0
    past: np.ndarray | None = None

    def train(self, num_rows: int) -> np.ndarray:
        """Positions of the rows that are fitted, (k,), out of `num_rows` rows."""
        if self.past is not None:
            return self.past
        kept = np.ones(num_rows, dtype=bool)
        kept[self.test] = False
        return np.flatnonzero(kept)


@dataclass(kw_only=True)
class Scheme(ABC):
    """A scheme of cross-validation: which rows each fold holds out, as a function of settings and rows alone.

    Attributes:
        fold: number of the only fold to run, from 0; None to run all folds.
        jobs: number of folds that run at once; None for the number of cores.
    """

    fold: int | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UsageError: naming the setting.
        """
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"cv.jobs={self.jobs}: expected a whole number of at least 1, or null")

    @abstractmethod
    def held_out(self, split: Split, table: Table, identifier: str | None) -> list[Fold]:
        """All folds, in order; equal for equal settings and rows.

        Args:
            split: the rule of `data.split`, with its columns.
            table: all rows.
            identifier: the column of `data.id`, which names rows independently of their order; None for none.

        Raises:
            UsageError: there are too few rows for the folds, or the scheme cannot follow the rule of the split.
        """


def hashed(seed: int, repeat: int, names: Iterable[object]) -> np.ndarray:
    """A pseudo-random number for each name, (n,) uint64: the first 8 bytes of BLAKE2b of `seed:repeat:name`.

    Sorting by it shuffles rows in a way that depends on no other rows.
    """
    texts = (f"{seed}:{repeat}:{name}".encode() for name in names)
    return np.array([int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts], np.uint64)


def row_names(table: Table, identifier: str | None) -> list[str]:
    """The name of each row: its value in the column `identifier` if no value is missing, else its position as text."""
    if identifier is None or identifier not in table.columns or identifier in table.holes:
        return [str(position) for position in range(table.num_rows)]
    return [written(value) for value in table.columns[identifier].tolist()]
