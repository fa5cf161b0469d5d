"""Predictive distributions as columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mlefw.baseline.mean_interval import CoefficientCovariance, interval
from mlefw.distribution import quantile
from mlefw.distribution.censored import Censored
from mlefw.distribution.trials import GivenTrials
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained
from mlefw.run.pooled import Pooled
from mlefw.schema.reach import FarRows
from mlefw.schema.support import check_support
from mlefw.uncertainty.base import Uncertain

_AVERAGED_ROWS = 4096
"""Rows that are averaged over parameters at a time: each row has up to a thousand nodes."""


def check_probabilities(trained: Trained, level: float, quantiles: Sequence[float]) -> None:
    """Refuse a level or quantile that is not between 0 and 1, and quantiles of a target with labels.

    Raises:
        UsageError: naming the setting.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise UsageError(f"level={level}: expected a probability between 0 and 1, such as 0.9")
    if isinstance(quantiles, int | float | str):
        raise UsageError(f"quantiles={quantiles!r}: expected a list of probabilities, such as [0.1, 0.9]")
    for p in quantiles:
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p < 1:
            raise UsageError(f"quantiles: {p} is not a probability between 0 and 1, such as 0.1")
    labelled = [target.name for target in trained.schema.targets if target.labels is not None]
    if quantiles and labelled:
        raise UsageError(f"quantiles: the target {labelled[0]!r} has labels, which have no quantiles")
    if trained.calibration is not None:
        trained.calibration.warn_of([level], quantiles)


@torch.no_grad()
def predictions(
    trained: Trained,
    table: Table,
    row: np.ndarray,
    level: float = 0.9,
    quantiles: Sequence[float] = (),
    posterior: Uncertain | None = None,
    far: FarRows | None = None,
    errors: CoefficientCovariance | None = None,
) -> pa.Table:
    """The predictive distribution of each row of a table as columns; a value that is not defined is null.

    Args:
        trained: the model.
        table: holds the features; where it has the target, the NLL of each row is a column, too.
        row: position of each row in the whole input, of which the table is a block.
        level: probability of the central interval.
        quantiles: probabilities of further quantiles.
        posterior: of the parameters, or masks, to average over; None for the fitted ones.
        far: collects rows that lie far outside the training rows, for a warning at the end.
        errors: covariance of the coefficients of a linear model, for intervals of the mean.

    Raises:
        UsageError: a table that does not fit the schema, a target that the head cannot take, or rows whose prediction
            the training rows leave undetermined.
    """
    if posterior is not None and table.num_rows > _AVERAGED_ROWS:
        parts = np.split(np.arange(table.num_rows), range(_AVERAGED_ROWS, table.num_rows, _AVERAGED_ROWS))
        tables = [predictions(trained, table.take(k), row[k], level, quantiles, posterior, far, errors) for k in parts]
        return pa.concat_tables(tables, promote_options="default")
    rows = trained.rows(table, target_required=False)
    if far is not None:
        far.add(rows, table)
    if table.num_rows == 0:
        blank = Rows(
            rows.x.new_zeros(1, *rows.input_shape), torch.ones(1, *rows.y.shape[1:]), torch.ones(1), torch.zeros(1)
        )
        none = np.zeros(1, dtype=np.int64)
        return pa.table(_columns(trained, blank, table, none, level, quantiles, errors=errors)).slice(0, 0)
    return pa.table(_columns(trained, rows, table, row, level, quantiles, posterior, errors))


def _columns(
    trained: Trained,
    rows: Rows,
    table: Table,
    row: np.ndarray,
    level: float,
    quantiles: Sequence[float],
    posterior: Uncertain | None = None,
    errors: CoefficientCovariance | None = None,
) -> dict[str, Any]:
    objective = trained.objective
    eta = objective.eta(rows.x, rows.offset)
    distribution = objective.head(eta) if posterior is None else posterior.predictive(objective, rows)
    shown = distribution.given(rows.y[..., 1]) if isinstance(distribution, GivenTrials) else distribution
    figures = figure_columns(trained, shown, level, quantiles)
    if errors is not None and (len(trained.schema.targets) == 1 or trained.schema.bounds):
        figures |= _mean_interval(trained, rows, eta, level, errors)
    if isinstance(trained, Pooled):
        figures |= _uncertainty(trained, eta)
    if all(name in table.columns for name in trained.schema.observed):
        figures["nll_nats"] = (
            _nll(trained, eta, rows, table, None if posterior is None else distribution)
            if table.num_rows
            else _array(eta[:, 0])
        )
    columns: dict[str, Any] = {"row": pa.array(row)}
    name = trained.schema.id
    if name is not None and name in table.columns:
        taken = name in columns or name in figures
        columns[f"id_{name}" if taken else name] = _identifiers(table, name, len(row))
    return columns | figures


