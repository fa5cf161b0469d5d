"""Rows of a table for a trained model in which one feature has other values."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.pooled import Pooled
from mlefw.schema.feature import Feature
from mlefw.schema.schema import Schema


@dataclass(frozen=True)
class FeatureRows:
    """The rows of a table, and the same rows with other values of a feature: all its design columns change together.

    Attributes:
        trained: the model, of a table.
        table: the rows, with features and targets.
    """

    trained: Trained
    table: Table

    @cached_property
    def schema(self) -> Schema:
        """What columns mean."""
        assert isinstance(self.trained.schema, Schema)
        return self.trained.schema

    @cached_property
    def rows(self) -> Rows:
        """The coded rows."""
        return self.trained.rows(self.table)

    @cached_property
    def spans(self) -> dict[str, slice] | None:
        """The design columns of each feature; None where a formula, or several models, code features together."""
        if self.schema.design is not None or isinstance(self.trained, Pooled):
            return None
        spans, stop = {}, 0
        for feature in self.schema.features:
            spans[feature.name] = slice(stop, stop + len(feature.names))
            stop += len(feature.names)
        return spans

    @property
    def names(self) -> list[str]:
        """The columns of the data that the model predicts from."""
        return [feature.name for feature in self.schema.features]

    def feature(self, name: str) -> Feature:
        """What the schema knows of a feature."""
        return next(feature for feature in self.schema.features if feature.name == name)

    def from_donors(self, name: str, donor: np.ndarray) -> Rows:
        """The rows, each with the feature of its donor, missing ones too; donor (n,) positions of rows."""
        if self.spans is None:
            return self._coded(name, self.table.columns[name][donor], donor)
        x, span = self.rows.x.clone(), self.spans[name]
        x[:, span] = self.rows.x[torch.from_numpy(donor)][:, span]
        return self.rows._replace(x=x)

    def with_values(self, name: str, values: np.ndarray) -> Rows:
        """The rows with other values of a feature, (n,), none of them missing."""
        if self.spans is None:
            return self._coded(name, values, None)
        x, span = self.rows.x.clone(), self.spans[name]
        block = np.zeros((self.table.num_rows, span.stop - span.start))
        dates = tuple({name} & {*self.table.dates})
        self.feature(name).fill(block, Table({name: values}, self.table.origin, dates=dates))
        x[:, span] = torch.from_numpy(block)
        return self.rows._replace(x=x)

    def _coded(self, name: str, values: np.ndarray, donor: np.ndarray | None) -> Rows:
        """The rows of the table with another column; holes are those of the donors, none without donors."""
        holes = {key: hole for key, hole in self.table.holes.items() if key != name}
        if donor is not None and name in self.table.holes:
            holes[name] = self.table.holes[name][donor]
        table = replace(self.table, columns={**self.table.columns, name: values}, holes=holes)
        return self.trained.rows(table)

    @cached_property
    def plain(self) -> tuple[np.ndarray, dict[str, list[int]]]:
        """Each feature coded by itself, without formulas: design columns (n, p), and the positions of each feature."""
        parts, positions, stop = [], dict[str, list[int]](), 0
        for feature in self.schema.features:
            block = np.zeros((self.table.num_rows, len(feature.names)))
            feature.fill(block, self.table.only([feature.name]), self.schema.unseen)
            positions[feature.name] = list(range(stop, stop + block.shape[1]))
            stop += block.shape[1]
            parts.append(block)
        return np.concatenate(parts, 1), positions

    def levels(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A value of the data for each level of a category that occurs in the rows, and the names of these levels."""
        column, hole = self.table.columns[name], self.table.holes.get(name)
        known = column if hole is None else column[~hole]
        values = np.unique(known.astype(str) if known.dtype == object else known)
        kept = [level for level in self.feature(name).levels if level in {str(value) for value in values.tolist()}]
        by_name = {str(value): value for value in values.tolist()}
        return np.array([by_name[level] for level in kept], dtype=column.dtype), kept
