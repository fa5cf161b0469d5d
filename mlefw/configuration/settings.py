"""The settings of a command as typed, frozen records: below them nobody looks into nested dicts.

What a plugin may choose freely stays a `Node`: the part's `_target_` and its arguments, which the part itself checks as
it is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mlefw.configuration.record import typed

Node = dict[str, Any]
"""A part as its YAML file describes it: `_target_`, and arguments of the part's own choosing."""

AUTO_INPUTS = "mlefw.inputs.auto.Auto"
"""The class that stands for several input maps."""

_NODES = (
    *("data", "head", "prior", "loss", "batch", "inputs", "model", "baseline", "calibrate", "uncertainty"),
    *("optimizer", "scheduler", "average", "cv", "ensemble", "experiment", "metric", "callback", "logger"),
)


@dataclass(frozen=True)
class StepSettings:
    """Section `step`: how the weights are changed.

    Args:
        clip_norm: bound on the norm of the gradient; 0 for none.
        per_chunk: steps in one hand-over from Lightning, or `auto`.
        replay: whether a step is recorded once and replayed, which changes no result.
        recoveries: how often training that diverges goes back to its last good state with half the learning rate.
    """

    clip_norm: float = 0.0
    per_chunk: int | Literal["auto"] = "auto"
    replay: bool = True
    recoveries: int = 0


@dataclass(frozen=True)
class EarlyStopping:
    """Section `early_stopping`.

    Args:
        patience: epochs without a better validation NLL after which training ends; None to train to the end; `auto`
            for as many as the number of steps in an epoch asks for (`training/waiting.py`).
        min_delta: what counts as better, in nats.
    """

    patience: int | Literal["auto"] | None = None
    min_delta: float = 0.0


@dataclass(frozen=True)
class CheckpointSettings:
    """Section `checkpoint`: when the state of a training is written.

    Args:
        min_seconds: least time between two writes.
        every_steps: steps between writes within an epoch; 0 for its end only.
    """

    min_seconds: float = 5.0
    every_steps: int = 0


@dataclass(frozen=True)
class TrainerSettings:
    """Section `trainer`: what mlefw reads of the arguments of `lightning.Trainer`; `node` has all of them."""

    node: Node
    max_epochs: int | None = None
    max_steps: int = -1
    max_time: Any = None
    accelerator: Any = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: Any = "auto"
    precision: Any = None
    check_val_every_n_epoch: int | None = None

    @classmethod
    def of(cls, node: Node) -> "TrainerSettings":
        """The record of a section of plain containers."""
        return cls(node, **{name: node[name] for name in cls.__dataclass_fields__ if name != "node" and name in node})


@dataclass(frozen=True)
class Settings:
    """The settings of `train`, `baseline` and `check`, resolved and checked.

    A part that is not asked for (`loss`, `inputs`, `baseline`, `calibrate`, `uncertainty`, `scheduler`, `average`,
    `cv`, `ensemble`, `experiment`) is an empty node. `metric`, `callback` and `logger` hold nodes by name. `choices`
    has the name of the member chosen in each group. `plain` is what all of this was made from, as `config.yaml` and
    checkpoints keep it.
    """

    plain: Node
    choices: Mapping[str, str | None]
    trainer: TrainerSettings
    data: Node
    head: Node
    prior: Node
    loss: Node
    batch: Node
    inputs: Node
    model: Node
    baseline: Node
    calibrate: Node
    uncertainty: Node
    optimizer: Node
    scheduler: Node
    average: Node
    cv: Node
    ensemble: Node
    experiment: Node
    metric: Node
    callback: Node
    logger: Node
    step: StepSettings = field(default_factory=StepSettings)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    seed: int = 0
    report: bool = True
    plots: bool = True
    compile: bool = False
    resume: str | None = None
    run_dir: str | None = None

    @classmethod
    def of(cls, plain: Node) -> "Settings":
        """The records of plain containers.

        Raises:
            UsageError: a section of mlefw's own holds something that it cannot.
        """
        sections = {"step": StepSettings, "early_stopping": EarlyStopping, "checkpoint": CheckpointSettings}
        single = ("seed", "report", "plots", "compile", "resume", "run_dir")
        nodes: dict[str, Any] = {name: plain.get(name) or {} for name in _NODES}
        own: dict[str, Any] = {
            name: typed(kind, plain[name], name) for name, kind in sections.items() if plain.get(name)
        }
        own |= {name: plain[name] for name in single if name in plain}
        return cls(
            plain=plain,
            choices=plain.get("choices") or {},
            trainer=TrainerSettings.of(plain.get("trainer") or {}),
            **nodes,
            **own,
        )

    def replaced(self, **values: Any) -> "Settings":
        """The same with other values of some settings, by their names in the configuration."""
        return Settings.of({**self.plain, **values})

    @property
    def candidates(self) -> Mapping[str, Node]:
        """The input maps among which `inputs=auto` chooses, by name; none where one is given."""
        found: Mapping[str, Node] = self.inputs.get("candidates") or {}
        return found if self.inputs.get("_target_") == AUTO_INPUTS else {}

    def choice(self, group: str) -> str:
        """The name under which a member of a group was chosen."""
        return str(self.choices.get(group, group))

    def described(self, group: str) -> str:
        """The name of the chosen member of a group, with its settings: `focal(gamma=2.0)`."""
        node: Node = getattr(self, group)
        words = ", ".join(f"{name}={value}" for name, value in node.items() if name != "_target_")
        return self.choice(group) + (f"({words})" if words else "")


@dataclass(frozen=True)
class TableSettings:
    """Section `data` of `evaluate` and `predict`: a file, and how it is read; None means as in training."""

    path: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool | None = None
    missing: str | None = None
    unseen: str | None = None

    @property
    def given(self) -> Node:
        """What is set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class AppliedSettings:
    """What `evaluate` and `predict` share: the trained run, the rows, and how parameters are averaged over.

    `run` is empty where none is named; `overwrite` says whether what is there may be replaced; `weights` are those of
    several runs in their mixture.
    """

    run: str
    data: TableSettings
    weights: str | list[float] = "equal"
    uncertainty: Node = field(default_factory=dict)
    overwrite: bool = False

    @classmethod
    def of(cls, plain: Node) -> Self:
        """The record of plain containers; what is not set has its default."""
        known = {name: plain[name] for name in cls.__dataclass_fields__ if plain.get(name) is not None}
        return cls(**{**known, "run": plain.get("run") or "", "data": TableSettings(**plain["data"])})


@dataclass(frozen=True)
class EvaluationSettings(AppliedSettings):
    """The settings of `mlefw evaluate`; without `data.path` the rows of a split of the run's own data are scored."""

    split: str | None = None
    output: str | None = None
    plots: str | None = None


@dataclass(frozen=True)
class PredictionSettings(AppliedSettings):
    """The settings of `mlefw predict`: intervals of a probability, `level`, and further `quantiles`."""

    output: str = "predictions.parquet"
    level: float = 0.9
    quantiles: list[float] = field(default_factory=list)
