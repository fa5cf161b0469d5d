"""Every callback, logger and profiler of Lightning: what it does in a run of mlefw, or what to use in its place.

Training is one step room of mlefw's own (`mlefw.training.step`), and the state that is kept is chosen by the NLL of
validation rows. A class that would change gradients, weights or batches on its own would run beside both without the
effect that it promises, so it is refused by name, and so is a class of a plugin that inherits from it.

`tests/run/test_lightning.py` holds the tables to Lightning's own lists, tries each member, and holds
`docs/lightning.md` to them. Nothing is imported here: the names are those of Lightning's classes.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Door(NamedTuple):
    """A class of Lightning.

    Attributes:
        words: what it does; or what to use in its place, or to inherit from it.
        state: `open`: it works; `shut`: it is refused with everything that inherits from it; `base`: a class to inherit
            from, refused by itself.
        by_step: whether it looks at single steps, so that Lightning gets one at a time (slower for small networks).
        needs_logger: whether it writes to loggers.
        package: the package that it needs beside Lightning, if that is not one of mlefw's own.
        extra: the extra of mlefw with this package.
        is_admitted: whether settings may name it without `--plugin lightning`: it writes below the run directory only.
        folder: the argument with the directory that it writes to.
    """

    words: str
    state: str = "open"
    by_step: bool = False
    needs_logger: bool = False
    package: str = ""
    extra: str = ""
    is_admitted: bool = True
    folder: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it works."""
        return self.state == "open"


def _shut(instead: str) -> Door:
    return Door(f"expected {instead}", "shut")


def _base(inherit: str) -> Door:
    return Door(f"expected {inherit}", "base")


_EMA = "average=ema, whose averaged weights are what is evaluated and kept"
_OWN = "a class of a plugin that inherits from it (docs/plugins/callback.md)"

CALLBACKS: Mapping[str, Door] = {
    "BackboneFinetuning": _shut("a model of a plugin some of whose parameters have requires_grad=False"),
    "BaseFinetuning": _shut("a model of a plugin some of whose parameters have requires_grad=False"),
    "BasePredictionWriter": _shut("mlefw predict run=… output=…, which writes predictions"),
    "BatchSizeFinder": _shut("a sweep: mlefw train -m batch.size=32,64,128"),
    "Callback": _base(_OWN),
    "Checkpoint": _base(_OWN),
    "DeviceStatsMonitor": Door(
        "writes the load of the device to the loggers", by_step=True, needs_logger=True, package="psutil", extra="stats"
    ),
    "EarlyStopping": Door(
        "ends training where a figure such as `validation/nll_nats` no longer falls, counting evaluations; beside it "
        "`early_stopping.patience` counts epochs"
    ),
    "GradientAccumulationScheduler": _shut("batch=growing, whose batches are larger in later epochs"),
    "LambdaCallback": _shut("a callback of a plugin: settings hold no functions (docs/plugins/callback.md)"),
    "LearningRateFinder": _shut("a sweep: mlefw train -m optimizer.lr=1e-3,1e-2"),
    "LearningRateMonitor": Door(
        "writes the learning rate to the loggers (mlefw does so with each evaluation)", by_step=True, needs_logger=True
    ),
    "ModelCheckpoint": Door(
        "writes further checkpoints, by default into `model_checkpoints` of the run directory; mlefw evaluates and "
        "predicts with them (`run=FILE.ckpt`)",
        by_step=True,
        folder="dirpath",
    ),
    "ModelPruning": _shut("prior=l1, under which weights become exactly zero"),
    "ModelSummary": Door("prints a table of the layers"),
    "OnExceptionCheckpoint": Door("writes a checkpoint where training fails or is stopped", folder="dirpath"),
    "ProgressBar": _base(_OWN),
    "RichModelSummary": Door("prints a table of the layers"),
    "RichProgressBar": Door("a bar with a count of steps, in place of mlefw's line; `callback=rich`", by_step=True),
    "StochasticWeightAveraging": _shut(_EMA),
    "SpikeDetection": _shut("step.recoveries: training that diverges goes back to its last good state"),
    "ThroughputMonitor": _shut("rows_per_s, a figure that mlefw writes to every logger"),
    "Timer": Door("ends training after a time"),
    "TQDMProgressBar": Door("a bar with a count of steps, in place of mlefw's line; `callback=tqdm`", by_step=True),
    "EMAWeightAveraging": _shut(_EMA),
    "WeightAveraging": _shut(f"{_EMA}, or a rule of averaging of a plugin (docs/plugins/average.md)"),
}

