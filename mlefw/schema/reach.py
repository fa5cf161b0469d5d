"""The range of the training rows, and rows that lie outside it by orders of magnitude."""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mlefw.reading.table import Table, listed
from mlefw.rows.rows import Rows
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema

_FAR = 100.0
"""Distance from the middle of the training range, in half-widths, above which a value is far outside."""

_OUTLYING = 1000.0
"""Multiple of the distance of 99 % of training rows from the median, above which a training row is an outlier that
does not extend the range."""

_BLOCK = 2**18
"""Rows worked on at a time."""
_SHOWN, _NAMED = 3, 5
"""Most columns in a message, and most rows for each."""


def with_spans(schema: RowSchema, rows: Rows) -> RowSchema:
    """A schema of columns with the range of each numeric one in the training rows; one of arrays as it is."""
    return replace(schema, spans=spans(schema, rows)) if isinstance(schema, Schema) else schema


def spans(schema: Schema, rows: Rows) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each numeric column in the training rows, without outliers.

    Rows in files are read once only, so that outliers are not excluded.
    """
    found: dict[str, tuple[float, float]] = {}
    for block in rows.blocks(_BLOCK) if type(rows) is not Rows else [rows]:
        for name, values in _columns(schema, block):
            kept = values[np.isfinite(values)]
            kept = kept[~_outlying(kept)] if type(rows) is Rows else kept
            if len(kept):
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = min(low, float(kept.min())), max(high, float(kept.max()))
    return found


def far_cells(schema: RowSchema, rows: Rows) -> dict[str, np.ndarray]:
    """For each column with far values, whether each row's value is far outside the training range, (n,)."""
    found = {}
    for name, values in _columns(schema, rows):
        low, high = _spans(schema).get(name, (-np.inf, np.inf))
        half = (high - low) / 2 or max(abs(low), 1.0)
        # Halved before they are added, because the sum of two large ends could overflow.
        far = np.abs(values - (low / 2 + high / 2)) > _FAR * half
        if far.any():
            found[name] = far
    return found


def far_rows(schema: RowSchema, rows: Rows) -> np.ndarray:
    """Whether each row has a value far outside the training range, (n,), so that figures over it are meaningless."""
    return np.logical_or.reduce([np.zeros(rows.num_rows, dtype=bool), *far_cells(schema, rows).values()])


class _BeyondTerms:
    """Collects, over blocks of rows, rows for which a formula extrapolates, and rows of unknown groups."""

    def __init__(self) -> None:
        self.counts, self.places = Counter[tuple[str, str]](), dict[tuple[str, str], list[str]]()

    def add(self, schema: Schema, table: Table, index: np.ndarray | None) -> None:
        """Add the rows of a block: those at `index` of a table, or all of them."""
        if schema.design is None:
            return
        table = table if index is None else table.take(index)
        for label, how, places_of, rows in schema.design.beyond(schema.features, table):
            where = places_of[rows]
            places = self.places.setdefault((label, how), [])
            places += table.called(where[: _NAMED - len(places)])
            self.counts[label, how] += len(where)

    def messages(self, origin: str) -> Iterator[str]:
        """What there is to say."""
        found = {key: listed(places, self.counts[key]) for key, places in self.places.items() if self.counts[key]}
        far = [f"{label} in {where} (training: {how})" for (label, how), where in found.items() if how != "group"]
        new = [f"{label} in {where}" for (label, how), where in found.items() if how == "group"]
        if far:
            yield f"{origin}: terms go on beyond the values of training: {'; '.join(far)}"
        if new:
            yield (
                f"{origin}: groups that no training row has, whose effects are taken as zero; intervals leave out the "
                f"spread between groups: {'; '.join(new)}"
            )


