"""The design columns of a formula for each distribution parameter, learnt from the training rows."""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.days import span
from mlefw.reading.formula import Terms, check_columns, quoted, read_shift, read_terms
from mlefw.reading.levels import numbers
from mlefw.reading.table import Table
from mlefw.schema.feature import Feature, Unseen
from mlefw.schema.formula_library import evaluated
from mlefw.schema.formula_state import FormulaState, learn_state
from mlefw.schema.frames import Frames
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
        quantiles: values of each other numeric column of a formula in the training rows, from the least to the greatest
            in equal shares of the rows, for pictures; empty before the training rows are known.
    """

    parameters: tuple[ParameterTerms, ...]
    plain: tuple[str, ...] = ()
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)
    quantiles: dict[str, tuple[float, ...]] = field(default_factory=dict)

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

    def check_response(self, targets: Collection[str | None]) -> None:
        """Check that no term reads a target.

        Raises:
            UsageError: naming the term and the target.
        """
        for one in self.parameters:
            for name in one.columns:
                if name in targets:
                    raise UsageError(
                        f"terms.{one.parameter}: column {name!r} is the target, and stands among the terms"
                    )

    @property
    def has_plain(self) -> bool:
        """Whether some parameter has no formula, and so all features."""
        return any(one.text is None for one in self.parameters)

    @property
    def columns(self) -> list[str]:
        """The columns that the formulas read, in order."""
        return list(dict.fromkeys(name for one in self.parameters for name in one.columns))

    @property
    def groupings(self) -> set[str]:
        """The columns that name the groups of effects alone."""
        return set() if self.has_plain else set(self.columns) - self._evaluated

    @property
    def names(self) -> list[str]:
        """Names of the design columns of all formulas, each once: equal terms of two parameters share their columns."""
        return list(dict.fromkeys(name for one in self.parameters for name in one.names))

    def terms(self, plain: Mapping[str, list[int]]) -> dict[str, dict[str, list[int]]]:
        """Positions of the design columns of each term by parameter; under "" those of all columns of eta alike.

        Smooth terms and effects of groups, whose coefficients have priors, are not among them.

        Args:
            plain: positions of the design columns of each feature without a formula, which come first.
        """
        start = sum(map(len, plain.values()))
        position = {name: start + k for k, name in enumerate(self.names)}
        found = {}
        for one in self.parameters:
            known = () if one.state is None else one.state.terms
            own = {term.label: [position[one.names[k]] for k in term.columns] for term in known}
            found["" if len(self.parameters) == 1 else one.parameter] = dict(plain) if one.text is None else own
        return found

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
        found, quantiles = [], dict[str, tuple[float, ...]]()
        for one in self.parameters:
            terms, where = one.terms, f"terms.{one.parameter}"
            frames = whole._frames(features)
            frame, _ = frames.frame(table, None, one.evaluated_columns)
            levels = {name: frames.categories(by_name[name]) for name in terms.columns}
            for name in (name for name, known_levels in levels.items() if known_levels is None and name in frame):
                quantiles[name] = _quantiles(frame[name].to_numpy()[index])
            state = learn_state(terms, frame, index, levels, where) if terms.text else None
            random = learn_random_terms(terms, frame, table, index, weight, levels, where)
            found.append(replace(one, state=state, random=random))
        return replace(whole, parameters=tuple(found), quantiles=quantiles)

    @property
    def _evaluated(self) -> set[str]:
        """The columns that the formulas compute with."""
        return {name for one in self.parameters for name in one.evaluated_columns}

    def _frames(self, features: Sequence[Feature]) -> Frames:
        stated = [key for one in self.parameters if one.state is not None for key in one.state.categories]
        return Frames(features, self.numbers, self.shares, stated)

    def fill(self, x: np.ndarray, features: Sequence[Feature], table: Table, unseen: Unseen) -> None:
        """Write the design columns of all formulas into x, (n, len(names)), in blocks of rows.

        Of an unknown level the columns are those of the reference, or with `ignore` their means over the levels, by the
        shares of these in the training rows.

        Raises:
            UsageError: a level is unknown, or a term is not finite in some rows.
        """
        position = {name: k for k, name in enumerate(self.names)}
        frames, read = self._frames(features), self._evaluated
        for index, part in _blocks(table):
            frame, unknown = frames.frame(part, unseen, read)
            averaged = unknown if unseen == "ignore" else {}
            for one in self.parameters:
                where, blocks = f"terms.{one.parameter}", []
                if one.state is not None:

                    def columns(frame: Any, part: Table, one: ParameterTerms = one, where: str = where) -> np.ndarray:
                        assert one.state is not None
                        return one.state.columns(one.terms, frame, part, where)

                    names = [name for name in one.terms.columns if name in averaged]
                    blocks.append(frames.averaged(columns, frame, part, averaged, names))
                blocks += [term.columns(frame, part, where) for term in one.random]
                if blocks:
                    x[index[:, None], [position[name] for name in one.names]] = np.concatenate(blocks, 1)

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
            frames, read = self._frames(features), self._evaluated
            for index, part in _blocks(table):
                frame, _ = frames.frame(part, "reference", read)
                for one in self.parameters:
                    where = f"terms.{one.parameter}"
                    if one.state is not None:
                        for call, rows, low, high in one.state.beyond(frame, part, where):
                            yield call, span(table, one.state.ranges[call][0], low, high), index, rows
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
        read = {name for one in self.parameters for part in one.offsets for name in read_shift(part).columns}
        frames = self._frames(features)
        for index, part in _blocks(table):
            frame, _ = frames.frame(part, unseen, read)
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

        The parameters of each of several targets have the same formulas.

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
        return np.tile(used, (eta_dim // len(used), 1))


def _blocks(table: Table) -> Iterator[tuple[np.ndarray, Table]]:
    """Positions of blocks of rows, and these rows."""
    for start in range(0, table.num_rows, BLOCK):
        index = np.arange(start, min(start + BLOCK, table.num_rows))
        yield index, table if len(index) == table.num_rows else table.take(index)


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """Values (n,) at equal shares of the rows, the least and the greatest among them."""
    return tuple(np.quantile(values, np.linspace(0, 1, 101), method="nearest").tolist())


def _without_dot(text: str, everything: str) -> str:
    """A formula with its `.` written out."""
    return re.sub(r"(?<![\w.)`])\.(?![\w.])", f"({everything})", text)
