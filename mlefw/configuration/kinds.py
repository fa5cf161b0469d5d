"""The kinds of parts that a configuration may describe, and which classes are admitted for each kind."""

from dataclasses import dataclass

from mlefw.configuration.lightning_doors import admitted_names


@dataclass(frozen=True)
class Kind:
    """A kind of part. Classes, modules and packages are given by their full names, since nothing is imported here.

    Args:
        bases: base classes, one of which a part has to inherit.
        homes: packages whose classes of this kind are admitted.
        reexports: packages that import classes from `homes`, and may be named in their place.
        names: single classes that are admitted, for kinds in which others could write files or start processes.
        nests: whether a part may have parts of its kind as arguments.
        many: whether the slot holds several parts by name, as `metric` does.
        deferred: whether the part is a function that builds the object later, from one more argument: an optimiser
            needs the parameters of the model.
    """

    bases: tuple[str, ...]
    homes: tuple[str, ...] = ()
    reexports: tuple[str, ...] = ()
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
    "augment": Kind(("mlefw.augment.base.Augment",), ("mlefw.augment",)),
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
    # Two packages of torchmetrics alone: metrics in others load models from the network.
    "metric": Kind(
        ("mlefw.metric.base.Metric", "torchmetrics.Metric"),
        ("mlefw.metric", "torchmetrics.regression", "torchmetrics.classification"),
        reexports=("torchmetrics",),
        many=True,
    ),
    "optimizer": Kind(("torch.optim.Optimizer",), ("torch.optim",), deferred=True),
    "scheduler": Kind(("torch.optim.lr_scheduler.LRScheduler",), ("mlefw.scheduler", "torch.optim"), deferred=True),
    "trainer": Kind(("lightning.Trainer",), names=("lightning.Trainer",)),
    # Single classes: others of Lightning may write files anywhere, or upload.
    "callback": Kind(
        ("lightning.Callback",),
        names=(
            *("mlefw.callback.progress.ShowProgress", "mlefw.callback.converged.StopWhenConverged"),
            "mlefw.sweep.search.watch.WatchTrial",
            *admitted_names("callback"),
        ),
        many=True,
    ),
    "logger": Kind(
        ("lightning.pytorch.loggers.Logger",),
        names=(
            *("mlefw.callback.event_files.EventFiles", "mlefw.callback.mlflow_run.MlflowRun"),
            "mlefw.callback.wandb_run.WandbRun",
            *admitted_names("logger"),
        ),
        many=True,
    ),
    "hydra.launcher": Kind(
        ("hydra.plugins.launcher.Launcher", "mlefw.sweep.launcher.ForkLauncher"),
        names=(
            "mlefw.sweep.launcher.ForkLauncher",
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
            "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
            "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
            "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
            "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
        ),
    ),
    "hydra.sweeper": Kind(
        ("hydra.plugins.sweeper.Sweeper", "mlefw.sweep.search.settings.SearchSettings"),
        names=(
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
            "mlefw.sweep.search.settings.SearchSettings",
        ),
    ),
}
"""The kind of the parts in each slot, a section of the configuration."""
