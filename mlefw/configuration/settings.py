"""The settings of a command as typed, frozen records.

A part, whose settings its class defines, stays a `Node`: the class checks them when it is built (`instantiate`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mlefw.configuration.record import typed

Node = dict[str, Any]
"""A part as its YAML file describes it, `_target_` and arguments; or a whole configuration in plain containers."""

AUTO_INPUTS = "mlefw.inputs.auto.Auto"
"""The class of `inputs=auto`, which stands for several input maps, of which one is chosen by training."""

_NODES = (
    *("data", "head", "prior", "loss", "batch", "inputs", "augment", "model", "baseline", "calibrate"),
    *(
        "uncertainty",
        "optimizer",
        "scheduler",
        "average",
        "cv",
        "ensemble",
        "experiment",
        "metric",
        "callback",
        "logger",
    ),
)


@dataclass(frozen=True)
class StepSettings:
    """Section `step`: how the weights are changed.

    Args:
        clip_norm: bound on the norm of the gradient of the objective; 0 for none.
        per_chunk: number of steps between two calls by Lightning, or `auto`; it changes no result.
        replay: whether the kernels of a step are recorded once and replayed; it changes no result.
        recoveries: how often training that diverges goes back to its last good state with half the learning rate.
    """

    clip_norm: float = 0.0
    per_chunk: int | Literal["auto"] = "auto"
    replay: bool = True
    recoveries: int = 0


@dataclass(frozen=True)
class EarlyStopping:
    """Section `early_stopping`: when training ends before its last epoch.

    Args:
        patience: epochs without a better validation NLL after which training ends; None to train to the end; `auto`
            for as many as the number of steps in an epoch asks for (`training/waiting.py`).
        min_delta: least fall of the validation NLL that counts as better, in nats per observation.
    """

    patience: int | Literal["auto"] | None = None
    min_delta: float = 0.0


@dataclass(frozen=True)
class CheckpointSettings:
    """Section `checkpoint`: when the state of a training is written.

    Args:
        min_seconds: least time between two writes, in seconds.
        every_steps: number of steps between writes within an epoch; 0 to write at the end of epochs only.
    """

    min_seconds: float = 5.0
    every_steps: int = 0


@dataclass(frozen=True)
class TrainerSettings:
    """Section `trainer`: the arguments of `lightning.Trainer` that mlefw reads too; `node` has all of them."""

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
        """The record of the section in plain containers."""
        return cls(node, **{name: node[name] for name in cls.__dataclass_fields__ if name != "node" and name in node})


@dataclass(frozen=True)
class Settings:
    """The settings of `train`, `baseline` and `check`, resolved and checked.

    A part that is not used (`loss`, `inputs`, `augment`, `baseline`, `calibrate`, `uncertainty`, `scheduler`,
    `average`, `cv`, `ensemble`, `experiment`) is an empty node. `metric`, `callback` and `logger` hold nodes by name.
    `choices` has the name of the member chosen in each group. `plain` is the whole configuration in plain containers,
    as `config.yaml` and checkpoints store it. `table` and `glance` are files of `mlefw baseline`, else None.
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
    augment: Node
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
    explanation: bool = False
    compile: bool = False
    resume: str | None = None
    run_dir: str | None = None
    table: str | None = None
    glance: str | None = None

    @classmethod
    def of(cls, plain: Node) -> "Settings":
        """The records of a resolved configuration in plain containers.

        Raises:
            UsageError: `step`, `early_stopping` or `checkpoint` has an unknown setting or a value of a wrong type.
        """
        sections = {"step": StepSettings, "early_stopping": EarlyStopping, "checkpoint": CheckpointSettings}
        single = ("seed", "report", "plots", "explanation", "compile", "resume", "run_dir", "table", "glance")
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
        """A copy with other values of some top-level settings, in plain containers, by their names."""
        return Settings.of({**self.plain, **values})

    @property
    def candidates(self) -> Mapping[str, Node]:
        """The nodes of the input maps among which `inputs=auto` chooses, by name; empty for any other `inputs`."""
        found: Mapping[str, Node] = self.inputs.get("candidates") or {}
        return found if self.inputs.get("_target_") == AUTO_INPUTS else {}

    def choice(self, group: str) -> str:
        """The name of the member that was chosen in a group; of the group itself if none was chosen by name."""
        return str(self.choices.get(group, group))

    def described(self, group: str) -> str:
        """The name of the chosen member of a group, with its settings: `focal(gamma=2.0)`."""
        node: Node = getattr(self, group)
        words = ", ".join(f"{name}={value}" for name, value in node.items() if name != "_target_")
        return self.choice(group) + (f"({words})" if words else "")


