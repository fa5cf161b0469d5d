"""The composition root: from a configuration to objects. Nothing below it knows all the parts."""

import copy
import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import hydra.utils
import torch
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline, full_weight, solve_null
from mlefw.baseline.problem import Problem
from mlefw.calibrate.base import Calibration
from mlefw.data.base import Source
from mlefw.errors import MlefwError, UsageError
from mlefw.head.base import Head
from mlefw.loss.base import Loss
from mlefw.loss.plain import Plain
from mlefw.metric.base import Metric
from mlefw.objective import Objective
from mlefw.prior.base import Prior
from mlefw.prior.none import NoPrior
from mlefw.rows import Rows
from mlefw.schema import Schema
from mlefw.standardize import Standardized, feature_statistics, target_statistics
from mlefw.support import check_support
from mlefw.uncertainty.laplace import Laplace

Config = dict[str, Any]


def instantiate(node: Config, **facts: Any) -> Any:
    """The object of a node; of the `facts` that only the data can tell it gets those that it asks for by name."""
    target = hydra.utils.get_object(node["_target_"])
    names = inspect.signature(target).parameters
    wanted = {name: fact for name, fact in facts.items() if name in names}
    settings = {name: value for name, value in node.items() if name != "_target_"}
    try:
        with warnings.catch_warnings():
            # torch says this of the weights of a model without features, which is an intercept
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            if node["_target_"].startswith("mlefw.") and not any(_is_special(*item) for item in settings.items()):
                # Hydra's way takes ten times as long, and is for what a node of ours seldom has.
                return target(**{**copy.deepcopy(settings), **wanted})
            return hydra.utils.instantiate(node, **wanted, _convert_="all")
    except (TypeError, ValueError) as error:
        raise UsageError(f"{node['_target_']} refused its settings: {error}") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, MlefwError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError | ValueError | MisconfigurationException):
            raise UsageError(f"{node['_target_']} refused its settings: {error.__cause__}") from error
        raise


def _is_special(name: str, value: Any) -> bool:
    """Whether a setting is one of Hydra's own, or holds a mapping, which may be a node."""
    held = value if isinstance(value, list) else [value]
    return name.startswith("_") or any(isinstance(item, dict | list) for item in held)


@dataclass(frozen=True)
class Data:
    """The source, what its columns mean, and its coded rows by split."""

    source: Source
    schema: Schema
    splits: dict[str, Rows]

    @property
    def train(self) -> Rows:
        """The training rows."""
        return self.splits["train"]

    @property
    def num_classes(self) -> int | None:
        """Number of labels of the target, where it has labels."""
        return None if self.schema.labels is None else len(self.schema.labels)


def head_kind(config: Config) -> Any:
    """The class of the head, which says how its target is coded before there are data to build it with."""
    return hydra.utils.get_class(config["head"]["_target_"])


def build_data(config: Config) -> Data:
    """Read, learn the schema, split, code, and hold the target to the head's support."""
    source: Source = instantiate(config["data"])
    kind = head_kind(config)
    table = source.read()
    schema = Schema.learn(table, source, kind.target)
    tables = source.splits(table)
    schema = schema.of_training(tables["train"])
    head = build_head(config, None if schema.labels is None else len(schema.labels))
    splits = {}
    for split, part in tables.items():
        splits[split] = schema.rows(part, head.log_link)
        check_support(head, splits[split], part, schema.target)
    return Data(source, schema, splits)


def build_head(config: Config, num_classes: int | None) -> Head:
    """The head, in the units it was written in."""
    head: Head = instantiate(config["head"], num_classes=num_classes)
    return head


@dataclass(frozen=True)
class Estimand:
    """What is estimated: the objective of the run, its null model, and the linear problem beside it.

    `asked` holds the positions of the features that take part in the linear problem.
    """

    objective: Objective
    null: Solution
    mean: torch.Tensor
    scale: torch.Tensor
    asked: list[int]

    @property
    def is_subset(self) -> bool:
        """Whether the linear problem has fewer features than the network."""
        return len(self.asked) < len(self.mean)

    def problem(self, train: Rows, prior: Prior) -> Problem:
        """The linear problem with the same head, on the same rows and standardised features."""
        problem = Problem.of(self.objective.head, train, self.mean, self.scale, prior)
        return problem.restricted(torch.tensor(self.asked, dtype=torch.long)) if self.is_subset else problem


