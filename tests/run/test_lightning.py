"""Every callback, logger, profiler and trainer argument of Lightning: it does what it promises, or is refused by name.

The members are those of Lightning's own lists: one that a later version adds fails here until it is decided.
"""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from csv import DictReader
from pathlib import Path
from typing import Any

import lightning
import lightning_runs
import numpy as np
import pytest
import torch
from lightning.pytorch import callbacks, loggers, profilers
from lightning.pytorch.loggers.logger import DummyLogger
from lightning_runs import QUICK, SEEN, Run, fit, in_a_step, settings, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlefw.callback.event_files import EventFiles
from mlefw.command import train
from mlefw.configuration.lightning_doors import CALLBACKS, LOGGERS, PROFILERS, Door
from mlefw.configuration.read import settings_of
from mlefw.configuration.settings import TrainerSettings
from mlefw.configuration.trainer_arguments import ARGUMENTS
from mlefw.distributed import topology
from mlefw.errors import NumericalError, UsageError
from mlefw.run import archive, lightning_parts, resume
from mlefw.run import trainer as run_trainer
from mlefw.run.prepare import prepare
from mlefw.system import trust
from mlefw.training.anomaly import anomalies_as_errors

# Lightning calls a part of torch that torch has deprecated, and warns of settings that are meant here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:lightning", "ignore:.*_pytree"
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lightning_runs.prepare(tmp_path, monkeypatch)
    yield


def added(name: str, **given: Any) -> list[str]:
    """Settings that add a callback of Lightning."""
    own = [f"+callback.one.{key}={value}" for key, value in given.items()]
    return [f"+callback.one._target_=lightning.pytorch.callbacks.{name}", *own]


# The watched effects. Each trains a small run, and looks for what Lightning's documentation promises.

RISING = {"monitor": "validation/crps", "mode": "max", "patience": 1}
"""Early stopping that takes a falling figure for a bad sign: it stops at the second evaluation."""


def early_stopping(folder: Path) -> None:
    assert fit(folder, *added("EarlyStopping", **RISING), "trainer.max_epochs=9").summary["num_epochs"] == 2


def learning_rates(folder: Path, *given: str) -> list[float]:
    run = fit(folder, *added("LearningRateMonitor", logging_interval="step"), "logger=csv", *given)
    return run.column("lr-Adam", "csv/version_0/metrics.csv")


def learning_rate_monitor(folder: Path) -> None:
    assert learning_rates(folder, "+trainer.log_every_n_steps=1", "optimizer.lr=0.02") == [0.02] * 6


def model_checkpoint(folder: Path) -> None:
    fit(folder, *added("ModelCheckpoint", save_top_k=-1, every_n_train_steps=2))
    files = {file.stem: file for file in (folder / "model_checkpoints").iterdir()}
    assert files.keys() == {"epoch=0-step=2", "epoch=1-step=4", "epoch=1-step=6"}
    last = weights(archive.read(folder / "checkpoints" / "last.ckpt"))
    for name, value in weights(archive.read(files["epoch=1-step=6"])).items():
        assert torch.equal(value, last[name])


def model_summary(folder: Path) -> None:
    assert re.search(r"4 +Total params", fit(folder, *added("ModelSummary")).messages)


def on_exception_checkpoint(folder: Path) -> None:
    with pytest.raises(ArithmeticError, match="on purpose"):
        fit(
            folder, *added("OnExceptionCheckpoint"), "+callback.fails._target_=lightning_runs.Fails", "step.per_chunk=1"
        )
    assert archive.read(folder / "model_checkpoints" / "on_exception.ckpt")["resume"]["step"] == 4


def timer(folder: Path) -> None:
    run = fit(folder, *added("Timer", duration="00:00:00:00", interval="step"), "trainer.max_epochs=50")
    assert run.summary["num_steps"] < 150


def printed(capsys: pytest.CaptureFixture[str], folder: Path, *given: str) -> str:
    capsys.readouterr()
    fit(folder, *given)
    out, err = capsys.readouterr()
    return out + err


CALLBACK_WATCHES: dict[str, Callable[..., None]] = {
    "EarlyStopping": early_stopping,
    "LearningRateMonitor": learning_rate_monitor,
    "ModelCheckpoint": model_checkpoint,
    "ModelSummary": model_summary,
    "OnExceptionCheckpoint": on_exception_checkpoint,
    "Timer": timer,
}
PRINTS = {"RichModelSummary": "Total params: 4", "RichProgressBar": "3/3", "TQDMProgressBar": "3/3"}
"""What callbacks print of a run of two epochs of three steps and four parameters."""


