"""The kinds of parts that a configuration may name, and where classes of each are kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of part.

    Args:
        bases: the classes of which a part has to inherit one, by their names.
        homes: the packages of mlefw and its libraries that hold such classes.
        doors: packages that offer classes of the homes under names of their own.
        names: the only ones of them that are admitted, where the kind does not say that a part does no harm.
        nests: whether a part may hold others of its kind.
        many: whether the slot holds parts by name.
        deferred: whether its last argument comes later, as the parameters of an optimiser do.
    """

    bases: tuple[str, ...]
    homes: tuple[str, ...] = ()
    doors: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    nests: bool = False
    many: bool = False
    deferred: bool = False


KINDS = {
    "head": Kind(("mlefw.head.base.Head",), ("mlefw.head",), nests=True),
    "prior": Kind(("mlefw.prior.base.Prior",), ("mlefw.prior",)),
    "loss": Kind(("mlefw.loss.base.Loss",), ("mlefw.loss",)),
    "batch": Kind(("mlefw.batch.base.BatchRegime",), ("mlefw.batch",)),
    "average": Kind(("mlefw.average.base.Average",), ("mlefw.average",)),
    "inputs": Kind(("mlefw.inputs.base.Inputs",), ("mlefw.inputs",), nests=True),
    "model": Kind(("torch.nn.Module",), ("mlefw.model", "torch.nn"), nests=True),
    "data": Kind(("mlefw.data.base.Source",), ("mlefw.data",)),
    "baseline": Kind(
        ("mlefw.baseline.linear.LinearBaseline", "mlefw.baseline.base.Solver"), ("mlefw.baseline",), nests=True
    ),
    "calibrate": Kind(("mlefw.calibrate.base.Calibration",), ("mlefw.calibrate",)),
    "uncertainty": Kind(("mlefw.uncertainty.base.Method",), ("mlefw.uncertainty",)),
    "cv": Kind(("mlefw.cv.base.Scheme",), ("mlefw.cv",)),
    "ensemble": Kind(("mlefw.ensemble.base.Ensemble",), ("mlefw.ensemble",)),
    "experiment": Kind(("mlefw.experiment.base.Experiment",), ("mlefw.experiment",)),
    # Others of torchmetrics load models from the network.
    "metric": Kind(
        ("mlefw.metric.base.Metric", "torchmetrics.Metric"),
        ("mlefw.metric", "torchmetrics.regression", "torchmetrics.classification"),
        doors=("torchmetrics",),
        many=True,
    ),
    "optimizer": Kind(("torch.optim.Optimizer",), ("torch.optim",), deferred=True),
    "scheduler": Kind(("torch.optim.lr_scheduler.LRScheduler",), ("torch.optim",), deferred=True),
    "trainer": Kind(("lightning.Trainer",), names=("lightning.Trainer",)),
    # These are handed the whole training, and many of Lightning's write wherever they are told to, or upload.
    "callback": Kind(
        ("lightning.Callback",),
        names=(
            *("mlefw.callback.progress.ShowProgress", "mlefw.callback.converged.StopWhenConverged"),
            *(
                f"lightning.pytorch.callbacks.{name}"
                for name in (
                    *("DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "ModelSummary"),
                    *("RichModelSummary", "RichProgressBar", "TQDMProgressBar", "Timer"),
                )
            ),
        ),
        many=True,
    ),
    "logger": Kind(
        ("lightning.pytorch.loggers.Logger",),
        names=("mlefw.callback.event_files.EventFiles", "lightning.pytorch.loggers.CSVLogger"),
        many=True,
    ),
    "hydra.launcher": Kind(
        ("hydra.plugins.launcher.Launcher", "mlefw.sweep.launcher.ForkLauncher"),
        names=(
            "mlefw.sweep.launcher.ForkLauncher",
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
            "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        ),
    ),
    "hydra.sweeper": Kind(
        ("hydra.plugins.sweeper.Sweeper",),
        names=("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",),
    ),
}
"""By the slot of the configuration in which parts of a kind stand."""
