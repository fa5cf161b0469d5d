"""The coefficients of a linear model as training left them, beside those of the exact estimate."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import coefficient_tables, shown
from mlefw.baseline.distance import parameters
from mlefw.baseline.per_target import is_separable, names_of, parts
from mlefw.baseline.problem import Problem
from mlefw.errors import UsageError
from mlefw.objective.linear_terms import TermsModel
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized
from mlefw.run.checkpoint import Trained
from mlefw.schema.schema import Schema
from mlefw.system.atomic import Json

EXACT = {
    **{"exact": "estimate", "std_error": "std_error", "z": "z", "p_value": "p_value"},
    **{"ci_low": "ci_low", "ci_high": "ci_high"},
}
"""Columns of the exact estimate, and the key of each in `baseline.json`."""

Tables = Mapping[str, Sequence[Mapping[str, Any]]]


def exact_record(folder: Path) -> Json:
    """The content of `baseline.json` of a run.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    try:
        content: Json = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} has no baseline.json that can be read ({error}): expected a run") from None
    return content


def coefficients(trained: Trained, folder: Path) -> dict[str, list[Any]]:
    """A row for each coefficient, in the units of the data, as columns by name; None where a value is not defined.

    Columns are `parameter`, `term`, `trained` where the model is linear, and those of `EXACT` where there is an exact
    estimate.

    Args:
        trained: the model.
        folder: the directory of its run.

    Raises:
        UsageError: the model is not linear, and its run has no exact estimate.
    """
    own = of_model(trained)
    record = exact_record(folder) if (folder / "baseline.json").is_file() else {}
    exact: Tables = shown(record.get("coefficients", {}))
    if not own and not exact:
        raise UsageError(
            f"{folder}: its model is not linear, and it has no exact estimate with coefficients"
            "\n  expected: model=linear, or a run with baseline=linear"
        )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for source, tables in (("exact", exact), ("trained", own)):
        for parameter, rows in tables.items():
            for row in rows:
                line = found.setdefault((parameter, row["name"]), {})
                keys = EXACT if source == "exact" else {"trained": "estimate"}
                line |= {name: row[key] for name, key in keys.items() if key in row}
    columns = [*(["trained"] if own else []), *(EXACT if exact else [])]
    lines = list(found.values())
    place = {"parameter": [key[0] for key in found], "term": [key[1] for key in found]}
    return place | {name: [_number(line.get(name)) for line in lines] for name in columns}


def of_model(trained: Trained) -> Tables:
    """The coefficients of a model that is linear in columns of a table, as in `baseline.json`; none of another one."""
    objective, schema = trained.uncalibrated or trained.objective, trained.schema
    layer = objective.model
    if not isinstance(schema, Schema) or not isinstance(layer, Standardized):
        return {}
    # A single row of means: coefficients do not depend on rows, and heads check none here.
    one = torch.ones(1, dtype=torch.float64)
    y = torch.zeros(1, *objective.head.event_shape, dtype=torch.float64)
    rows = Rows(layer.typical().double(), y, one, torch.zeros_like(one))
    inner = layer.model
    used = inner.used if isinstance(inner, TermsModel) else None
    problem = Problem.of(objective.head, rows, layer.mean, layer.scale, objective.prior, used=used)
    theta = parameters(objective, problem)
    if theta is None:
        return {}
    labels = schema.all_labels
    if not is_separable(problem.head):
        return _tables(problem, theta, schema.names, labels if isinstance(labels, list) else None)
    return _of_targets(problem, theta, schema.names, labels)


def _of_targets(problem: Problem, theta: torch.Tensor, names: list[str], labels: Any) -> Tables:
    """The tables of several targets or levels, with their names before those of the parameters."""
    head, found = problem.head, {}
    table = theta[: problem.size - head.shared_dim].view(head.eta_dim, -1)
    shared, at, start = theta[table.numel() :], 0, 0
    for title, part in zip(names_of(head), parts(problem), strict=True):
        eta, own = part.head.eta_dim, part.head.shared_dim
        piece = torch.cat([table[at : at + eta].reshape(-1), shared[start : start + own]])
        at, start = at + eta, start + own
        known = labels.get(title) if isinstance(labels, Mapping) else None
        for parameter, rows in _tables(part, piece, names, known).items():
            found[f"{title}.{parameter}"] = rows
    return found


def _tables(problem: Problem, theta: torch.Tensor, names: list[str], labels: list[str] | None) -> Tables:
    solution = Solution(problem, theta, float("nan"), float("nan"), "training", 0)
    tables: Tables = shown(coefficient_tables(solution, names, labels, None))
    return tables


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