def csv_logger(folder: Path) -> None:
    run = fit(folder, "logger=csv")
    assert run.column("validation/nll_nats", "csv/version_0/metrics.csv") == run.column("validation/nll_nats")
    assert "batch.size: 12" in (folder / "csv" / "version_0" / "hparams.yaml").read_text()


def tensorboard_logger(folder: Path) -> None:
    target = "lightning.pytorch.loggers.TensorBoardLogger"
    run = fit(folder, f"+logger.t={{_target_:{target},save_dir:{folder}/tb,name:'',version:''}}")
    log = EventAccumulator(str(folder / "tb")).Reload()
    assert np.allclose([one.value for one in log.Scalars("validation/nll_nats")], run.column("validation/nll_nats"))


LOGGER_WATCHES = {"CSVLogger": csv_logger, "TensorBoardLogger": tensorboard_logger}


def profile(folder: Path, name: str) -> str:
    fit(folder, f"+trainer.profiler={name}")
    return (folder / "profile.txt").read_text()


def simple_profiler(folder: Path) -> None:
    report = profile(folder, "simple")
    calls = dict(re.findall(r"\| +(\S+) +\t\| +\S+ +\t\| +(\d+)", report))
    assert (calls["run_training_epoch"], calls["run_training_batch"]) == ("2", "6")
    hooks = ("[Strategy]SingleDeviceStrategy.training_step", "[LightningModule]LikelihoodModule.on_after_backward")
    assert [calls[hook] for hook in hooks] == ["6", "6"]


def advanced_profiler(folder: Path) -> None:
    report = profile(folder, "advanced")
    assert "Profile stats for: run_training_batch" in report and "function calls" in report


def pytorch_profiler(folder: Path) -> None:
    assert re.search(r"aten::\w+", profile(folder, "pytorch"))
    assert list(folder.glob("*.pt.trace.json"))


def no_profiler(folder: Path) -> None:
    fit(folder)
    assert not (folder / "profile.txt").exists()


PROFILER_WATCHES = {
    "AdvancedProfiler": advanced_profiler,
    "PassThroughProfiler": no_profiler,
    "PyTorchProfiler": pytorch_profiler,
    "SimpleProfiler": simple_profiler,
}


def devices(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"expected 1, or beside it trainer\.strategy=ddp"):
        prepare(settings_of(settings("trainer.devices=2")), None)
    assert topology.num_to_start(TrainerSettings.of({"devices": 2, "strategy": "ddp"})) == 2


def num_nodes(folder: Path) -> None:
    with pytest.raises(UsageError, match="as srun and torchrun do"):
        prepare(settings_of(settings("+trainer.num_nodes=2", "+trainer.strategy=ddp")), None)


def strategy(folder: Path) -> None:
    shared = [topology.is_shared(TrainerSettings.of({"strategy": name})) for name in ("auto", "ddp", "fsdp")]
    assert shared == [False, True, True]
    with pytest.raises(UsageError, match=r"trainer\.strategy='deepspeed': expected auto or ddp or fsdp"):
        settings("+trainer.strategy=deepspeed")


def accelerator(folder: Path) -> None:
    fit(folder, "trainer.accelerator=cpu", probe=lambda trainer, module, chunk=None: type(trainer.accelerator).__name__)
    assert set(SEEN.at["step"]) == {"CPUAccelerator"}


def precision(folder: Path) -> None:
    fit(folder, "trainer.precision=64-true", probe=lambda trainer, module, chunk=None: next(module.parameters()).dtype)
    assert set(SEEN.at["step"]) == {torch.float64}


def steps_and_epochs(folder: Path, *given: str) -> tuple[int, int]:
    summary = fit(folder, *given).summary
    return summary["num_steps"], summary["num_epochs"]


def max_epochs(folder: Path) -> None:
    assert steps_and_epochs(folder, "trainer.max_epochs=3") == (9, 3)


def min_epochs(folder: Path) -> None:
    stops = (*added("EarlyStopping", **RISING), "trainer.max_epochs=9")
    assert steps_and_epochs(folder, *stops, "+trainer.min_epochs=4") == (12, 4)


