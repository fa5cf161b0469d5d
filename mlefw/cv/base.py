"""What a scheme of cross-validation is: which rows each fold holds out, as a function of settings and rows alone."""

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
    """The rows that one fit holds out, by their positions in the table, sorted.

    Attributes:
        test: rows that are held out, (m,).
        repeat: of the whole scheme, from 0.
        past: rows that are fitted, where they are not all others.
    """

    test: np.ndarray
    repeat: int = 0
    past: np.ndarray | None = None

    def train(self, num_rows: int) -> np.ndarray:
        """Positions of the rows that are fitted, of `num_rows` in all."""
        if self.past is not None:
            return self.past
        kept = np.ones(num_rows, dtype=bool)
        kept[self.test] = False
        return np.flatnonzero(kept)


@dataclass(kw_only=True)
class Scheme(ABC):
    """Says which rows each fold holds out.

    Attributes:
        fold: the one fold that a run holds out; None for all of them.
        jobs: how many folds run at once; None for as many as there are cores.
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
        """All folds, in order; the same for the same settings and rows.

        Args:
            split: the rule of `data.split`, with its columns.
            table: all rows.
            identifier: column of `data.id`, by which a row is known whatever its place in the table; None for none.

        Raises:
            UsageError: more folds than the rows have to share, or a rule that the scheme cannot follow.
        """


def hashed(seed: int, repeat: int, names: Iterable[object]) -> np.ndarray:
    """A number for each name, (n,) uint64: the first 8 bytes of BLAKE2b of `seed:repeat:name`."""
    texts = (f"{seed}:{repeat}:{name}".encode() for name in names)
    return np.array([int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts], np.uint64)


def row_names(table: Table, identifier: str | None) -> list[str]:
    """What a row is known by: its identifier, or its position among the rows."""
    if identifier is None or identifier not in table.columns or identifier in table.holes:
        return [str(position) for position in range(table.num_rows)]
    return [written(value) for value in table.columns[identifier].tolist()]