class FarRows:
    """Collects values far outside the training range over blocks of rows, for one short warning.

    With formulas also rows for which terms extrapolate, and rows of unknown groups, for a warning each.

    Args:
        schema: the schema, which has the training range of each column.
    """

    def __init__(self, schema: RowSchema) -> None:
        self.schema, self.origins, self.terms = schema, dict[str, None](), _BeyondTerms()
        self.counts, self.values, self.places = Counter[str](), dict[str, float](), dict[str, list[str]]()

    def add(self, rows: Rows, table: Table, index: np.ndarray | None = None) -> None:
        """Add the far values of a block.

        Args:
            rows: encoded rows.
            table: the table that the rows come from.
            index: positions of the rows in the table; by default they are the whole table.
        """
        self.origins.setdefault(table.origin)
        if isinstance(self.schema, Schema):
            self.terms.add(self.schema, table, index)
        for name, far in far_cells(self.schema, rows).items():
            where = np.sort(np.flatnonzero(far) if index is None else index[far])
            first = next(values for one, values in _columns(self.schema, rows) if one == name)[np.argmax(far)]
            places = self.places.setdefault(name, [])
            places += table.called(where[: _NAMED - len(places)])
            self.values.setdefault(name, float(first))
            self.counts[name] += len(where)

    def warn(self) -> None:
        """Warn of the far values, if there are any."""
        others = f" and {len(self.origins) - 1} more" if len(self.origins) > 1 else ""
        for message in self.terms.messages(f"{next(iter(self.origins), '')}{others}"):
            warnings.warn(message, UserWarning, stacklevel=2)
        if not self.counts:
            return
        known = _spans(self.schema)
        said = [
            f"column {name!r}, {listed(places, self.counts[name])}: {self.values[name]:.6g},"
            f" others {known[name][0]:.6g} to {known[name][1]:.6g}"
            for name, places in [*self.places.items()][:_SHOWN]
        ]
        more = f"; and {len(self.counts) - _SHOWN} more columns" if len(self.counts) > _SHOWN else ""
        message = (
            f"{next(iter(self.origins))}{others} has values far beyond (all other) training rows: {'; '.join(said)}"
        )
        warnings.warn(message + more, UserWarning, stacklevel=2)


def warn_of_far_rows(schema: RowSchema, rows: Rows, table: Table, index: np.ndarray | None = None) -> None:
    """Warn of values of a single block that are far outside the training range, see `FarRows`."""
    far = FarRows(schema)
    far.add(rows, table, index)
    far.warn()


def _columns(schema: RowSchema, rows: Rows) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values (n,) of each numeric feature, numeric target, and the offset; none of arrays."""
    if not isinstance(schema, Schema):
        return
    position = 0
    for feature in schema.plain_features:
        if feature.kind == "numeric":
            yield feature.name, rows.x[:, position].numpy()
        position += len(feature.names)
    if schema.design is not None:
        numeric = {feature.name for feature in schema.features if feature.kind == "numeric"}
        for k, name in enumerate(schema.design.names):
            if name in numeric:
                yield name, rows.x[:, position + k].numpy()
    y = rows.y.numpy()
    for k, target in enumerate(schema.targets):
        if target.labels is None:
            # A time with an event is encoded as two bounds, of which the first is the time.
            yield target.name, y if y.ndim == 1 else y[:, k]
    if (shift := schema.offset or schema.exposure) and rows.offset.ndim == 1:
        yield shift, rows.offset.numpy()


def _spans(schema: RowSchema) -> dict[str, tuple[float, float]]:
    return schema.spans if isinstance(schema, Schema) else {}


def _outlying(values: np.ndarray) -> np.ndarray:
    """Whether each value is a thousand times as far from the median as 99 % of the values are, (n,)."""
    if len(values) < 3:
        return np.zeros(len(values), dtype=bool)
    distance = np.abs(values - np.median(values[:: max(1, len(values) // 10_000)]))
    rest = len(values) - 1 - max(1, len(values) // 100)
    reach = np.partition(distance, rest)[rest]
    return np.asarray((distance > _OUTLYING * reach) & (reach > 0))