def max_steps(folder: Path) -> None:
    assert steps_and_epochs(folder, "+trainer.max_steps=4")[0] == 4


def min_steps(folder: Path) -> None:
    stops = (*added("EarlyStopping", **RISING), "trainer.max_epochs=9")
    assert steps_and_epochs(folder, *stops, "+trainer.min_steps=15") == (15, 5)


def max_time(folder: Path) -> None:
    assert steps_and_epochs(folder, "+trainer.max_time={seconds: 0.000001}", "trainer.max_epochs=50")[1] < 50


def limit_train_batches(folder: Path) -> None:
    assert steps_and_epochs(folder / "number", "+trainer.limit_train_batches=2") == (4, 2)
    assert steps_and_epochs(folder / "share", "+trainer.limit_train_batches=0.7") == (4, 2)
    with pytest.raises(UsageError, match=r"limit_train_batches=0\.1 of 3 steps is none"):
        prepare(settings_of(settings("+trainer.limit_train_batches=0.1")), None)
    with pytest.raises(UsageError, match="a share of epochs of different lengths"):
        prepare(settings_of(settings("+trainer.limit_train_batches=0.5", "batch=growing", "batch.size=3")), None)


def limit_val_batches(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_trainer, "rows_at_once", lambda *given: 6)  # 36 and 12 rows: six blocks and two
        given = ("+callback.blocks._target_=lightning_runs.Blocks", "trainer.num_sanity_val_steps=0")
        every = "trainer.check_val_every_n_epoch=1"
        fit(folder / "all", *given, f"+{every}")
        assert len(SEEN.at["block"]) == 2 * (6 + 2)
        fit(folder / "some", *given, f"+{every}", "+trainer.limit_val_batches=1")
        assert len(SEEN.at["block"]) == 2 * (1 + 1)
    with pytest.raises(UsageError, match=r"the train rows are 1 blocks of 8192 rows"):
        prepare(settings_of(settings("+trainer.limit_val_batches=0.5")), None)


def overfit_batches(folder: Path) -> None:
    def rows(trainer: Any, module: Any, chunk: Any = None) -> Any:
        return None if chunk is None else sorted(next(iter(chunk.batches())).rows.y.flatten().tolist())

    fit(folder / "one", "+trainer.overfit_batches=1", "trainer.max_epochs=3", probe=rows)
    first, *others = SEEN.at["step"]
    assert len(others) == 2 and others == [first, first]
    fit(folder / "all", "+trainer.limit_train_batches=1", "trainer.max_epochs=3", probe=rows)
    assert len({tuple(one) for one in SEEN.at["step"]}) == 3


def check_val_every_n_epoch(folder: Path) -> None:
    run = fit(folder, "+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4")
    assert run.column("epoch") == [-1, 1, 3]


def num_sanity_val_steps(folder: Path) -> None:
    assert fit(folder / "none", "trainer.num_sanity_val_steps=0").column("epoch") == [0, 1]
    run = fit(folder / "two", "trainer.num_sanity_val_steps=2")
    assert run.column("epoch") == [-1, 0, 1]


def log_every_n_steps(folder: Path) -> None:
    assert len(learning_rates(folder, "+trainer.log_every_n_steps=3")) == 2


def deterministic(folder: Path) -> None:
    fit(folder, "+trainer.deterministic=true", probe=in_a_step(torch.are_deterministic_algorithms_enabled))
    assert all(SEEN.at["step"]) and not torch.are_deterministic_algorithms_enabled()


def benchmark(folder: Path) -> None:
    fit(folder, "+trainer.benchmark=true", probe=in_a_step(lambda: torch.backends.cudnn.benchmark))
    assert all(SEEN.at["step"])


def inference_mode(folder: Path) -> None:
    for mode in ("true", "false"):
        seen: list[tuple[bool, bool]] = []

        def hook(model: torch.nn.Module, given: Any, seen: list[tuple[bool, bool]] = seen) -> None:
            seen.append((model.training, torch.is_grad_enabled()))

        def probe(trainer: Any, module: Any, chunk: Any = None, hook: Any = hook) -> None:
            if not module.objective.model.model._forward_pre_hooks:
                module.objective.model.model.register_forward_pre_hook(hook)

        fit(folder / mode, f"+trainer.inference_mode={mode}", probe=probe)
        assert set(seen) == {(True, True), (False, False)}