def figure_columns(trained: Trained, distribution: Any, level: float, quantiles: Sequence[float]) -> dict[str, Any]:
    """Columns of the predicted distribution; of several targets each column begins with the target's name."""
    figures: dict[str, Any] = {}
    targets = trained.schema.targets
    # The quantiles that a head is trained for come first, whatever else is asked for.
    quantiles = list(dict.fromkeys([*getattr(trained.objective.head, "levels", ()), *map(float, quantiles)]))
    if isinstance(distribution, Censored):
        return _numbers(distribution.latent, level, quantiles)
    for index, target in enumerate(targets):
        marginal = distribution if len(targets) == 1 else distribution.marginals[index]
        if target.labels is not None:
            own = _classes(marginal, list(target.labels))
        else:
            own = _numbers(marginal, level, quantiles)
        figures |= own if len(targets) == 1 else {f"{target.name}_{key}": value for key, value in own.items()}
    return figures


def _mean_interval(
    trained: Trained, rows: Rows, eta: Tensor, level: float, errors: CoefficientCovariance
) -> dict[str, Any]:
    """Intervals of the mean, or of the probability of each label, from the covariance of the coefficients."""
    head, labels = trained.objective.head, trained.schema.labels
    covariance = errors.of_eta(head, rows.x)

    def value(distribution: Distribution) -> Tensor:
        if isinstance(distribution, Censored):
            distribution = distribution.latent
        if isinstance(distribution, GivenTrials):
            distribution = distribution.given(rows.y[..., 1])
        return distribution.mean.unsqueeze(1) if labels is None else _probabilities(distribution)

    low, high = interval(head, head.complete(eta.double()), covariance, errors.quantile(level), value)
    names = ["mean"] if labels is None else [f"prob_{label}" for label in labels]
    ends = {"lower": low, "upper": high}
    return {f"{name}_{end}": _array(values[:, k]) for k, name in enumerate(names) for end, values in ends.items()}


def _uncertainty(trained: Pooled, eta: Tensor) -> dict[str, Any]:
    """Columns with the entropy of the mixture, and the part of it that is disagreement of the members, in nats."""
    names = [target.name for target in trained.schema.targets]
    found = trained.head.uncertainty(eta)
    return {
        (key if len(found) == 1 else f"{name}_{key}"): _array(values)
        for name, one in zip(names, found, strict=False)
        for key, values in (("entropy_nats", one.entropy), ("disagreement_nats", one.disagreement))
    }


def _identifiers(table: Table, name: str, num_rows: int) -> pa.Array:
    if table.num_rows == 0:
        return pa.nulls(num_rows, pa.string())
    return pa.array(table.columns[name].tolist(), mask=table.holes.get(name))


def _nll(trained: Trained, eta: Tensor, rows: Rows, table: Table, averaged: Distribution | None) -> pa.Array:
    """NLL of each row, null without a target: under `averaged` if given, else under the fitted parameters."""
    target, head = trained.schema.target, trained.objective.head
    present, index = _present(trained, table)
    nll = np.full(table.num_rows, np.nan)
    if len(index):
        known = torch.from_numpy(index)
        check_support(head, rows.take(known), present, target)
        if averaged is None:
            nll[index] = head.nll(eta[known], rows.y[known]).numpy()
        else:
            # The distribution is of all rows: a row without a target gets the value of another row, to be ignored.
            y = rows.y[known[:1]].repeat(table.num_rows).index_copy(0, known, rows.y[known])
            nll[index] = -averaged.log_prob(y)[known].numpy()
    return pa.array(nll, from_pandas=True)


def _present(trained: Trained, table: Table) -> tuple[Table, np.ndarray]:
    """The rows with a known target, and their positions; of several targets all are needed, or any if `partial`."""
    names = trained.schema.observed
    if len(names) == 1:
        return table.present(names[0])
    holes = [table.holes.get(name, np.zeros(table.num_rows, dtype=bool)) for name in names]
    hole = np.all(holes, 0) if trained.schema.partial else np.any(holes, 0)
    index = np.flatnonzero(~hole)
    return table.take(index), index


def _numbers(distribution: Distribution, level: float, quantiles: Sequence[float]) -> dict[str, Any]:
    lower, upper = quantile.interval(distribution, level)
    values = {
        "mean": distribution.mean,
        "median": quantile.median(distribution),
        "sd": distribution.stddev,
        "lower": lower,
        "upper": upper,
        **{f"quantile_{p:g}": quantile.quantile(distribution, float(p)) for p in quantiles},
    }
    return {name: _array(value) for name, value in values.items()}


def _classes(distribution: Distribution, labels: list[str]) -> dict[str, Any]:
    probs = _probabilities(distribution)
    columns: dict[str, Any] = {"class": pa.array([labels[k] for k in probs.argmax(-1).tolist()], pa.string())}
    return columns | {f"prob_{label}": _array(probs[:, k]) for k, label in enumerate(labels)}


def _probabilities(distribution: Distribution) -> Tensor:
    """The probability of each label, (n, number of labels)."""
    probs: Tensor = distribution.probs  # type: ignore[attr-defined]
    return probs if isinstance(distribution, Categorical) else torch.stack([1 - probs, probs], -1)


def _array(values: Tensor) -> pa.Array:
    return pa.array(values.double().numpy(), from_pandas=True)
