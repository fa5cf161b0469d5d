"""The design columns of a formula for each distribution parameter, learnt from the training rows."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mlefw.reading.formula import Terms, check_columns, quoted, read_shift, read_terms
from mlefw.reading.levels import codes, numbers, written
from mlefw.reading.table import Table
from mlefw.schema.feature import Feature, Unseen
from mlefw.schema.formula_state import FormulaState, category_of, evaluated, learn_state, reference_of
from mlefw.schema.random_terms import RandomTerm, learn_random_terms

BLOCK = 2**15
"""Rows whose columns are made at a time, since the library needs several copies of them."""


@dataclass(frozen=True)
class ParameterTerms:
    """The formula of one distribution parameter.

    Attributes:
        parameter: its name; or `eta` for all columns of eta of a head without named parameters.
        text: the right side of the formula, such as `1 + x + C(g)`; None where the parameter has all features, coded as
            without a formula.
        shifts: expressions of columns that are added to eta beside those of `offset(…)` in the text.
        state: what the training rows taught; None before, and without columns.
        random: smooth terms and effects of groups; empty before the training rows are known.
    """

    parameter: str
    text: str | None
    shifts: tuple[str, ...] = ()
    state: FormulaState | None = None
    random: tuple[RandomTerm, ...] = ()

    @cached_property
    def terms(self) -> Terms:
        """The terms, read and checked anew, since a stored text may have been changed."""
        return Terms("") if self.text is None else read_terms(self.text, f"terms.{self.parameter}")

    @property
    def offsets(self) -> tuple[str, ...]:
        """Expressions of columns that are added to eta with a coefficient of one."""
        return self.terms.offsets + tuple(read_shift(one).offsets[0] for one in self.shifts)

    @property
    def columns(self) -> list[str]:
        """The columns that terms and shifts read, in order."""
        parts = [self.terms, *(read_shift(one) for one in self.shifts)]
        return list(dict.fromkeys(name for part in parts for name in part.columns))

    @cached_property
    def evaluated_columns(self) -> list[str]:
        """The columns that terms and shifts compute with: all but those that name the groups of effects of groups."""
        terms, where = self.terms, f"terms.{self.parameter}"
        texts = [terms.text, *terms.smooths, *(group.partition("|")[0] for group in terms.groups)]
        parts = [read_terms(text, where) for text in texts if text.strip()]
        parts += [read_shift(one) for one in self.offsets]
        return list(dict.fromkeys(name for part in parts for name in part.columns))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the design columns, without the intercept."""
        plain = () if self.state is None else self.state.names
        return plain + tuple(name for term in self.random for name in term.names)


