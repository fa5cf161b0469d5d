"""Every argument of Lightning's trainer: what it may be here, and what it does or what to use in its place.

`tests/run/test_lightning.py` holds the table to the signature of `lightning.Trainer`, tries each argument, and holds
`docs/lightning.md` to it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mlefw.configuration.bounds import NULL, Range, either, fixed, is_time, one_of, whole


class Argument(NamedTuple):
    """An argument of Lightning's trainer.

    Attributes:
        effect: what it does, for the documentation; empty where it is refused.
        range: what it may be; None where the run checks that against the machine.
    """

    effect: str
    range: Range | None

    @property
    def is_open(self) -> bool:
        """Whether it may be set to anything but its default."""
        return self.effect != ""

    @property
    def words(self) -> str:
        """What it does; or what to use in its place."""
        return self.effect or (self.range.words if self.range is not None else "")


def _refused(default: Any, instead: str) -> Argument:
    """An argument that may be left at its default only, since it would have another effect than it promises."""
    return Argument("", fixed(default, f"expected {instead}"))


_CLIPPING = "step.clip_norm, a bound on the norm of the gradient"
_ALL_ROWS = "to be left out: mlefw evaluates all rows of a split at once"
_SHARE = Range(lambda v: isinstance(v, float) and 0 < v <= 1, "a share of the batches above 0 and up to 1.0")
_BATCHES = either(NULL, _SHARE, whole(1))
_COUNT = either(NULL, whole(0))
_SWITCH = one_of(None, True, False)
_TIME = Range(is_time, "a positive time, such as 00:01:30:00 (days:hours:minutes:seconds)")

ARGUMENTS: Mapping[str, Argument] = {
    "accelerator": Argument("`auto`, `cpu` or `gpu`: where the network is trained", None),
    "strategy": Argument(
        "`ddp`, `fsdp`: processes share each batch, with `fsdp` the parameters, too", one_of("auto", "ddp", "fsdp")
    ),
    "devices": Argument("number of devices of a machine, with `strategy=ddp` or `fsdp`", None),
    "num_nodes": Argument("number of machines, each with its processes started by srun or torchrun", None),
    "precision": Argument("`32-true`, `64-true` or `bf16-mixed`; the likelihood always has 64 bits", None),
    "logger": _refused(None, "logger=, a group, such as logger=[tensorboard,csv]"),
    "callbacks": _refused(None, "callback=, a group; +callback.NAME._target_=… adds one"),
    "fast_dev_run": _refused(False, "trainer.max_epochs=1, or mlefw check, which trains nothing"),
    "max_epochs": Argument("training ends after so many epochs", either(NULL, whole(1, (-1,)))),
    "min_epochs": Argument("nothing ends training before so many epochs", _COUNT),
    "max_steps": Argument("training ends after so many steps", whole(1, (-1,))),
    "min_steps": Argument("nothing ends training before so many steps", _COUNT),
    "max_time": Argument("training ends after this time, days:hours:minutes:seconds", either(NULL, _TIME)),
    "limit_train_batches": Argument("an epoch has so many of its batches, or this share of them", _BATCHES),
    "limit_val_batches": Argument(
        "an evaluation has so many blocks of 8,192 rows, or this share of them; the figures at the end are of all rows",
        _BATCHES,
    ),
    "limit_test_batches": _refused(None, _ALL_ROWS),
    "limit_predict_batches": _refused(None, _ALL_ROWS),
    "overfit_batches": Argument(
        "the same first batches in each epoch, so many or this share", either(one_of(0.0, 0), _BATCHES)
    ),
    "val_check_interval": _refused(1.0, "trainer.check_val_every_n_epoch, a number of epochs"),
    "check_val_every_n_epoch": Argument("an evaluation after every so many epochs", whole(1)),
    "num_sanity_val_steps": Argument(
        "0: no evaluation before training; any other number: one of all rows", either(NULL, whole(0, (-1,)))
    ),
    "log_every_n_steps": Argument(
        "how often callbacks write to loggers that do so within epochs; mlefw's figures come with each evaluation",
        _COUNT,
    ),
    "enable_checkpointing": _refused(True, "to be left out: the best and the last state are always kept"),
    "enable_progress_bar": Argument("true: Lightning's bar in place of mlefw's line", _SWITCH),
    "enable_model_summary": Argument("true: a table of the layers", _SWITCH),
    "accumulate_grad_batches": _refused(1, "a larger batch.size, which is the same"),
    "gradient_clip_val": _refused(None, _CLIPPING),
    "gradient_clip_algorithm": _refused(None, _CLIPPING),
    "deterministic": Argument("kernels of torch that round alike in each run", one_of(None, True, False, "warn")),
    "benchmark": Argument("cuDNN looks for its fastest kernels", _SWITCH),
    "inference_mode": Argument("none that can be seen: evaluations compute no gradients either way", _SWITCH),
    "use_distributed_sampler": _refused(True, "to be left out: processes share the rows of each batch by themselves"),
    "profiler": Argument(
        "`simple`, `advanced`, `pytorch`: a report of times, printed and in `profile.txt` of the run directory",
        one_of(None, "simple", "advanced", "pytorch"),
    ),
    "detect_anomaly": Argument("an error where a backward pass gives NaN, with where that came from", _SWITCH),
    "barebones": _refused(False, "plots=false report=false logger=none, which leave out what they say"),
    "plugins": _refused(None, "to be left out: mlefw has its own, for whole checkpoints"),
    "sync_batchnorm": _refused(
        False, "another normalisation, such as GroupNorm: batches of several processes are never normalised in parts"
    ),
    "reload_dataloaders_every_n_epochs": _refused(0, "batch=growing: batches are drawn anew each epoch"),
    "default_root_dir": _refused(None, "run_dir, which says where the run is written"),
    "enable_autolog_hparams": Argument("false: loggers do not get the settings", _SWITCH),
    "model_registry": _refused(None, "to be left out: checkpoints are files of the run directory"),
}