def detect_anomaly(folder: Path) -> None:
    fit(folder, "+trainer.detect_anomaly=true", probe=in_a_step(torch.is_anomaly_enabled))
    assert all(SEEN.at["step"])
    expected = pytest.raises(NumericalError, match=r"nan[\s\S]*zero = ")
    with torch.autograd.set_detect_anomaly(True), expected, anomalies_as_errors():
        zero = torch.zeros(1, requires_grad=True).sqrt() * 0
        zero.sum().backward()


def enable_autolog_hparams(folder: Path) -> None:
    fit(folder, "logger=csv", "+trainer.enable_autolog_hparams=false")
    assert sorted(file.name for file in (folder / "csv" / "version_0").iterdir()) == ["metrics.csv"]


ARGUMENT_WATCHES = {
    one.__name__: one
    for one in (
        *(accelerator, benchmark, check_val_every_n_epoch, detect_anomaly, deterministic, devices),
        *(enable_autolog_hparams, inference_mode, limit_train_batches, limit_val_batches, log_every_n_steps),
        *(max_epochs, max_steps, max_time, min_epochs, min_steps, num_nodes, num_sanity_val_steps, overfit_batches),
        *(precision, strategy),
    )
}
ARGUMENT_PRINTS = {"enable_progress_bar": "3/3", "enable_model_summary": "Total params: 4"}
REFUSED_VALUES = {
    **{"logger": "true", "callbacks": "[x]", "plugins": "x", "fast_dev_run": "true", "barebones": "true"},
    **{"limit_test_batches": "1", "limit_predict_batches": "1", "enable_checkpointing": "false"},
    **{"accumulate_grad_batches": "2", "gradient_clip_val": "1.0", "gradient_clip_algorithm": "norm"},
    **{"use_distributed_sampler": "false", "sync_batchnorm": "true", "reload_dataloaders_every_n_epochs": "1"},
    **{"default_root_dir": "x", "model_registry": "x", "val_check_interval": "2"},
}
"""A value of each argument that is refused."""


# The tables against Lightning's lists.


def opened(doors: Any) -> list[str]:
    return [name for name, door in doors.items() if door.is_open and not getattr(door, "package", "")]


@pytest.mark.parametrize(
    ("doors", "names", "watched"),
    [
        (CALLBACKS, callbacks.__all__, {*CALLBACK_WATCHES, *PRINTS}),
        (LOGGERS, loggers.__all__, {*LOGGER_WATCHES}),
        (PROFILERS, profilers.__all__, {*PROFILER_WATCHES}),
        (
            ARGUMENTS,
            list(inspect.signature(lightning.Trainer.__init__).parameters)[1:],
            {*ARGUMENT_WATCHES, *ARGUMENT_PRINTS, "profiler"},  # the profilers are tried one by one
        ),
    ],
    ids=["callbacks", "loggers", "profilers", "arguments"],
)
def test_each_member_of_lightning_is_decided_and_tried(doors: Any, names: list[str], watched: set[str]) -> None:
    assert sorted(doors) == sorted(names)
    assert sorted(opened(doors)) == sorted(watched)
    if doors is ARGUMENTS:
        assert {name for name, argument in ARGUMENTS.items() if not argument.is_open} == set(REFUSED_VALUES)


@pytest.mark.parametrize("name", CALLBACK_WATCHES)
def test_a_callback_works(name: str, tmp_path: Path) -> None:
    CALLBACK_WATCHES[name](tmp_path / "run")


@pytest.mark.parametrize("name", PRINTS)
def test_a_callback_prints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PRINTS[name] in printed(capsys, tmp_path / "run", *added(name))


@pytest.mark.parametrize("name", LOGGER_WATCHES)
def test_a_logger_works(name: str, tmp_path: Path) -> None:
    LOGGER_WATCHES[name](tmp_path / "run")


@pytest.mark.parametrize("name", PROFILER_WATCHES)
def test_a_profiler_works(name: str, tmp_path: Path) -> None:
    PROFILER_WATCHES[name](tmp_path / "run")


@pytest.mark.parametrize("name", ARGUMENT_WATCHES)
def test_an_argument_works(name: str, tmp_path: Path) -> None:
    ARGUMENT_WATCHES[name](tmp_path / "run")


@pytest.mark.parametrize("name", ARGUMENT_PRINTS)
def test_an_argument_prints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ARGUMENT_PRINTS[name] in printed(capsys, tmp_path / "run", f"trainer.{name}=true")


