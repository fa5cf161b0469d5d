"""`Schema`, the meaning of a table's columns, learnt from the training rows and stored with the model."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mlefw.configuration.record import typed
from mlefw.data.base import Source
from mlefw.errors import MisfitError
from mlefw.reading.cells import Missing
from mlefw.reading.columns import require, warn_of_constants, warn_of_copies
from mlefw.reading.levels import BOOLEANS
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.schema.design import Design
from mlefw.schema.event import Event, as_bounds, learn_event
from mlefw.schema.feature import Feature, Unseen, check_dates, check_design_names, learn_feature, term_columns
from mlefw.schema.identifier import check_numbered
from mlefw.schema.roles import check_roles, learn_targets, offsets, weights
from mlefw.schema.target import Target, TargetKind, coded, coded_together
from mlefw.schema.trials import with_trials

_BLOCK = 2**18
"""Rows worked on at a time."""

_ROLES = ("offset", "exposure", "weight", "id")
_WAYS = ("missing", "unseen", "partial", "bounds", "trials")
"""Fields that the source states alike."""


@dataclass(frozen=True)
class Schema:
    """Features, targets and roles by name of their columns.

    With `partial` a target may be missing in a row that has another; with `bounds` the two targets are the bounds of
    one number. With `event` the target is a time, which has no upper bound if the event was not observed. With `trials`
    the target counts successes out of the number of trials in that column.
    """

    targets: tuple[Target, ...]
    features: tuple[Feature, ...]
    offset: str | None = None
    exposure: str | None = None
    weight: str | None = None
    id: str | None = None
    missing: Missing = "error"
    unseen: Unseen = "error"
    partial: bool = False
    bounds: bool = False
    event: Event | None = None
    design: Design | None = None
    """The formulas of the distribution parameters, where any has one."""
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The lowest and highest value of each numeric column in the training rows."""
    trials: str | None = None

    @classmethod
    def learn(cls, table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> "Schema":
        """The schema of a table with the roles that a source names.

        Args:
            table: all rows that will be split at random. Levels come from all of them, so that no split has an unknown
                level; this leaks nothing, as a level without a training row only adds a column of zeros.
            source: the source, which names the roles.
            kind: kind of target that the head takes; a mapping by target if the heads of several targets differ.

        Raises:
            UsageError: a column does not exist, has two roles, or holds values that its role does not allow.
        """
        check_roles(table, source)
        roles = {*source.targets, source.event, source.trials, source.offset, source.exposure, source.weight, source.id}
        roles |= {source.group, source.time, source.variance_weight, *source.shift_columns, *source.clusters}
        names = source.features if source.features is not None else [n for n in table.columns if n not in roles]
        design = None
        if source.terms:
            design = Design.of(source.terms, source.shifts or {}, names, list(table.columns), table.origin)
            design.check_response({*source.targets, source.event})
            names = list(dict.fromkeys([*(names if design.has_plain else ()), *design.columns]))
        listed = set(source.categorical or ())
        require(listed - {*source.targets}, names, table.origin, "data.categorical, not a feature")
        insisted = set(source.features or ()) | (set(names) if source.weight or design else set())
        groupings = design.groupings if design else set()
        features = tuple(
            learn_feature(table, name, name in listed, name in insisted, name in groupings)
            for name in table.one_by_one(names)
        )
        if source.features is None and design is None:
            numeric = [feature.name for feature in features if feature.kind == "numeric"]
            for name in table.one_by_one(name for name in numeric if name not in table.holes):
                check_numbered(table, name, len(names) == 1, source.weight is not None)
        schema = cls(
            learn_targets(table, source, kind),
            features,
            event=learn_event(table, source.event, source.event_code) if source.event else None,
            design=design,
            **{name: getattr(source, name) for name in (*_ROLES, *_WAYS)},
        )
        if not features:
            warnings.warn(f"{table.origin}: no feature: the model is an intercept", UserWarning, stacklevel=2)
        warn_of_constants(table, table.one_by_one(names))
        warn_of_copies(table, table.one_by_one(names))
        return schema

    def of_training(self, table: Table, index: np.ndarray) -> "Schema":
        """The schema with replacements of missing and unknown values, learnt from the training rows at `index`.

        Columns are read one after the other, because all rows may exceed the memory.

        Raises:
            UsageError: no training row has a feature.
        """
        weight = self._weight(table.only([self.weight]).take(index)) if self.weight else None

        def blocks(name: str) -> Iterator[tuple[Table, np.ndarray]]:
            some = table.only([name, self.weight or name])
            for start in range(0, len(index), _BLOCK):
                part = some.take(index[start : start + _BLOCK])
                yield part, self._weight(part, whole=False)
                table.release()

        impute = self.missing == "impute"
        schema = replace(self, features=tuple(f.learn_means(blocks(f.name), impute) for f in self.features))
        check_design_names(schema.plain_features, table.origin)
        if self.design is None:
            return schema
        weight = np.ones(len(index)) if weight is None else weight
        return replace(schema, design=self.design.learn(schema.features, table, index, weight))

    @property
    def target(self) -> str:
        """The name of the target; for several, all names, separated by commas."""
        return ", ".join(target.name for target in self.targets)

    @property
    def observed(self) -> list[str]:
        """The columns that are observed of a row: the targets, and the event column if there is one."""
        return [target.name for target in self.targets] + ([self.event.name] if self.event is not None else [])

    @property
    def kind(self) -> TargetKind:
        """Kind of the target, or of the first of several."""
        return self.targets[0].kind

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of a single target that has labels; None otherwise."""
        return self.targets[0].labels if len(self.targets) == 1 else None

    @property
    def all_labels(self) -> list[str] | dict[str, list[str] | None] | None:
        """The labels of the target, None for a number; for several targets, by name."""
        known = {t.name: None if t.labels is None else list(t.labels) for t in self.targets}
        return known if len(known) > 1 else known[self.targets[0].name]

    @property
    def names(self) -> list[str]:
        """Names of the design columns: the column, or `column=level` for a level that is not the reference.

        Those of formulas come after them.
        """
        return self.plain_names + ([] if self.design is None else self.design.names)

    @property
    def plain_features(self) -> tuple[Feature, ...]:
        """The features that are coded without a formula: all, unless every parameter has a formula."""
        if self.design is None:
            return self.features
        return tuple(f for f in self.features if self.design.has_plain and f.name in self.design.plain)

    @property
    def plain_names(self) -> list[str]:
        """Names of the design columns of the features that are coded without a formula."""
        return [name for feature in self.plain_features for name in feature.names]

    @property
    def terms(self) -> dict[str, dict[str, list[int]]]:
        """Positions of the design columns of each term by distribution parameter; under "" those of every parameter.

        A term is a feature with all its columns, or a term of a formula.
        """
        plain = term_columns(self.plain_features)
        return {"": plain} if self.design is None else self.design.terms(plain)

    def used(self, eta_dim: int) -> torch.Tensor | None:
        """Whether each column of eta has each design column, and an intercept, (eta_dim, num_features + 1) booleans.

        None where all have all, as without a formula, and no coefficient has a prior of its own.
        """
        if self.design is None:
            return None
        used = torch.from_numpy(self.design.used(self.plain_names, eta_dim))
        return None if bool(used.all()) and not self.is_penalised else used

    @property
    def is_penalised(self) -> bool:
        """Whether a formula has smooth terms or effects of groups."""
        return self.design is not None and any(one.random for one in self.design.parameters)

    @property
    def row_shape(self) -> RowShape:
        """What a model may ask of the shape of a row."""
        return RowShape((self.num_features,))

    @property
    def num_features(self) -> int:
        """Number of design columns."""
        return len(self.names)

    @property
    def token_bytes(self) -> None:
        """None: rows hold no text."""

    def adapted(self, **ways: Any) -> "Schema":
        """The schema with other ways to treat `missing` and `unseen` values."""
        return replace(self, **ways)

    def columns_of(self, features: Iterable[str] | None, setting: str) -> list[int]:
        """Positions of the design columns of some features, by default all, in order.

        Raises:
            UsageError: a name is not a feature; the message suggests the nearest one.
        """
        present = [one.name for one in self.plain_features]
        wanted = list(present if features is None else features)
        require(wanted, present, "the model", setting)
        chosen = [feature.name in wanted for feature in self.plain_features for _ in feature.names]
        chosen += [True] * (self.num_features - len(chosen))
        return [j for j, taken in enumerate(chosen) if taken]

    def reading(self, source: Source, prediction: bool = False) -> Source:
        """The source, set to read the columns of the model with their types in training: a text `007` stays text.

        With `prediction` the target may be missing.
        """
        text = [f.name for f in self.features if f.kind == "category" and f.levels != BOOLEANS]
        text += [one.name for one in (*self.targets, self.event) if one is not None and one.is_text]
        names = [target.name for target in self.targets], [feature.name for feature in self.features]
        event = None if self.event is None else self.event.name
        same = {role: getattr(self, role) for role in (*_ROLES, "trials", "missing")}
        reading = replace(source, target=names[0], features=names[1], event=event, categorical=text, **same)
        reading.numeric = tuple(f.name for f in self.features if f.kind == "numeric")
        reading.numeric += tuple(target.name for target in self.targets if target.labels is None)
        reading.prediction, reading.partial, reading.bounds = prediction, self.partial, self.bounds
        # The columns that training needs beside those of the model, such as groups, need not be there.
        reading.checks_names, reading.dates = False, tuple(f.name for f in self.features if f.is_date)
        return reading

    def rows(self, table: Table, log_link: bool, target_required: bool = True, whole: bool = True) -> Rows:
        """Encoded rows: x (n, num_features), y (n,), (n, num_targets) or (n, 2) with trials, weight (n,), offset (n,).

        Args:
            table: the table, with columns in any order; additional ones are ignored.
            log_link: whether the head has a log link and so takes an exposure.
            target_required: whether targets must be present; otherwise a missing one is NaN (code −1), and weights 1.
            whole: whether the table is complete, so that some weight has to be positive.

        Raises:
            UsageError: a column is missing, a level is unknown, or a value is not allowed in its role.
            MisfitError: there is an exposure, and the head has no log link.
        """
        if self.exposure and not log_link:
            raise MisfitError(
                f"data.exposure={self.exposure} needs a head with a log link, e.g. head=poisson"
                "\n  for other heads use data.offset, which is added to eta as it is"
            )
        asked = [feature.name for feature in self.features]
        asked += [name for name in (self.offset, self.exposure, self.trials) if name]
        asked += [name for name in (*self.observed, self.weight) if name and target_required]
        require(asked, table.columns, table.origin, "the model needs it")
        check_dates(self.features, table)
        if len(self.targets) == 1:
            y = coded(table, self.target, self.kind, self.labels, target_required)
            if self.event is not None:
                y = as_bounds(y, self.event.observed(table, target_required))
            if self.trials is not None:
                y = with_trials(table, y, self.target, self.trials)
        else:
            y = coded_together(table, self.targets, target_required, self.partial)
        weight = self._weight(table, whole) if target_required else np.ones(table.num_rows)
        columns = (self._x(table), y, weight, self._offset(table))
        # torch does not support the read-only arrays that a memory-mapped file gives.
        return Rows(*(torch.from_numpy(np.require(column, None, ["C", "W"])) for column in columns))

    def to_dict(self) -> dict[str, Any]:
        """The schema as dicts, lists and plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, plain: Any) -> "Schema":
        """The schema from the content of `to_dict`.

        Raises:
            UsageError: the content is not that of a schema.
        """
        return typed(cls, plain, "schema")

    def _x(self, table: Table) -> np.ndarray:
        x = np.zeros((table.num_rows, self.num_features))
        start = 0
        for feature in self.plain_features:
            stop = start + len(feature.names)
            feature.fill(x[:, start:stop], table, self.unseen)
            start = stop
        if self.design is not None:
            self.design.fill(x[:, start:], self.features, table, self.unseen)
        return x

    def _offset(self, table: Table) -> np.ndarray:
        known = offsets(table, self.offset, self.exposure)
        of_terms = None if self.design is None else self.design.offsets(self.features, table, self.unseen)
        if of_terms is None:
            return known
        if of_terms.ndim == 1:
            return np.asarray(known + of_terms)
        of_terms[:, 0] += known
        return of_terms

    def _weight(self, table: Table, whole: bool = True) -> np.ndarray:
        return weights(table, self.weight, whole)
