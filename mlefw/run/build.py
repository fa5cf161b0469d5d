"""The composition root: builds data, head, model, prior, loss and metrics from a configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mlefw.average.base import Average
from mlefw.baseline.arrays import as_columns, null_rows
from mlefw.baseline.linear import LinearBaseline, solve_null
from mlefw.baseline.problem import Problem
from mlefw.calibrate.base import Calibration
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Node, Settings
from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.multitask import JointHead, MultitaskHead
from mlefw.inputs.base import Inputs
from mlefw.loss.base import Loss
from mlefw.loss.plain import Plain
from mlefw.metric.adapter import OfPrediction
from mlefw.metric.base import Metric, OfTarget, OfTrials
from mlefw.metric.nll import Nll
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.reading.table import Table
from mlefw.rows.clustered import Units
from mlefw.rows.dependence import Dependence
from mlefw.rows.rows import Rows
from mlefw.rows.tensor_inputs import row_statistics
from mlefw.run.dependence import dependence_of
from mlefw.run.estimand import Estimand, array_features, baseline_features, random_blocks
from mlefw.run.held_out import Parts, parts_of
from mlefw.run.network import build_augment, build_network, learn_inputs, surrounded
from mlefw.run.placement import place, set_units, through_origin
from mlefw.run.source import head_kind, open_source
from mlefw.run.units import units_of
from mlefw.schema.coarse import warn_of_coarse_target
from mlefw.schema.encode import coded, store_of_terms
from mlefw.schema.kinds import RowSchema, learn_schema
from mlefw.schema.reach import far_rows, warn_of_far_rows, with_spans
from mlefw.schema.schema import Schema
from mlefw.schema.target import Target
from mlefw.system.shared_work import compute_once
from mlefw.uncertainty.base import Method


@dataclass(frozen=True)
class Data:
    """The data of a run: the source, the schema (what columns or arrays mean), and the coded rows by split.

    `units` has the units of standard errors by split, where they are not the rows; `dependence` the clusters and times
    of the training rows, for standard errors of exact estimates.
    """

    source: Source
    schema: RowSchema
    splits: dict[str, Rows]
    units: dict[str, Units] = field(default_factory=dict)
    dependence: Dependence = field(default_factory=Dependence)

    @property
    def train(self) -> Rows:
        """The training rows."""
        return self.splits["train"]

    def far(self, split: str) -> np.ndarray:
        """Mask of the rows of a split that lie orders of magnitude outside the training rows, (n,)."""
        return far_rows(self.schema, self.splits[split])


def build_data(config: Settings) -> Data:
    """Read the table, learn the schema, split, code, and check the target against the head's support.

    Jobs of a sweep with the same data and head share the result.

    Raises:
        UsageError: a mistake in the settings or the table.
    """
    return compute_once("data", config.plain, ("data", "head"), lambda: _read_data(config))


def _read_data(config: Settings) -> Data:
    source = open_source(config)
    table = source.read()
    return coded_data(config, source, table, lambda: parts_of(config, source, table))


def coded_data(config: Settings, source: Source, table: Table, make_parts: Callable[[], Parts]) -> Data:
    """The data of a run from a table that is read already.

    Args:
        config: the settings of the run.
        source: the source of the table.
        table: all rows.
        make_parts: shares the rows out to splits; called after the columns are checked.

    Raises:
        UsageError: a column that its role or the head cannot take.
    """
    tasks = config.head.get("tasks") or {}
    kind = {t: head_kind(node).target for t, node in tasks.items()} or head_kind(config.head).target
    schema = learn_schema(table, source, kind)
    parts = make_parts()
    if not (config.cv or config.ensemble):
        source.warn_of_empty(table, parts)
    schema = schema.of_training(*parts["train"])
    head = head_of(config.head, schema.targets)
    store = source.store or store_of_terms(schema, source, sum(len(index) for _, index in parts.values()))
    splits = {split: coded(schema, head, *part, store) for split, part in parts.items()}
    warn_of_coarse_target(head, splits["train"], schema.target)
    schema = with_spans(schema, splits["train"])
    if store is None:
        for split, (part, index) in parts.items():
            warn_of_far_rows(schema, splits[split], part, index)
    return Data(source, schema, splits, units_of(source, parts, splits), dependence_of(source, *parts["train"]))


def build_head(node: Node, num_classes: int | None) -> Head:
    """The head of one target, not yet in the units of the target (see `placement.set_units`)."""
    head: Head = instantiate("head", node, num_classes=num_classes)
    return head


def head_of(node: Node, targets: Sequence[Target]) -> Head:
    """The head of a run: for several targets a joint head, or a `MultitaskHead` with one head for each."""
    names = tuple(target.name for target in targets)
    counts = [None if target.labels is None else len(target.labels) for target in targets]
    if len(targets) == 1:
        return build_head(node, counts[0])
    kind = head_kind(node)
    if issubclass(kind, CensoredHead):
        return build_head(node, None)
    if issubclass(kind, JointHead) and kind is not MultitaskHead:
        head: Head = instantiate("head", node, targets=names)
        return head
    tasks = node.get("tasks") or dict.fromkeys(names, node)
    parts = {name: build_head(tasks[name], count) for name, count in zip(names, counts, strict=True)}
    return MultitaskHead(parts, node.get("start", "null"))


def build_estimand(config: Settings, data: Data) -> Estimand:
    """The objective of a run before training: a raw output of zero is the null model, in the units of the target.

    Raises:
        UsageError: the parts do not fit each other or the data.
    """
    positions, _ = baseline_features(config, data.schema)
    head = head_of(config.head, data.schema.targets)
    shape = data.schema.row_shape
    observed = data.train if shape.is_table else null_rows(head, data.train, shape)
    head.learn(observed.y, observed.weight)
    if data.source.standardize_target:
        set_units(head, observed)
    mean, scale = row_statistics(data.train, shape, data.source.standardize)
    _check_spread(data.schema, scale)
    columns = as_columns(mean, shape), as_columns(scale, shape)
    used = data.schema.used(head.eta_dim) if isinstance(data.schema, Schema) else None
    if used is not None:
        mean = through_origin(head, mean, used)
    blocks = random_blocks(data.schema, head)
    for block in blocks:
        # The prior of a smooth term or of effects of groups is on coefficients in the units of their columns.
        mean[list(block.features)], scale[list(block.features)] = 0.0, 1.0
    columns = (mean, scale) if shape.is_table else columns
    problem = Problem.of(head, observed, *(columns if shape.is_table else (mean.new_zeros(0),) * 2), NoPrior())
    null = compute_once("null", config.plain, ("data", "head"), lambda: solve_null(replace(problem, used=used)))
    head = place(head, null)

    def learn_map(one: Inputs, at: torch.Tensor | None) -> None:
        learn_inputs(one, data.train, mean, scale, at)

    model, inputs = build_network(config, shape, head.eta_dim, used, learn_map, bool(blocks))
    prior = instantiate("prior", config.prior)
    if blocks and not prior.flat:
        raise UsageError(
            f"prior={config.choice('prior')}: smooth terms and effects of groups have normal priors of their own, "
            "whose scales are estimated: expected prior=none"
        )
    loss = build_loss(config.loss)
    loss.check(head)
    loss.learn(observed)
    augment = build_augment(config.augment, shape)
    network = surrounded(model, config.model, shape, mean, scale, inputs, augment)
    objective = Objective(network, head, prior, data.train.population, loss)
    parts = ("data", "head", "inputs", "augment", "model", "prior", "loss", "metric")
    compute_once("row", config.plain, parts, lambda: _try_one_row(config, objective, data))
    arrays, token_bytes = array_features(config, data.schema, columns[1]), data.schema.token_bytes
    whole = Estimand(objective.train(), null, *columns, positions, data.schema.row_shape, arrays, token_bytes)
    return replace(whole, used=used, blocks_of_terms=blocks)


@torch.no_grad()
def _try_one_row(config: Settings, objective: Objective, data: Data) -> None:
    """Evaluate one row: a plugin with a wrong shape fails here, not in the first epoch.

    Raises:
        UsageError: model and head, or a metric and the head, do not fit; with their own message.
    """
    row = data.train.take(slice(0, 1))
    try:
        objective.eval().nll(row)
        eta, y, weight = objective.observations(row, objective.eta(row.x, row.offset))
        distribution = objective.head(eta)
    except (ValueError, TypeError, RuntimeError) as error:
        parts = f"{config.model['_target_']} and {config.head['_target_']}"
        raise UsageError(f"{parts} do not fit each other or the data: {error}") from error
    head = config.head["_target_"]
    metrics = build_metrics(config, objective.head, data.schema.token_bytes)
    names = list(config.metric) if len(config.metric) == len(metrics) else [type(m).__name__ for m in metrics]
    for name, metric in zip(names, metrics, strict=True):
        try:
            metric.update(distribution, y, weight)
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            raise UsageError(f"metric.{name} and {head} do not fit each other: {error}") from error


def build_metrics(config: Settings, head: Head, token_bytes: np.ndarray | None = None) -> list[Metric]:
    """The metrics of one split; of several targets those of each, under its name.

    Args:
        config: the settings of the run.
        head: its head.
        token_bytes: as `Estimand.token_bytes`.
    """
    if not isinstance(head, JointHead):
        found = _metrics(config.metric, head, head.floor, token_bytes)
        return [OfTrials(found)] if head.takes_trials and head.event_shape else found
    metrics: list[Metric] = [Nll()]
    for index, name in enumerate(head.targets):
        part = head.parts[index] if isinstance(head, MultitaskHead) else head
        nodes = config.metric[name] if config.head.get("tasks") else config.metric
        metrics.append(OfTarget(name, index, _metrics(nodes, part, head.floor[index])))
    return metrics


def _metrics(nodes: Node, head: Head, floor: torch.Tensor, token_bytes: np.ndarray | None = None) -> list[Metric]:
    own = {name: getattr(head, name, None) for name in ("num_classes", "levels")}
    facts = {**own, "floor": float(floor), "token_bytes": token_bytes}
    found = {name: instantiate("metric", node, **facts) for name, node in nodes.items()}
    return [one if isinstance(one, Metric) else OfPrediction(name, one) for name, one in found.items()]


def build_loss(node: Node) -> Loss:
    """The loss that training descends; the plain NLL where the settings have none."""
    loss: Loss | None = _chosen("loss", node)
    return Plain() if loss is None else loss


def build_average(node: Node) -> Average | None:
    """The rule by which weights are averaged, or None for `average=none`."""
    return _chosen("average", node)


def build_calibration(node: Node) -> Calibration | None:
    """The recalibration, not fitted yet, or None for `calibrate=none`."""
    return _chosen("calibrate", node)


def build_baseline(node: Node) -> LinearBaseline | None:
    """The exact linear estimate, or None for `baseline=none`.

    Raises:
        UsageError: `baseline` names a solver; solvers belong in `baseline.solvers`.
    """
    found = _chosen("baseline", node)
    if not isinstance(found, LinearBaseline | None):
        target = node["_target_"]
        instead = f"baseline=linear baseline.solvers=[{{_target_: {target}}}]"
        raise UsageError(f"baseline._target_={target!r} is a solver: expected {instead}")
    return found


def build_uncertainty(node: Node) -> Method | None:
    """The method for the uncertainty of the parameters, or None for `uncertainty=none`."""
    return _chosen("uncertainty", node)


def _chosen(slot: str, node: Node, **facts: Any) -> Any:
    """The object of a group of settings; None for the member `none`, whose settings are empty."""
    return instantiate(slot, node, **facts) if "_target_" in node else None


def _check_spread(schema: RowSchema, scale: torch.Tensor) -> None:
    """Refuse features whose variance over the training rows is too large for 64 bits."""
    wide = torch.nonzero(~scale.flatten().isfinite()).flatten().tolist()
    if wide:
        names = schema.names if isinstance(schema, Schema) else [f"number {k}" for k in range(scale.numel())]
        raise UsageError(
            f"the features {', '.join(names[k] for k in wide[:5])} hold numbers whose squares are too large for 64 bits"
            "\n  expected: numbers up to 1e150: choose another unit"
        )