CLOSED = [
    (slot, name, door)
    for slot, doors in (("callback", CALLBACKS), ("logger", LOGGERS))
    for name, door in doors.items()
    if not door.is_open
]


@pytest.mark.parametrize(("slot", "name", "door"), CLOSED, ids=[name for _, name, _ in CLOSED])
def test_a_class_is_refused_by_name_with_what_to_use(slot: str, name: str, door: Door) -> None:
    with pytest.raises(UsageError, match=re.escape(door.words)) as caught:
        settings(f"+{slot}.one._target_=lightning.pytorch.{slot}s.{name}")
    assert name in str(caught.value)
    plugin = f"+{slot}.one._target_=lightning_runs.My{name}"
    if door.state == "shut":
        with pytest.raises(UsageError, match=re.escape(door.words)):
            settings(plugin)
    else:
        settings(plugin)


@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_an_argument_is_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(UsageError, match=rf"trainer\.{name}=.*: {re.escape(ARGUMENTS[name].words)}"):
        settings(f"+trainer.{name}={REFUSED_VALUES[name]}")


@pytest.mark.parametrize("name", [name for name, door in PROFILERS.items() if not door.is_open])
def test_a_profiler_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="simple, advanced or pytorch"):
        settings(f"+trainer.profiler._target_=lightning.pytorch.profilers.{name}")
    with pytest.raises(UsageError, match="simple or advanced or pytorch"):
        settings("+trainer.profiler=xla")


PACKAGES = [
    ("logger=mlflow", "mlflow", "mlflow"),
    ("logger=wandb", "wandb", "wandb"),
    ("+callback.one._target_=lightning.pytorch.callbacks.DeviceStatsMonitor", "psutil", "stats"),
]


@pytest.mark.parametrize(("given", "package", "extra"), PACKAGES)
def test_a_missing_package_is_found_before_training(
    given: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr("mlefw.run.lightning_parts.find_spec", lambda name: None if name == package else known(name))
    with pytest.raises(UsageError, match=rf"needs the package {package}.*\n.*pip install 'mlefw\[{extra}\]'"):
        prepare(settings_of(settings(given)), None)


def test_the_command_line_ends_with_a_message_and_nothing_is_written(mlefw: Any, tmp_path: Path) -> None:
    done = mlefw(
        "train", *QUICK, "+callback.one._target_=lightning.pytorch.callbacks.StochasticWeightAveraging", "run_dir=r"
    )
    assert done.returncode == 2 and "average=ema" in done.stderr and not (tmp_path / "r").exists()


def test_a_callback_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="writes to loggers, and there are none"):
        prepare(settings_of(settings(*added("LearningRateMonitor"))), None)
    with pytest.raises(UsageError, match=r"one\.monitor=validation/crsp.* Did you mean 'validation/crps'"):
        prepare(settings_of(settings(*added("EarlyStopping", monitor="validation/crsp"))), None)


def test_checkpoints_of_lightning_go_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = added("ModelCheckpoint", dirpath=tmp_path / "new" / "folder", monitor="validation/crps")
    fit(tmp_path / "run", *given)
    assert [file.suffix for file in (tmp_path / "new" / "folder").iterdir()] == [".ckpt"]
    monkeypatch.setattr(trust, "_in_process", {})
    monkeypatch.setattr(lightning_runs, "PLUGINS", ())
    with pytest.raises(UsageError, match=r"callback\.one writes to .* expected a place below"):
        settings(*given)
    with pytest.raises(UsageError, match=r"callback\.one writes to .* expected a place below"):
        settings(*added("ModelCheckpoint", filename="../../x"))


