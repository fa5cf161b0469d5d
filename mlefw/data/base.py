"""What every data source shares: the roles of its columns and the split of its rows."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.arrow import is_index_name
from mlefw.reading.cells import Cells
from mlefw.reading.columns import shown
from mlefw.reading.split import Rule, Split
from mlefw.reading.table import Table
from mlefw.rows.stored import Store

FEWEST_TRAINING_ROWS = 2
"""A spread needs two values."""


class Block(NamedTuple):
    """Some rows of a source, their positions among all of its rows, and the share of it that is read so far."""

    table: Table
    row: np.ndarray
    share: float


@dataclass(kw_only=True)
class Source(ABC):
    """Reads tables and says which column plays which role.

    Attributes:
        target: column to predict, or a list of several.
        event: column that says whether the target, a time, is that of the event itself, or only of the last look
            (head=censored).
        event_code: its value where the event was observed; by default the larger of 0 and 1, of false and true, or of
            1 and 2.
        features: columns to predict from; all others by default.
        categorical: columns to one-hot code; every non-numeric feature by default.
        offset: column added to the first eta.
        exposure: positive column whose logarithm is such an offset.
        weight: column of row weights, meaning frequencies.
        labels: those of the target in their order; sorted by default.
        id: column that identifies a row in predictions.
        split: how rows are shared out: at `random`; `stratified` by classes, or by deciles of a number; in whole
            groups (`group`); or in `time`, whose last rows test. By default `group` where a column of groups is named,
            `time` where one of times is, else `random`.
        group: column of groups, of which each is in one part alone; it is no feature.
        time: column of numbers or dates, of which equal ones are in one part; it is no feature unless it is listed.
        test_fraction: share of all rows that is held out for the final score.
        validation_fraction: share of all rows on which training is watched.
        seed: seed of the split.
        standardize: whether features are centred and scaled inside the model.
        standardize_target: whether a location-scale target is in units of its spread inside the head.
        missing: `error`; `drop` to leave out rows with missing values; or `impute` to put the mean of the training
            rows, or the reference level, into missing cells of features, beside a column that says where.
        unseen: what becomes of a level that no training row has: `error`; `reference` takes it for the reference
            level; `ignore` leaves the feature out of account, at its mean over the training rows.
    """

    target: str | list[str] | None = None
    event: str | None = None
    event_code: str | int | float | bool | None = None
    features: list[str] | None = None
    categorical: list[str] | None = None
    offset: str | None = None
    exposure: str | None = None
    weight: str | None = None
    labels: list[str | int | float] | None = None
    id: str | None = None
    split: Rule | None = None
    group: str | None = None
    time: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    seed: int = 0
    standardize: bool = True
    standardize_target: bool = True
    missing: Literal["error", "drop", "impute"] = "error"
    unseen: Literal["error", "reference", "ignore"] = "error"
    prediction: bool = field(default=False, init=False)
    """Whether the target may be missing, in part or altogether, and weights do not matter."""
    partial: bool = field(default=False, init=False)
    """Whether one of several targets may be missing where another is there."""
    bounds: bool = field(default=False, init=False)
    """Whether two targets are a lower and an upper bound of one number, of which infinity is no bound."""
    classes: bool = field(default=False, init=False)
    """Whether the target is a class rather than a number, which a stratified split follows."""
    known: tuple[str, ...] = field(default=(), init=False)
    """Columns without a role that are no surprise."""
    numeric: tuple[str, ...] = field(default=(), init=False)
    """Columns that are known to hold numbers, beside those whose role says so."""
    store: Store | None = field(default=None, init=False)
    """Where the columns that were read are, if they are not in memory."""
    closed: bool = field(default=False, init=False)
    """Whether a column without a role is worth a warning, said once."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return tuple(self.target) if isinstance(self.target, list) else (self.target,) if self.target else ()

    @property
    def drawing(self) -> Split:
        """How rows are shared out."""
        rule: Rule = self.split or ("group" if self.group else "time" if self.time else "random")
        target = (self.event,) if self.event else self.targets
        return Split(rule, self.seed, self.group, self.time, target, self.classes or self.event is not None)

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether a file or folder of this name is for this source, given as `data.path` to evaluate or predict.

        The source of the training is asked first; what nobody claims is read as CSV.
        """
        return False

    @abstractmethod
    def read(self) -> Table:
        """All rows that are not given by a validation or test file of their own."""

    def read_blocks(self) -> Iterator["Block"]:
        """The rows of `read` in tables of bounded size, where the source can; a table without rows is no error."""
        table = self.read()
        yield Block(table, np.arange(table.num_rows), 1.0)

    def read_validation(self) -> Table | None:
        """The validation rows, where they are given."""
        return None

    def read_test(self) -> Table | None:
        """The test rows, where they are given."""
        return None

    def splits(self, table: Table | None = None) -> dict[str, Table]:
        """The rows of `train`, `validation` and `test`; a split without rows is absent.

        Raises:
            UsageError: as `parts`.
        """
        return {
            name: part if len(index) == part.num_rows else part.take(index)
            for name, (part, index) in self.parts(table).items()
        }

    def parts(self, table: Table | None = None) -> dict[str, tuple[Table, np.ndarray]]:
        """For `train`, `validation` and `test` a table, and the positions of the split's rows in it.

        Given validation and test rows are used as they are; the others are shares of the rows of `read`, as `split`
        has it. Rows keep their order within a split, and one without rows is absent.

        Args:
            table: what `read` returned, if the caller holds it already.

        Raises:
            UsageError: a fraction outside [0, 1), fewer than two training rows, or columns that the split cannot
                follow.
        """
        self.check_split()
        table = self.read() if table is None else table
        given = {"test": self.read_test(), "validation": self.read_validation()}
        shares = {"test": self.test_fraction, "validation": self.validation_fraction}
        counts = {name: round(share * table.num_rows) if given[name] is None else 0 for name, share in shares.items()}
        self._check_training(table, table.num_rows - sum(counts.values()))
        drawn = self.drawing.share_out(table, np.arange(table.num_rows), counts)
        self._check_training(table, len(drawn["train"]))
        parts = {"train": (table, drawn["train"])}
        for name, rows in reversed(given.items()):
            if rows is not None:
                if self.drawing.rule in ("group", "time"):
                    self.drawing.warn_of_leaks(table.take(drawn["train"]), rows, name)
                parts[name] = (rows, np.arange(rows.num_rows))
            elif len(drawn[name]):
                parts[name] = (table, drawn[name])
        return parts

    def _check_training(self, table: Table, num_rows: int) -> None:
        if num_rows < FEWEST_TRAINING_ROWS:
            raise UsageError(
                f"{table.origin}: {max(num_rows, 0)} training rows are left of {table.num_rows}"
                f"\n  at least {FEWEST_TRAINING_ROWS} are needed: give more rows, "
                "or smaller data.test_fraction and data.validation_fraction"
            )

    def warn_of_empty(self, table: Table, splits: Iterable[str]) -> None:
        """Say which split has no row although a share of the rows is asked for: the table is too small for it."""
        shares = {"test": self.test_fraction, "validation": self.validation_fraction}
        empty = [name for name, share in shares.items() if share and name not in splits]
        if empty:
            asked = " and ".join(f"data.{name}_fraction={shares[name]:g}" for name in empty)
            what = f"{table.origin}: {asked} of {table.num_rows} rows is less than half a row"
            warnings.warn(f"{what}: there are no {' and no '.join(empty)} rows", UserWarning, stacklevel=2)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that play a role: nothing is asked of the values of the others."""
        if self.features is None:
            return list(names)
        names = list(names)
        roles = {*self.features, *self.targets, self.event, self.offset, self.exposure, self.weight, self.id}
        roles |= {self.group, self.time}
        named = [name for name in names if name in roles]
        extra = [name for name in names if name not in roles and name not in self.known and not is_index_name(name)]
        if self.closed and extra and named:
            self.closed = False
            message = f"columns that the training data had not are not used: {shown(extra)}"
            warnings.warn(message, UserWarning, stacklevel=2)
        # Without any of them the table is not the one that was meant: all columns are read, so that this can be said.
        return named or list(names)

    def cells(self, names: Iterable[str]) -> Cells:
        """How the cells of some columns are read."""
        numeric = {*self.numeric, *(name for name in (self.offset, self.exposure, self.weight) if name)}
        # Of one column that is both bounds no infinity is open.
        ends = (
            dict(zip(self.targets, (-np.inf, np.inf), strict=True))
            if self.bounds and len(set(self.targets)) == 2
            else {}
        )
        text = (*(self.categorical or ()), *((self.group,) if self.group else ()))
        return Cells(text, numeric, self.id, self.missing, self.lenient(names), ends, self.time)

    def lenient(self, names: Iterable[str]) -> set[str]:
        """Those of `names` whose missing cells are neither an error nor a reason to drop a row."""
        roles = {self.offset, self.exposure, self.weight, self.event, self.group, self.time, *self.targets}
        kept = {self.id, *(self.targets if self.prediction or self.partial else ())}
        kept |= {self.weight, self.event} if self.prediction else set()
        return {name for name in names if name in kept or (self.missing == "impute" and name not in roles)}

    def check_split(self) -> None:
        """Hold the settings of the split to what they can be.

        Raises:
            UsageError: a share outside [0, 1), a negative seed, or columns that contradict the rule.
        """
        for setting in ("test_fraction", "validation_fraction"):
            share = getattr(self, setting)
            if not 0 <= share < 1:
                raise UsageError(f"data.{setting}={share} is not a share of the rows\n  expected: from 0 to below 1")
        if self.seed < 0:
            raise UsageError(f"data.seed={self.seed}: expected a whole number of at least 0")
        self.drawing.check()