LOGGERS: Mapping[str, Door] = {
    "LitLogger": _shut("logger=wandb, mlflow, csv or tensorboard: it needs an account of its own"),
    "CometLogger": _shut("logger=wandb, mlflow, csv or tensorboard: it needs an account of its own"),
    "CSVLogger": Door("figures as a file `metrics.csv`, settings as `hparams.yaml`; `logger=csv`", folder="save_dir"),
    "Logger": _base("a class of a plugin that inherits from it (docs/plugins/by_target.md)"),
    "MLFlowLogger": Door(
        "figures, settings and pictures in an MLflow store; `logger=mlflow`",
        package="mlflow",
        extra="mlflow",
        is_admitted=False,
    ),
    "TensorBoardLogger": Door(
        "figures, settings, pictures and distributions as event files; `logger=tensorboard`", folder="save_dir"
    ),
    "WandbLogger": Door(
        "figures, settings and pictures for Weights & Biases, offline unless told otherwise; `logger=wandb`",
        package="wandb",
        extra="wandb",
        is_admitted=False,
    ),
}

PROFILERS: Mapping[str, Door] = {
    "Profiler": _base("trainer.profiler=simple, advanced or pytorch"),
    "AdvancedProfiler": Door("`trainer.profiler=advanced`: the report of cProfile for each action"),
    "PassThroughProfiler": Door("`trainer.profiler=null`, the default: nothing is measured"),
    "PyTorchProfiler": Door("`trainer.profiler=pytorch`: times of kernels, and a trace for Chrome beside the report"),
    "SimpleProfiler": Door("`trainer.profiler=simple`: the time of each action of the training loop"),
    "XLAProfiler": _shut("trainer.profiler=pytorch: mlefw trains on CPUs and GPUs"),
}

_PACKAGES = {"callback": "callbacks", "logger": "loggers"}
"""The package of `lightning.pytorch` with the classes of a slot."""

DOORS: Mapping[str, Mapping[str, Door]] = {"callback": CALLBACKS, "logger": LOGGERS}
"""The doors of each slot that takes classes of Lightning."""


def admitted_names(slot: str) -> tuple[str, ...]:
    """Full names of the classes of Lightning that settings may name in a slot without `--plugin`."""
    package = f"lightning.pytorch.{_PACKAGES[slot]}"
    return tuple(f"{package}.{name}" for name, door in DOORS[slot].items() if door.is_open and door.is_admitted)


def door_of(slot: str, found: type) -> Door | None:
    """The door of a class, or of the nearest class of Lightning that it inherits from; None if there is none."""
    for number, one in enumerate(found.__mro__):
        door = _named(slot, f"{one.__module__}.{one.__qualname__}")
        if door is not None and (number == 0 or door.state != "base"):
            return door
    return None


def refusal(slot: str, target: str) -> str | None:
    """What was expected in place of a class of Lightning by its full name; None if it is not one, or works."""
    door = _named(slot, target)
    return door.words.removeprefix("expected ") if door is not None and not door.is_open else None


def _named(slot: str, target: str) -> Door | None:
    package, name = _PACKAGES.get(slot), target.rpartition(".")[2]
    is_known = package is not None and target.startswith(f"lightning.pytorch.{package}.")
    return DOORS[slot].get(name) if is_known else None