@dataclass(frozen=True)
class TableSettings:
    """Section `data` of `evaluate` and `predict`: a file and how it is read; None means as it was in training."""

    path: str | None = None
    download: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool | None = None
    missing: str | None = None
    unseen: str | None = None
    stride: int | None = None

    @property
    def given(self) -> Node:
        """The settings that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class AppliedSettings:
    """The settings that `evaluate` and `predict` share.

    Args:
        run: a run directory, a checkpoint file, or a list of these; empty if none is given.
        data: the rows.
        weights: of several runs in their mixture: `equal`, `stacked`, or a number for each run.
        uncertainty: the node of a method that averages over parameters; empty for none.
        overwrite: whether existing output may be replaced.
    """

    run: str
    data: TableSettings
    weights: str | list[float] = "equal"
    uncertainty: Node = field(default_factory=dict)
    overwrite: bool = False

    @classmethod
    def of(cls, plain: Node) -> Self:
        """The record of a resolved configuration in plain containers; null stands for the default."""
        known = {name: plain[name] for name in cls.__dataclass_fields__ if plain.get(name) is not None}
        return cls(**{**known, "run": plain.get("run") or "", "data": TableSettings(**plain["data"])})


@dataclass(frozen=True)
class EvaluationSettings(AppliedSettings):
    """The settings of `mlefw evaluate`.

    Args:
        split: the split of the run's own data that is scored if `data.path` is not set; by default `test`.
        output: a JSON file for the figures.
        plots: a folder for pictures.
    """

    split: str | None = None
    output: str | None = None
    plots: str | None = None


@dataclass(frozen=True)
class PredictionSettings(AppliedSettings):
    """The settings of `mlefw predict`.

    Args:
        output: a .parquet or .csv file for the predictions.
        level: probability of the predictive interval from `lower` to `upper`.
        quantiles: probabilities of further quantiles.
        exact: whether the exact linear estimate beside the network predicts, in place of the network.
    """

    output: str = "predictions.parquet"
    level: float = 0.9
    quantiles: list[float] = field(default_factory=list)
    exact: bool = False


@dataclass(frozen=True)
class ExportSettings(AppliedSettings):
    """The settings of `mlefw export`.

    Args:
        format: of the file: `onnx` or `torch_export`.
        path: the file; by default in the directory of the run.
        quantiles: probabilities of quantiles among the outputs.
    """

    format: str = "onnx"
    path: str | None = None
    quantiles: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SampleSettings:
    """The settings of `mlefw sample`.

    Args:
        run: a run directory or a checkpoint file; empty if none is given.
        prompt: what the sample goes on from.
        length: number of tokens of text to draw.
        num: number of images to draw.
        seed: of the draws.
        temperature: 1 for the model's own distribution.
        output: a file for the sample.
        overwrite: whether an existing file may be replaced.
    """

    run: str
    prompt: str = ""
    length: int = 500
    num: int = 16
    seed: int = 0
    temperature: float = 1.0
    output: str | None = None
    overwrite: bool = False

    @classmethod
    def of(cls, plain: Node) -> Self:
        """The record of a resolved configuration in plain containers; null stands for the default."""
        known = {name: plain[name] for name in cls.__dataclass_fields__ if plain.get(name) is not None}
        return cls(**{**known, "run": plain.get("run") or ""})