def test_what_watches_single_steps_changes_no_result(tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain").summary["metrics"]
    for name, given in {"bar": ["trainer.enable_progress_bar=true"], "checkpoints": added("ModelCheckpoint")}.items():
        assert fit(tmp_path / name, *given).summary["metrics"] == plain


def test_a_run_with_callbacks_and_loggers_goes_on_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    given = [*added("ModelCheckpoint", save_top_k=2, monitor="validation/nll_nats"), "logger=csv"]
    given += [
        "+callback.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor",
        "+trainer.log_every_n_steps=1",
    ]
    whole = fit(tmp_path / "whole", *given, "trainer.max_epochs=4")
    fit(tmp_path / "part", *given)
    part = tmp_path / "part"
    config = resume.settings(part, ["trainer.max_epochs=4"], [], lightning_runs.PLUGINS)
    summary = train.run(config, part)
    assert summary["metrics"] == whole.summary["metrics"]
    assert sorted(one.name for one in (part / "model_checkpoints").iterdir()) == [
        "epoch=2-step=9.ckpt",
        "epoch=3-step=12.ckpt",
    ]
    again = Run(part, summary, "")
    assert again.column("step", "csv/version_1/metrics.csv")[-1] == 12


def of_epochs(run: Run, name: str, version: int = 0) -> list[tuple[float, float]]:
    """The steps and values of a figure that a callback of one's own has logged."""
    with (run.folder / "csv" / f"version_{version}" / "metrics.csv").open() as rows:
        return [(float(row["step"]), float(row[name])) for row in DictReader(rows) if row.get(name)]


def test_a_callback_of_ones_own_sees_each_step_logs_and_keeps_what_grows(tmp_path: Path) -> None:
    given = ["+callback.mine._target_=lightning_runs.Losses", "logger=csv"]
    run = fit(tmp_path / "run", *given, "trainer.max_epochs=2")
    assert of_epochs(run, "mine/num_losses") == [(2, 3), (5, 6)]  # Lightning counts steps from 0
    content = archive.read(run.folder / "checkpoints" / "last.ckpt")
    (losses,) = (state["losses"] for state in content["callbacks"].values() if "losses" in state)
    assert [*losses] == [f"step {k}" for k in range(1, 7)]
    # The mean of an epoch's steps is what the evaluation after it notes of them.
    assert np.mean([*losses.values()][3:]) == pytest.approx(run.column("train/step_loss")[-1], rel=1e-12)
    config = resume.settings(run.folder, ["trainer.max_epochs=3"], [], lightning_runs.PLUGINS)
    train.run(config, run.folder)
    assert of_epochs(run, "mine/num_losses", version=1) == [(8, 9)]


def test_what_is_logged_stands_at_its_step_where_lightning_gets_several_at_a_time(tmp_path: Path) -> None:
    seen = ("+callback.mine._target_=lightning_runs.Logs", "logger=csv", "trainer.max_epochs=3")
    for per_chunk in ("auto", 2):
        run = fit(tmp_path / str(per_chunk), *seen, f"step.per_chunk={per_chunk}")
        assert of_epochs(run, "mine/epoch") == [(2, 0), (5, 1), (8, 2)]


def test_of_several_processes_the_first_alone_logs_and_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["logger=[csv,tensorboard]", "+trainer.profiler=simple", "+trainer.strategy=ddp"]
    config = settings_of(settings(*given, run_dir=tmp_path / "run"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MLEFW_RANKS", "2")
    kinds = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        made = lightning_parts.build_loggers(config, tmp_path / "run")
        kinds.append([*map(type, made), type(lightning_parts.build_profiler(config, tmp_path / "run"))])
    assert kinds[0] == [loggers.CSVLogger, EventFiles, profilers.SimpleProfiler]
    assert kinds[1] == [DummyLogger, DummyLogger, type(None)]


@pytest.mark.slow
def test_two_processes_have_one_profile_one_log_and_one_bar(mlefw: Any, tmp_path: Path) -> None:
    given = [item for item in QUICK if not item.startswith(("logger=", "callback="))]
    shared = ["+trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    watched = ["+trainer.profiler=simple", "logger=csv", "callback=tqdm"]
    rates = ["+callback.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor"]
    rates += ["+callback.rates.logging_interval=step"]
    done = mlefw("train", *given, *shared, *watched, *rates, "+trainer.log_every_n_steps=1", "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert len(Run(tmp_path / "r", {}, "").column("lr-Adam", "csv/version_0/metrics.csv")) == 6
    assert "run_training_batch" in (tmp_path / "r" / "profile.txt").read_text()
    assert sorted(file.name for file in (tmp_path / "r").glob("*profile*")) == ["profile.txt"]
    assert [one.name for one in (tmp_path / "r" / "csv").iterdir()] == ["version_0"]
    assert "Epoch 1: 100%" in done.stdout


def test_the_page_has_a_row_for_each_member() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import doors
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    written = (ROOT / "docs" / "lightning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `\w+` \|.*$", written, re.MULTILINE)
    assert rows == [line for table in doors.tables().values() for line in table]
