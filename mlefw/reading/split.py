"""How the rows of a table are shared out among test, validation and training rows."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.columns import require, shown
from mlefw.reading.levels import check_whole, factorize, is_text, numbers
from mlefw.reading.shares import Parts, drawn, grouped, in_time, stratified
from mlefw.reading.table import Table

Rule = Literal["random", "stratified", "group", "time"]

NUM_STRATA = 10
"""Deciles of a numeric target."""


@dataclass(frozen=True)
class Split:
    """The rule by which rows are shared out, and the columns that it looks at.

    Attributes:
        rule: `random`; `stratified` by classes, or by deciles of a number; whole `group`s; or the last rows in `time`.
        seed: of the draw.
        group: column of groups, of which each is in one part alone.
        time: column of times, numbers or dates, of which each is in one part alone.
        target: columns to predict.
        classes: whether the target is a class for each row, of which a stratum is made, or a number.
    """

    rule: Rule
    seed: int
    group: str | None
    time: str | None
    target: tuple[str, ...]
    classes: bool

    def check(self) -> None:
        """Hold the columns to the rule.

        Raises:
            UsageError: a rule that tables do not have, a rule without its column, a column without its rule, or several
                targets to stratify by.
        """
        if self.rule not in get_args(Rule):
            raise UsageError(
                f"data.split={self.rule} is for text\n  expected: {', '.join(get_args(Rule))}, for rows of a table"
            )
        if self.group and self.time:
            raise UsageError(
                f"data.group={self.group} and data.time={self.time} both say how rows are split"
                "\n  expected: one of them"
            )
        for name in ("group", "time"):
            column = getattr(self, name)
            if column and self.rule != name:
                raise UsageError(
                    f"data.{name}={column} says how rows are split, and so does data.split={self.rule}"
                    f"\n  expected: data.split={name}, or no data.{name}"
                )
            if not column and self.rule == name:
                raise UsageError(f"data.split={name} needs data.{name}=COLUMN, which says how rows are split")
        if self.rule == "stratified" and len(self.target) > 1:
            raise UsageError(
                f"data.split=stratified follows one target, and data.target names {shown(self.target)}"
                "\n  expected: data.split=random, or a single target"
            )

    def share_out(self, table: Table, index: np.ndarray, counts: Mapping[str, int]) -> Parts:
        """Share out the rows of a table at `index`, (n,), sorted; each part keeps their order.

        Args:
            table: holds the columns that the rule looks at.
            index: positions of the rows.
            counts: how many rows each part is to have, beside `train`. Whole groups and equal times come as near to it
                as they can.

        Raises:
            UsageError: groups or times are missing, or too few for the parts.
        """
        rng = np.random.default_rng(self.seed)
        if self.rule == "stratified":
            labels, strata = self.strata(table)
            parts = stratified(strata[index], counts, rng)
            warn_of_scarce(labels, strata[index], 1 + sum(count > 0 for count in counts.values()), "parts")
        elif self.rule == "group":
            parts = grouped(self.groups(table)[1][index], counts, rng, f"{table.origin}: data.group={self.group}")
        elif self.rule == "time":
            parts = in_time(self.moments(table)[index], counts, f"{table.origin}: data.time={self.time}")
        else:
            parts = drawn(len(index), counts, rng)
        return {name: np.sort(index[positions]) for name, positions in parts.items()}

    def strata(self, table: Table) -> tuple[list[str], np.ndarray]:
        """Names of the strata, and the stratum of each row, (n,): its class, or the decile of its number.

        Raises:
            UsageError: a target that is missing, or text where a number is to be.
        """
        (name,) = self.target
        require([name], table.columns, table.origin, "data.target")
        check_whole(table, name, "data.target")
        if self.classes or is_text(table.columns[name]):
            return factorize(table.columns[name])
        values = numbers(table, name, "data.target")
        edges = np.unique(np.quantile(values, np.arange(1, NUM_STRATA) / NUM_STRATA))
        _, code = np.unique(np.searchsorted(edges, values), return_inverse=True)
        return [f"decile {k + 1}" for k in range(int(code.max()) + 1)], code

    def groups(self, table: Table) -> tuple[list[str], np.ndarray]:
        """Names of the groups, and the group of each row, (n,).

        Raises:
            UsageError: a group that is missing.
        """
        assert self.group is not None
        require([self.group], table.columns, table.origin, "data.group")
        check_whole(table, self.group, "data.group")
        return factorize(table.columns[self.group])

    def moments(self, table: Table) -> np.ndarray:
        """The time of each row as a number, (n,).

        Raises:
            UsageError: a time that is missing, or neither a number nor a date.
        """
        assert self.time is not None
        require([self.time], table.columns, table.origin, "data.time")
        hint = " or dates, such as 2024-05-31 or 2024-05-31 12:30"
        if table.columns[self.time].dtype.kind == "b":
            raise UsageError(
                f"{table.origin}: column {self.time!r} (data.time) holds true and false\n  expected: numbers{hint}"
            )
        if table.columns[self.time].dtype.kind == "i":
            check_whole(table, self.time, "data.time")
            return table.columns[self.time]
        return numbers(table, self.time, "data.time", hint)

    def warn_of_leaks(self, train: Table, given: Table, name: str) -> None:
        """Say that given validation or test rows are of groups, or of times, that training rows have."""
        column = self.group if self.rule == "group" else self.time if self.rule == "time" else None
        if column is None:
            return
        if column not in given.columns:
            why = f"it has no column {column!r} (data.{self.rule})"
            message = f"{given.origin}: whether training rows are apart from these {name} rows is not known: {why}"
        elif self.rule == "group":
            shared = set(self.groups(train)[0]) & set(self.groups(given)[0])
            message = f"{given.origin}: groups of {name} rows that training rows have, too: {shown(sorted(shared), 5)}"
            message = message if shared else ""
        else:
            early = self.moments(given) <= self.moments(train).max()
            message = f"{given.origin}: {int(early.sum())} {name} rows are not later than all training rows"
            message = message if early.any() else ""
        if message:
            warnings.warn(message, UserWarning, stacklevel=3)


def warn_of_scarce(labels: Sequence[str], strata: np.ndarray, num_parts: int, what: str) -> None:
    """Say which strata have fewer rows than there are parts, so that some part has none of it."""
    sizes = np.bincount(strata, minlength=len(labels))
    scarce = [label for label, size in zip(labels, sizes, strict=True) if 0 < size < num_parts]
    if scarce:
        message = (
            f"data.split=stratified: fewer than {num_parts} rows, one for each of the {what}, have {shown(scarce, 5)}"
        )
        warnings.warn(message, UserWarning, stacklevel=4)
