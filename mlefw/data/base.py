"""`Source`, the interface of a data source: the roles of its columns and the split of its rows."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.arrow import is_index_name
from mlefw.reading.cells import Cells
from mlefw.reading.columns import require_each, shown
from mlefw.reading.formula import read_shift, read_terms
from mlefw.reading.split import Rule, Split
from mlefw.reading.table import Table
from mlefw.rows.stored import Store

FEWEST_TRAINING_ROWS = 2
"""With one row a standard deviation is not defined."""


class Block(NamedTuple):
    """Consecutive rows of a source.

    Attributes:
        table: the rows.
        row: their positions among all rows of the source, also those left out, (n,) integers from 0.
        share: share of the source that has been read with this block, from 0 to 1.
    """

    table: Table
    row: np.ndarray
    share: float


@dataclass(kw_only=True)
class Source(ABC):
    """Reads tables, knows the role of each column, and shares the rows out to training, validation and test.

    Attributes:
        target: column to predict, or a list of several.
        event: column that says whether the target is the time of an event, or a time until which it had not happened
            (head=censored).
        event_code: value of `event` where the event was observed; by default the larger of 0 and 1, of false and true,
            or of 1 and 2.
        trials: column with the number of trials of which the target counts the successes (head=binomial).
        features: columns to predict from; by default all columns without another role.
        categorical: columns to one-hot code; by default every feature that is not numeric.
        offset: column that is added to the first column of eta.
        exposure: positive column whose logarithm is added to the first column of eta.
        weight: column of row weights, meaning frequencies.
        labels: classes of the target in their order; sorted by default.
        id: column that identifies a row in predictions.
        split: how rows are shared out to training, validation and test. `random`; `stratified`, with equal shares of
            each class, or of each decile of a number; `group`, whole groups of rows; `time`, the latest rows to test.
            By default `group` where `group` names a column, `time` where `time` does, else `random`.
        group: column of groups; the rows of a group go to one split together. It is no feature.
        cluster: column of clusters, within which rows may depend on each other, or a list of two: for
            `baseline.standard_errors=cluster`. By default `group`. It is a feature only where `features` lists it.
        time: column of numbers or dates; rows of equal time go to one split together. It is a feature only where
            `features` lists it.
        test_fraction: share of all rows that is held out for the final evaluation.
        validation_fraction: share of all rows that is held out to evaluate each epoch.
        seed: seed of the split.
        standardize: whether features are centred and scaled inside the model.
        standardize_target: whether the head, where it has a location and a scale, computes in units of the target's
            standard deviation.
        missing: `error`; `drop` leaves out rows with missing values; `impute` fills missing cells of features with the
            mean of the training rows, or the reference level, and adds a feature that says where.
        unseen: what happens to a level of a categorical feature that no training row has: `error`; `reference` codes
            it as the reference level; `ignore` sets its codes to their means over the training rows.
        terms: the right side of a formula for each distribution parameter that the head predicts, in its order; None
            for a parameter that has all features. `formula` and `head.terms` set it.
        shifts: for a distribution parameter, expressions of columns that are added to its eta. `data.offset` of several
            parameters and `variance_weight` set it.
        variance_weight: positive column by which the dispersion of each row is divided: a row that is a mean of w
            observations has weight w. The likelihood and the number of rows stay those of one observation a row.
    """

    form: ClassVar[Literal["columns", "tensors", "tokens"]] = "columns"
    """What `read` gives: columns of a table, an `ArrayTable` of arrays whose rows may have any shape, or a `TextTable`
    of windows of tokens."""

    target: str | list[str] | None = None
    event: str | None = None
    event_code: str | int | float | bool | None = None
    trials: str | None = None
    features: list[str] | None = None
    categorical: list[str] | None = None
    offset: str | None = None
    exposure: str | None = None
    weight: str | None = None
    labels: list[str | int | float] | None = None
    id: str | None = None
    split: Rule | None = None
    group: str | None = None
    cluster: str | list[str] | None = None
    time: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    seed: int = 0
    standardize: bool = True
    standardize_target: bool = True
    missing: Literal["error", "drop", "impute"] = "error"
    unseen: Literal["error", "reference", "ignore"] = "error"
    terms: dict[str, str | None] | None = None
    shifts: dict[str, list[str]] | None = None
    variance_weight: str | None = None
    prediction: bool = field(default=False, init=False)
    """Whether rows are read for prediction alone: targets and weights may be missing, in cells or as whole columns."""
    partial: bool = field(default=False, init=False)
    """Whether a row may lack some of several targets, if it has another one."""
    bounds: bool = field(default=False, init=False)
    """Whether two targets are a lower and an upper bound of one number; an infinite bound means that there is none."""
    classes: bool = field(default=False, init=False)
    """Whether the target is a class rather than a number; decides how a stratified split shares out rows."""
    expected_unused: tuple[str, ...] = field(default=(), init=False)
    """Columns without a role of which `wanted` does not warn."""
    numeric: tuple[str, ...] = field(default=(), init=False)
    """Columns that have to hold numbers, in addition to offset, exposure and weight."""
    dates: tuple[str, ...] = field(default=(), init=False)
    """Columns that a trained model takes as numbers of days, beside those that formulas compute with."""
    store: Store | None = field(default=None, init=False)
    """The files that hold the columns, where rows are streamed; None where columns are in memory."""
    input_shape: tuple[int, ...] | None = field(default=None, init=False)
    """The shape of a row that a trained model takes, where it reads arrays; None in training."""
    checks_names: bool = field(default=True, init=False)
    """Whether `wanted` checks that the columns that settings name are there: in training, of the first table."""
    warns_of_unused: bool = field(default=False, init=False)
    """Whether `wanted` warns of columns without a role; it does so once."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the columns to predict."""
        return tuple(self.target) if isinstance(self.target, list) else (self.target,) if self.target else ()

    @property
    def term_columns(self) -> set[str]:
        """The columns that formulas read."""
        given = [read_terms(text, f"terms.{name}") for name, text in (self.terms or {}).items() if text is not None]
        return {column for terms in given for column in terms.columns} - {"."} | self.shift_columns

    @property
    def computed_columns(self) -> set[str]:
        """The columns that formulas compute with, in which a date is a number of days; `.` stands for all features."""
        given = [read_terms(text, f"terms.{name}") for name, text in (self.terms or {}).items() if text is not None]
        return {column for terms in given for column in terms.computed} | self.shift_columns

    @property
    def shift_columns(self) -> set[str]:
        """The columns that are added to eta with a coefficient of one by `shifts`."""
        return {c for parts in (self.shifts or {}).values() for part in parts for c in read_shift(part).columns}

    @property
    def is_shifted(self) -> bool:
        """Whether formulas or `shifts` add something to an eta with a coefficient of one."""
        texts = (text for text in (self.terms or {}).values() if text is not None)
        return bool(self.shifts) or any(read_terms(text, "terms").offsets for text in texts)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the columns of clusters: `cluster`, else `group`; none where there is neither."""
        named = self.cluster or self.group
        return tuple(named) if isinstance(named, list) else (named,) if named else ()

    @property
    def splitter(self) -> Split:
        """What shares the rows out, by the settings of this source."""
        rule: Rule = self.split or ("group" if self.group else "time" if self.time else "random")
        target = (self.event,) if self.event else self.targets
        return Split(rule, self.seed, self.group, self.time, target, self.classes or self.event is not None)

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether this source reads the file or folder `path`, which is given as `data.path` to evaluate or predict.

        The source that training used is asked first; a path that no source claims is read as CSV.
        """
        return False

    @abstractmethod
    def read(self) -> Table:
        """All rows, but those of `read_validation` and `read_test`."""

    def read_blocks(self) -> Iterator["Block"]:
        """The rows of `read` in consecutive blocks, by default a single one; a block may have no rows.

        With blocks of bounded size, tables larger than memory can be predicted and evaluated.
        """
        table = self.read()
        yield Block(table, np.arange(table.num_rows), 1.0)

    def read_validation(self) -> Table | None:
        """The validation rows, where the source knows them; else None, and they are drawn from those of `read`."""
        return None

    def read_test(self) -> Table | None:
        """The test rows, where the source knows them; else None, and they are drawn from those of `read`."""
        return None

    def splits(self, table: Table | None = None) -> dict[str, Table]:
        """The tables of `train`, `validation` and `test`; a split without rows is absent. `table`: as for `parts`.

        Raises:
            UsageError: as `parts`.
        """
        return {
            name: part if len(index) == part.num_rows else part.take(index)
            for name, (part, index) in self.parts(table).items()
        }

    def parts(self, table: Table | None = None) -> dict[str, tuple[Table, np.ndarray]]:
        """For each of `train`, `validation` and `test` a table, and the positions of the split's rows in it.

        Rows of `read_validation` and `read_test` are used as they are; the other splits are shares of the rows of
        `read`, drawn by `splitter`. Rows keep their order within a split, and a split without rows is absent.

        Args:
            table: what `read` returned, if the caller has it already.

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
        drawn = self.splitter.share_out(table, np.arange(table.num_rows), counts)
        self._check_training(table, len(drawn["train"]))
        parts = {"train": (table, drawn["train"])}
        for name, rows in reversed(given.items()):
            if rows is not None:
                if self.splitter.rule in ("group", "time"):
                    self.splitter.warn_of_leaks(table.take(drawn["train"]), rows, name)
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
        """Warn of splits that are not among `splits` although their fraction is above 0: the table is too small."""
        shares = {"test": self.test_fraction, "validation": self.validation_fraction}
        empty = [name for name, share in shares.items() if share and name not in splits]
        if empty:
            asked = " and ".join(f"data.{name}_fraction={shares[name]:g}" for name in empty)
            what = f"{table.origin}: {asked} of {table.num_rows} rows is less than half a row"
            warnings.warn(f"{what}: there are no {' and no '.join(empty)} rows", UserWarning, stacklevel=2)

    def named(self) -> list[tuple[str, str]]:
        """Each column that a setting names, and that setting, for messages."""
        single = ("event", "trials", "offset", "exposure", "weight", "id", "group", "time", "variance_weight")
        several = {"target": self.targets, "features": self.features or (), "categorical": self.categorical or ()}
        several["cluster"] = self.clusters if self.cluster else ()
        found = [(name, f"data.{role}") for role in single if (name := getattr(self, role))]
        found += [(name, f"data.{role}") for role, names in several.items() for name in names]
        for parameter, text in (self.terms or {}).items():
            columns = () if text is None else read_terms(text, f"terms.{parameter}").columns
            found += [(name, f"formula of {parameter}: {text}") for name in columns if name != "."]
        for parameter, parts in (self.shifts or {}).items():
            columns = tuple(name for part in parts for name in read_shift(part).columns)
            found += [(name, f"data.offset of {parameter}") for name in columns if name != self.variance_weight]
        return found

    def wanted(self, names: Iterable[str], origin: str = "the table") -> list[str]:
        """The columns among `names` that have a role; the values of the others need not be read.

        Args:
            names: the columns that there are.
            origin: where they are, for messages.

        Raises:
            UsageError: a setting names a column that is not there. It is told here, before the other columns are read,
                which may have faults of their own.
        """
        names = list(names)
        if self.checks_names:
            self.checks_names = False
            require_each(dict.fromkeys(self.named()), names, origin)
        if self.features is None and not self._are_named(names):
            return names
        roles = {*(self.features or ()), *self.targets, self.event, self.offset, self.exposure, self.weight, self.id}
        roles |= {self.trials, self.group, self.time, *self.clusters, *self.term_columns}
        named = [name for name in names if name in roles]
        extra = [
            name for name in names if name not in roles and name not in self.expected_unused and not is_index_name(name)
        ]
        if self.warns_of_unused and extra and named and self.features is not None:
            self.warns_of_unused = False
            message = f"columns that the training data had not are not used: {shown(extra)}"
            warnings.warn(message, UserWarning, stacklevel=2)
        # A table without any of these columns is the wrong one: with all columns, a later check can say what it lacks.
        return named or list(names)

    def _are_named(self, names: Collection[str]) -> bool:
        """Whether formulas alone say which columns are features, all of which are among `names`.

        Where one is missing, all columns are read, so that the message can say which name is near.
        """
        if not self.terms:
            return False
        given = [None if text is None else read_terms(text, "formula") for text in self.terms.values()]
        has_all = any(terms is None or "." in terms.columns for terms in given)
        return not has_all and self.term_columns.issubset(names)

    def cells(self, names: Iterable[str]) -> Cells:
        """How the cells of the columns `names` are read, by the settings of this source."""
        numeric = {*self.numeric, *(name for name in (self.offset, self.exposure, self.weight, self.trials) if name)}
        # Where one column is both bounds, values are exact, and an infinite one is an error.
        ends = (
            dict(zip(self.targets, (-np.inf, np.inf), strict=True))
            if self.bounds and len(set(self.targets)) == 2
            else {}
        )
        # A column of clusters that has another role keeps its type.
        lenient, computed, dated = self.lenient(names), self.computed_columns, self.term_columns
        others = {*(self.features or ()), *self.targets, self.time, self.id, *numeric, *computed}
        text = (*(self.categorical or ()), *((self.group,) if self.group and self.group not in computed else ()))
        text += tuple(name for name in self.clusters if name not in others)
        roles = {*self.targets, *numeric, self.event, self.id, self.group, self.time, *self.clusters}
        days = {*self.dates, *computed} | ({*(self.features or {*names} - roles)} - dated if "." in computed else set())
        return Cells(text, numeric, self.id, self.missing, lenient, ends, self.time, days - {*text}, dated - days)

    def lenient(self, names: Iterable[str]) -> set[str]:
        """The columns among `names` whose missing cells are kept, neither an error nor a reason to drop the row."""
        roles = {self.offset, self.exposure, self.weight, self.event, self.group, self.time, *self.targets}
        roles |= {self.trials, *self.clusters}
        kept = {self.id, *(self.targets if self.prediction or self.partial else ())}
        kept |= {self.weight, self.event} if self.prediction else set()
        return {name for name in names if name in kept or (self.missing == "impute" and name not in roles)}

    def check_split(self) -> None:
        """Check the settings of the split.

        Raises:
            UsageError: a fraction outside [0, 1), a negative seed, or columns that do not go with `split`.
        """
        for setting in ("test_fraction", "validation_fraction"):
            share = getattr(self, setting)
            if not 0 <= share < 1:
                raise UsageError(f"data.{setting}={share} is not a share of the rows\n  expected: from 0 to below 1")
        if self.seed < 0:
            raise UsageError(f"data.seed={self.seed}: expected a whole number of at least 0")
        self.splitter.check()
