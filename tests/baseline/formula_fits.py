"""Exact estimates of formulas for rows in memory, as `mlefw baseline` finds them, without a file being written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlefw.baseline.base import Solution
from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.frame import as_arrow, offered
from mlefw.report.coefficient_table import baseline_content
from mlefw.run import build
from mlefw.run.build import Data
from mlefw.run.estimate import estimates
from mlefw.schema.schema import Schema
from mlefw.system.atomic import Json


@dataclass(frozen=True)
class Fit:
    """An exact estimate, the rows that it is of, and the content of its `baseline.json`; what training would reach."""

    data: Data
    solution: Solution
    content: Json
    optimum: Solution | None = None

    @property
    def schema(self) -> Schema:
        schema = self.data.schema
        assert isinstance(schema, Schema)
        return schema

    @property
    def log_likelihood(self) -> float:
        return float(self.content["log_likelihood"])

    def column(self, parameter: str, key: str = "estimate") -> np.ndarray:
        """A column of the table of a parameter, in its order."""
        return np.array([row[key] for row in self.content["coefficients"][parameter]])

    def random(self, term: str) -> Json:
        """A smooth term or the effects of groups."""
        (found,) = [line for line in self.content["random"] if line["term"] == term]
        return dict(found)

    def eta(self) -> np.ndarray:
        """The complete eta of every row, (n, columns)."""
        return torch.cat([eta.clone() for _, _, eta in self.solution.problem.etas(self.solution.theta)]).numpy()


def fit(frame: Any, *settings: str) -> Fit:
    """The exact estimate of a frame of pandas, or a mapping of columns, under settings of `mlefw baseline`."""
    with offered(rows=as_arrow(frame)):
        config = settings_of(read_settings("baseline", ["data=frame", *settings], [], []))
        data = build.build_data(config)
    estimand = build.build_estimand(config, data)
    baseline = build.build_baseline(config.baseline)
    assert baseline is not None
    exact = estimates(baseline, estimand, data.train)
    solution, schema = exact.mle, data.schema
    assert isinstance(solution, Solution), exact.left_out
    assert isinstance(schema, Schema)
    kind = config.baseline["standard_errors"]
    content = baseline_content(
        solution, schema.names, schema.all_labels, kind, exact.null, None, schema.terms, data.dependence
    )
    return Fit(data, solution, content, exact.optimum)