def build_estimand(config: Config, data: Data) -> Estimand:
    """Head at the null model in the units of the target, standardised model, prior."""
    asked = data.schema.columns_of((config["baseline"] or {}).get("features"), "baseline.features")
    head = build_head(config, data.num_classes)
    if data.source.standardize_target and head.target == "numeric":
        head.set_units(*target_statistics(data.train))
    mean, scale = feature_statistics(data.train, data.source.standardize)
    null = solve_null(Problem.of(head, data.train, mean, scale, NoPrior()))
    head = place(head, null)
    model = instantiate(config["model"], num_features=data.schema.num_features, eta_dim=head.eta_dim)
    prior = instantiate(config["prior"])
    loss = build_loss(config)
    loss.check(head)
    loss.learn(data.train)
    objective = Objective(Standardized(model, mean, scale), head, prior, data.train.population, loss)
    _try_one_row(config, objective, data.train)
    return Estimand(objective.train(), null, mean, scale, asked)


@torch.no_grad()
def _try_one_row(config: Config, objective: Objective, train: Rows) -> None:
    """Send one row through the whole chain: a plugin of the wrong shape fails here, not in the first epoch.

    Raises:
        UsageError: naming the head and model, and what they said.
    """
    try:
        objective.eval().nll(train.take(slice(0, 1)))
    except (ValueError, TypeError, RuntimeError) as error:
        parts = f"{config['model']['_target_']} and {config['head']['_target_']}"
        raise UsageError(f"{parts} do not fit each other or the data: {error}") from error


def place(head: Head, null: Solution) -> Head:
    """Let a raw output of zero be the null model (or eta = 0, for `start=zero`)."""
    if head.start == "zero":
        head.center.zero_()
        return head
    _, bias, shared = null.problem.split(null.theta)
    _move_center(head, torch.cat([bias, shared]))
    names = head.eta_names + head.shared_names
    for limit in (limit for limit in head.limits if limit.name in names):
        # Further out there is no slope left to train by.
        near = {"max" if limit.end > 0 else "min": limit.end}
        head.center[names.index(limit.name)] = head.center[names.index(limit.name)].clamp(**near)
    return head


def start_at(objective: Objective, solution: Solution) -> None:
    """Start a model at an exact linear estimate: the weights go into the model, and shared raw = 0 becomes theirs."""
    weight, bias, shared = full_weight(solution)
    objective.model.model.start_at(weight, bias)  # type: ignore[operator, union-attr]
    _move_center(objective.head, torch.cat([torch.zeros_like(bias), shared]))


def _move_center(head: Head, raw: torch.Tensor) -> None:
    """Let raw = 0 land where `raw` (eta_dim + shared_dim,) does now, no scale below its floor."""
    head.center.add_(head.gain * raw)
    for column, name in enumerate(head.eta_names + head.shared_names):
        if name in getattr(head, "collapsible", ()) and float(head.floor) > 0:
            head.center[column] = head.center[column].clamp(min=float(head.floor.log()))


def build_metrics(config: Config, head: Head) -> list[Metric]:
    """The metrics of one split."""
    facts = {"num_classes": getattr(head, "num_classes", None), "floor": float(head.floor)}
    return [instantiate(node, **facts) for node in config["metric"].values()]


def build_loss(config: Config) -> Loss:
    """What training descends; the plain NLL where a configuration does not say."""
    node = config.get("loss") or {}
    loss: Loss = instantiate(node) if "_target_" in node else Plain()
    return loss


def build_calibration(config: Config) -> Calibration | None:
    """The recalibration, not fitted yet, or None for `calibrate=none`."""
    node = config.get("calibrate") or {}
    return instantiate(node) if "_target_" in node else None


def build_baseline(config: Config) -> LinearBaseline | None:
    """The exact side, or None for `baseline=none`."""
    node = config["baseline"] or {}
    return instantiate(node) if "_target_" in node else None


def build_uncertainty(config: Config) -> Laplace | None:
    """What finds the uncertainty of the parameters, or None for `uncertainty=none`."""
    node = config.get("uncertainty") or {}
    return instantiate(node) if "_target_" in node else None