@dataclass(frozen=True)
class Design:
    """The formulas of the parameters that a head predicts.

    Attributes:
        parameters: the formulas, one for each column of eta in its order; or a single one for all columns.
        plain: names of the features of parameters without a formula, which are coded as without one.
        numbers: values of numeric columns that `C(…)` makes categories of.
        shares: shares of these values in the training rows.
    """

    parameters: tuple[ParameterTerms, ...]
    plain: tuple[str, ...] = ()
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        texts: Mapping[str, str | None],
        shifts: Mapping[str, Sequence[str]],
        plain: Sequence[str],
        known: Sequence[str],
        origin: str,
    ) -> "Design":
        """The formulas of a run, `.` replaced by all features.

        Args:
            texts: the right side of the formula of each parameter.
            shifts: expressions that are added to the eta of some parameters.
            plain: the features of parameters without a formula, and those that `.` stands for.
            known: the columns of the table.
            origin: where the table comes from, for messages.

        Raises:
            UsageError: a formula cannot be read, or names a column that does not exist.
        """
        found = []
        for parameter, text in texts.items():
            one = ParameterTerms(parameter, text, tuple(shifts.get(parameter, ())))
            if text is not None and "." in one.terms.columns:
                everything = " + ".join(map(quoted, plain)) or "1"
                one = replace(one, text=_without_dot(text, everything))
            check_columns(one.columns, known, f"terms.{parameter}", origin)
            found.append(one)
        return cls(tuple(found), tuple(plain))

    @property
    def has_plain(self) -> bool:
        """Whether some parameter has no formula, and so all features."""
        return any(one.text is None for one in self.parameters)

    @property
    def columns(self) -> list[str]:
        """The columns that the formulas read, in order."""
        return list(dict.fromkeys(name for one in self.parameters for name in one.columns))

    @property
    def names(self) -> list[str]:
        """Names of the design columns of all formulas, each once: equal terms of two parameters share their columns."""
        return list(dict.fromkeys(name for one in self.parameters for name in one.names))

    def learn(self, features: Sequence[Feature], table: Table, index: np.ndarray, weight: np.ndarray) -> "Design":
        """The design with what its terms take from the training rows at `index`: means, knots, levels.

        Levels and the range of splines come from all rows, so that no split has an unknown one. `weight` holds the
        weights of the training rows.

        Raises:
            UsageError: a term cannot be computed.
        """
        by_name = {feature.name: feature for feature in features}
        listed = dict.fromkeys(name for one in self.parameters for name in one.terms.categories)
        known, shares = dict[str, tuple[float, ...]](), dict[str, tuple[float, ...]]()
        for name in listed:
            if by_name[name].kind == "numeric":
                values = np.unique(numbers(table.present(name)[0], name, "C()"))
                present, taken = table.only([name]).take(index).present(name)
                counts = np.bincount(np.searchsorted(values, numbers(present, name, "C()")), weight[taken], len(values))
                known[name], shares[name] = tuple(values.tolist()), tuple((counts / counts.sum()).tolist())
        whole = replace(self, numbers=known, shares=shares)
        found = []
        for one in self.parameters:
            terms, where = one.terms, f"terms.{one.parameter}"
            frame, _ = whole.frame(features, table, None, one.evaluated_columns)
            levels = {name: whole.categories(by_name[name]) for name in terms.columns}
            state = learn_state(terms, frame, index, levels, where) if terms.text else None
            random = learn_random_terms(terms, frame, table, index, weight, levels, where)
            found.append(replace(one, state=state, random=random))
        return replace(whole, parameters=tuple(found))

    def categories(self, feature: Feature) -> list[Any] | None:
        """The levels of a column as the library sees them; None for a number that is no category."""
        if feature.kind == "category":
            return list(feature.levels)
        values = self.numbers.get(feature.name)
        if values is None:
            return None
        return [int(value) if all(float(v).is_integer() for v in values) else value for value in values]

    def frame(
        self, features: Iterable[Feature], table: Table, unseen: Unseen | None, only: Sequence[str] | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """A frame of pandas with the columns of the formulas, and the rows (n,) of unknown levels by column.

        Missing values are replaced as `data.missing` says, and unknown levels by the reference.

        Args:
            features: the features of the schema.
            table: the rows.
            unseen: what to do with unknown levels; None where there are none by construction.
            only: the columns to take; by default those that the formulas compute with.

        Raises:
            UsageError: a level is unknown, or a value is missing.
        """
        import pandas as pd

        every = (name for one in self.parameters for name in one.evaluated_columns)
        wanted, unknown = set(every if only is None else only), {}
        taken = {}
        for feature in features:
            if feature.name not in wanted:
                continue
            levels = self.categories(feature)
            if levels is None:
                taken[feature.name] = _filled(feature, table, unseen is not None)
                continue
            code, unknown[feature.name] = self._codes(feature, levels, table, unseen)
            as_text = feature.kind == "category"
            taken[feature.name] = pd.Categorical.from_codes(code, levels) if as_text else np.array(levels)[code]
        frame = pd.DataFrame(taken, index=np.arange(table.num_rows), copy=False)
        return frame, {name: mask for name, mask in unknown.items() if mask.any()}

    def _codes(
        self, feature: Feature, levels: list[Any], table: Table, unseen: Unseen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a column among its levels, (n,), and whether it holds an unknown one, (n,).

        Unknown levels and missing values have the position of the reference.
        """
        present, index = table.present(feature.name)
        known = tuple(written(level) for level in levels)
        setting = "a category" if feature.kind == "category" else f"a category by C({feature.name})"
        found = codes(present, feature.name, known, setting, unseen not in (None, "error"))
        reference = levels.index(self._reference(feature.name, levels))
        code = np.full(table.num_rows, reference, dtype=np.int64)
        code[index] = np.where(found < 0, reference, found)
        unknown = np.zeros(table.num_rows, dtype=bool)
        unknown[index] = found < 0
        if unseen is not None:
            _warn_of_holes(feature, table, f"reference level {levels[reference]!r}")
        return code, unknown

    def _reference(self, name: str, levels: list[Any]) -> Any:
        """The reference level of a column: that of the first term that states one."""
        stated = (key for one in self.parameters if one.state is not None for key in one.state.categories)
        return next((reference_of(key, levels) for key in stated if category_of(key) == name), levels[0])

    def _level_shares(self, feature: Feature) -> tuple[float, ...]:
        """Shares of the levels of a category in the training rows."""
        if feature.kind == "numeric":
            return self.shares[feature.name]
        others = feature.means[: len(feature.levels) - 1]
        return (1 - sum(others), *others)

    def fill(self, x: np.ndarray, features: Sequence[Feature], table: Table, unseen: Unseen) -> None:
        """Write the design columns of all formulas into x, (n, len(names)), in blocks of rows.

        Of an unknown level the columns are those of the reference, or with `ignore` their means over the levels, by the
        shares of these in the training rows.

        Raises:
            UsageError: a level is unknown, or a term is not finite in some rows.
        """
        position = {name: k for k, name in enumerate(self.names)}
        for index, part in _blocks(table):
            frame, unknown = self.frame(features, part, unseen)
            averaged = unknown if unseen == "ignore" else {}
            for one in self.parameters:
                where, blocks = f"terms.{one.parameter}", []
                if one.state is not None:

                    def columns(frame: Any, part: Table, one: ParameterTerms = one, where: str = where) -> np.ndarray:
                        assert one.state is not None
                        return one.state.columns(one.terms, frame, part, where)

                    names = [name for name in one.terms.columns if name in averaged]
                    blocks.append(self._averaged(columns, features, frame, part, averaged, names))
                blocks += [term.columns(frame, part, where) for term in one.random]
                if blocks:
                    x[index[:, None], [position[name] for name in one.names]] = np.concatenate(blocks, 1)

    def _averaged(
        self,
        columns: Callable[[Any, Table], np.ndarray],
        features: Sequence[Feature],
        frame: Any,
        table: Table,
        unknown: Mapping[str, np.ndarray],
        names: Sequence[str],
    ) -> np.ndarray:
        """Design columns of a block of rows; of unknown levels of the columns `names` the means over the known ones."""
        if not names:
            return columns(frame, table)
        name, *others = names
        found = self._averaged(columns, features, frame, table, unknown, others)
        some = np.flatnonzero(unknown[name])
        if not len(some):
            return found
        feature = next(one for one in features if one.name == name)
        levels = self.categories(feature)
        assert levels is not None
        part, fewer = table.take(some), {other: unknown[other][some] for other in others}
        mean = np.zeros((len(some), found.shape[1]))
        for level, share in zip(levels, self._level_shares(feature), strict=True):
            changed = frame.iloc[some].copy()
            changed[name] = level
            mean += share * self._averaged(columns, features, changed, part, fewer, others)
        found[some] = mean
        return found

    def beyond(self, features: Sequence[Feature], table: Table) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
        """For each term that is asked about rows unlike those of training: the term, how, positions, and which rows.

        How is the range of a spline, a smooth term or a polynomial in training, or `group` for groups without a
        training row. The last are whether each of the rows at these positions is one of them.

        Raises:
            UsageError: as `fill`.
        """
        with warnings.catch_warnings():
            # `fill` has told of unknown levels and missing values.
            warnings.simplefilter("ignore")
            for index, part in _blocks(table):
                frame, _ = self.frame(features, part, "reference")
                for one in self.parameters:
                    where = f"terms.{one.parameter}"
                    if one.state is not None:
                        for call, rows, low, high in one.state.beyond(frame, part, where):
                            yield call, f"{low:g} to {high:g}", index, rows
                    for term in one.random:
                        rows, how = term.beyond(frame, part, where)
                        yield term.label, how, index, rows

    def check(self) -> None:
        """Check that the library makes the columns that it made in training.

        Raises:
            UsageError: it is of another version, and makes others.
        """
        for one in self.parameters:
            where = f"terms.{one.parameter}"
            if one.state is not None:
                one.state.check(one.terms, where)
            for term in one.random:
                if term.inner is not None:
                    term.inner.check(read_terms(term.left, where), where)

    def offsets(self, features: Sequence[Feature], table: Table, unseen: Unseen) -> np.ndarray | None:
        """What `offset(…)` adds to eta: (n,) for its first column, (n, num_parameters) for several; None without any.

        Raises:
            UsageError: an offset is not finite in some rows.
        """
        if not any(one.offsets for one in self.parameters):
            return None
        found = np.zeros((table.num_rows, len(self.parameters)))
        read = [name for one in self.parameters for part in one.offsets for name in read_shift(part).columns]
        for index, part in _blocks(table):
            frame, _ = self.frame(features, part, unseen, read)
            for column, one in enumerate(self.parameters):
                for expression in one.offsets:
                    where = f"terms.{one.parameter}, offset({expression})"
                    found[index, column] += evaluated(expression, frame, part, where)
        return found if any(one.offsets for one in self.parameters[1:]) else found[:, 0].copy()

    def penalised(self, num_plain: int) -> list[tuple[int, RandomTerm, list[int]]]:
        """For each smooth term and effect of groups its column of eta, the term, and positions of penalised columns.

        Args:
            num_plain: number of design columns that come before those of formulas.
        """
        position = {name: num_plain + k for k, name in enumerate(self.names)}
        return [
            (k, term, [position[name] for name in term.names[: term.num_penalised]])
            for k, one in enumerate(self.parameters)
            for term in one.random
        ]

    def used(self, plain_names: Sequence[str], eta_dim: int) -> np.ndarray:
        """Whether each column of eta has each design column, (eta_dim, num_columns + 1); the last is the intercept.

        Args:
            plain_names: names of the design columns of parameters without a formula, which come first.
            eta_dim: number of columns of eta.
        """
        count, names = len(plain_names), self.names
        used = np.zeros((len(self.parameters), count + len(names) + 1), dtype=bool)
        for row, one in zip(used, self.parameters, strict=True):
            row[:count] = one.text is None
            row[count:-1] = [name in one.names for name in names]
            row[-1] = one.text is None or one.terms.intercept
        return np.broadcast_to(used, (eta_dim, used.shape[1])).copy() if len(used) == 1 else used


def _blocks(table: Table) -> Iterator[tuple[np.ndarray, Table]]:
    """Positions of blocks of rows, and these rows."""
    for start in range(0, table.num_rows, BLOCK):
        index = np.arange(start, min(start + BLOCK, table.num_rows))
        yield index, table if len(index) == table.num_rows else table.take(index)


def _filled(feature: Feature, table: Table, is_told: bool) -> np.ndarray:
    """A numeric column, (n,), with its mean in the training rows where it is missing, with a warning if `is_told`."""
    present, index = table.present(feature.name)
    values = np.full(table.num_rows, feature.means[0] if feature.means else np.nan)
    values[index] = numbers(present, feature.name, "a numeric feature")
    if is_told:
        _warn_of_holes(feature, table, "mean")
    return values


def _warn_of_holes(feature: Feature, table: Table, what: str) -> None:
    """Warn of missing values that the training rows had not."""
    if feature.name in table.holes and not feature.indicator:
        message = f"{table.origin}: column {feature.name!r} has missing values, which the training rows had not"
        hole = table.holes[feature.name]
        warnings.warn(f"{message} ({table.where(hole)}): the {what} is taken", UserWarning, stacklevel=2)


def _without_dot(text: str, everything: str) -> str:
    """A formula with its `.` written out."""
    return re.sub(r"(?<![\w.)`])\.(?![\w.])", f"({everything})", text)
