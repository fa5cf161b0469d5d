"""A run that was stopped goes on as if nothing had been: weights, optimiser, logs and figures, bit for bit."""

import csv
import json
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import summary_of
from interrupted import QUIET, TEXT, assert_same_run, stopping_after, train, write_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.run.directory import locked

SMALL = ("model.hidden=[6]", "model.dropout=0.2", "trainer.max_epochs=5")
CASES = {
    "mini-adam-plateau": (*SMALL, "head=heteroscedastic", "scheduler.patience=0", "batch.size=40"),
    "replacement-sgd-l2": (
        *("data=synthetic", "data.kind=poisson", "data.num_rows=150", "head=poisson", "prior=l2"),
        *(*SMALL, "batch=replacement", "optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.5"),
    ),
    "growing-adamw-cosine": (
        *("data=iris", "head=categorical", "batch=growing", "batch.size=8", "batch.every=2"),
        *(*SMALL, "optimizer=adamw", "scheduler=cosine"),
    ),
    "mini-l1-linear": (
        *("data=synthetic", "data.kind=bernoulli", "data.num_rows=150", "head=bernoulli", "prior=l1"),
        *("model=linear", "batch.size=16", "trainer.max_epochs=5"),
    ),
    "mini-l1-average": (
        *("data=synthetic", "data.kind=bernoulli", "data.num_rows=150", "head=bernoulli", "prior=l1"),
        *("model=linear", "average=ema", "average.horizon=2", "batch.size=16", "trainer.max_epochs=5"),
    ),
    "mini-diverging": (*SMALL, "head=heteroscedastic", "optimizer=sgd", "optimizer.lr=3", "step.clip_norm=0"),
    "full-lbfgs-laplace": ("head=laplace", "model=linear", "batch=full", "optimizer=lbfgs", "trainer.max_epochs=6"),
    "coded-adam": (*SMALL, "inputs=piecewise_linear", "inputs.bins=5"),
    "mini-adam-scheduled": (*SMALL, "optimizer=adam_scheduled", "scheduler.warmup=5", "batch.size=40"),
    "text-moving": TEXT,
    "text-fixed-replacement": (*TEXT, "batch=replacement", "data.shift=false", "data.stride=4"),
    "text-growing": (*TEXT, "batch=growing", "batch.every=1", "model.tied=true"),
    "full-adam": ("batch=full", *SMALL, "trainer.precision=64"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_ends_as_the_uninterrupted_one(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*CASES[case], *QUIET)
    assert train(*settings, "run_dir=whole") == 0, capsys.readouterr().err
    steps = summary_of(tmp_path / "whole")["num_steps"]
    draw = random.Random(case)
    for name in ("one", "two"):
        stopping_after(monkeypatch, draw.randrange(1, max(2, steps - 1)))
        assert train(*settings, f"step.per_chunk={draw.choice([1, 2, 3])}", f"run_dir={name}") == 143
        assert summary_of(tmp_path / name)["reason"] == "stopped by SIGTERM"
        # Twice, the second time soon after the first.
        stopping_after(monkeypatch, draw.randrange(1, steps) + 2)
        assert train(f"resume={name}") in (0, 143)
        assert train(f"resume={name}") == 0, capsys.readouterr().err
        assert_same_run(tmp_path / "whole", tmp_path / name)


def test_a_finished_run_goes_on_where_more_epochs_are_allowed(tmp_path: Path) -> None:
    settings = (*SMALL[:2], *QUIET, "early_stopping.patience=null")
    assert train(*settings, "trainer.max_epochs=7", "run_dir=whole") == 0
    assert train(*settings, "trainer.max_epochs=3", "run_dir=part") == 0
    assert train("resume=part", "trainer.max_epochs=7") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    before = {file: file.read_bytes() for file in (tmp_path / "part").rglob("*") if file.is_file()}
    assert train("resume=part") == 0
    after = {file: file.read_bytes() for file in (tmp_path / "part").rglob("*") if file.is_file()}
    changed = {file.name for file in before | after if before.get(file) != after.get(file)}
    assert changed <= {"baseline.json", "config.yaml"}, "nothing was left to train"


def test_early_stopping_is_final_but_for_a_longer_patience(tmp_path: Path) -> None:
    settings = (*SMALL[:2], *QUIET, "optimizer.lr=0.1", "trainer.max_epochs=40")
    assert train(*settings, "early_stopping.patience=6", "run_dir=whole") == 0
    assert train(*settings, "early_stopping.patience=2", "run_dir=part") == 0
    steps = summary_of(tmp_path / "part")["num_steps"]
    assert train("resume=part", "trainer.max_epochs=40") == 0
    assert summary_of(tmp_path / "part")["num_steps"] == steps < summary_of(tmp_path / "whole")["num_steps"]
    assert train("resume=part", "early_stopping.patience=6") == 0
    one, other = (summary_of(tmp_path / name) for name in ("whole", "part"))
    assert {**one, "time": 0} == {**other, "time": 0}


def test_a_crash_between_checkpoints_repeats_steps_and_no_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("model.hidden=[6]", "model.dropout=0.2", "trainer.max_epochs=5", "batch.size=40", "step.per_chunk=1")
    settings = (*settings, "report=false", "plots=false", "checkpoint.min_seconds=0")
    assert train(*settings, "run_dir=whole") == 0
    original = KeepCheckpoints.on_train_epoch_end

    def on_train_epoch_end(self: KeepCheckpoints, trainer: object, module: object) -> None:
        if trainer.current_epoch == 2:  # type: ignore[attr-defined]
            trainer.callbacks[1].write()  # type: ignore[attr-defined]
            raise ZeroDivisionError
        original(self, trainer, module)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(KeepCheckpoints, "on_train_epoch_end", on_train_epoch_end)
        assert train(*settings, "checkpoint.every_steps=3", "run_dir=part") == 70
    with (tmp_path / "part" / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["-1", "0", "1", "2"]
    (tmp_path / "part" / "checkpoints" / ".last.ckpt.x1.tmp").write_bytes(b"left behind")
    assert train("resume=part") == 0, capsys.readouterr().err
    assert not list((tmp_path / "part").rglob("*.tmp"))
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    for tag in ("train/nll_nats", "learning_rate", "mle/validation/nll_bits"):
        one, other = (_events(tmp_path / name / "tensorboard", tag) for name in ("whole", "part"))
        assert one == other
        assert len(one) == 6


def test_a_run_directory_may_move_and_its_data_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Callable[..., Path]
) -> None:
    table("gaussian", name="d.csv")
    settings = ("data=csv", "data.path=d.csv", "data.target=y", *SMALL, *QUIET[1:])
    assert train(*settings, "run_dir=whole") == 0
    stopping_after(monkeypatch, 5)
    assert train(*settings, "step.per_chunk=1", "run_dir=old", "seed=0") == 143
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "d.csv").rename(tmp_path / "e.csv")
    assert train("resume=new", "data.path=e.csv") == 0
    assert not (tmp_path / "old").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "new")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    rows = [f"{k % 7},{k * k % 11},{k % 7 + k * k % 5}" for k in range(60)]
    (folder / "d.csv").write_text("\n".join(["a,b,y", *rows]), encoding="utf-8")
    (folder / "changed.csv").write_text("\n".join(["a,b,y", *rows[:-1], "1,2,3.5"]), encoding="utf-8")
    (folder / "renamed.csv").write_text("\n".join(["a,c,y", *rows]), encoding="utf-8")
    source = ("data=csv", f"data.path={folder / 'd.csv'}", "data.target=y")
    assert train(*source, *QUIET, "model.hidden=[3]", "trainer.max_epochs=2", f"run_dir={folder / 'r'}") == 0
    return folder


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("head=laplace", "has head=gaussian"),
        ("prior=l2", "has prior=none"),
        ("model.hidden=[4]", "model.hidden is [4], and was [3]"),
        ("batch.size=7", "batch.size is 7, and was auto"),
        ("optimizer.lr=0.1", "optimizer.lr is 0.1, and was 0.005"),
        ("seed=1", "seed is 1, and was 0"),
        ("data.standardize=false", "data.standardize is False, and was True"),
        ("data.seed=3", "the train rows (36 now) are not those of the run"),
        ("data.path={folder}/changed.csv", "rows (36 now) are not those of the run"),
        ("data.path={folder}/renamed.csv", "the columns differ"),
        ("trainer.max_epochs=1", "has 2 epochs already"),
        ("trainer.max_epoch=9", "Did you mean 'max_epochs'?"),
        ("sede=1", "Did you mean 'seed'?"),
        ("run_dir=elsewhere", "in the run's own directory"),
        ("seed=1,2", "resume= continues one run"),
        ("model._target_=os.system", "refused"),
    ],
)
def test_another_run_is_refused(stopped: Path, override: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    assert train(f"resume={stopped / 'r'}", override.format(folder=stopped)) == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) <= 8
    assert {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()} == before


def test_there_has_to_be_something_to_resume(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for name, words in (
        ("nowhere", "does not exist"),
        ("empty", "holds no run"),
        (str(stopped / "d.csv"), "is a file"),
        ("http://127.0.0.1:9/r", "only a local run directory"),
    ):
        assert train(f"resume={name}") == 2
        assert words in capsys.readouterr().err
    best = (stopped / "r" / "checkpoints" / "best.ckpt").read_bytes()
    Path("half/checkpoints").mkdir(parents=True)
    Path("half/checkpoints/last.ckpt").write_bytes(best)
    assert train("resume=half") == 2
    assert "config.yaml" in capsys.readouterr().err
    Path("half/config.yaml").write_bytes((stopped / "r" / "config.yaml").read_bytes())
    assert train("resume=half") == 2
    assert "a model alone" in capsys.readouterr().err
    Path("half/config.yaml").write_text("a: &x [1]\nb: [*x, *x]\n", encoding="utf-8")
    assert train("resume=half") == 2
    assert "is not the configuration of a run" in capsys.readouterr().err


def test_a_sweep_and_other_commands_do_not_resume(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mlefw.cli import run

    assert train("-m", f"resume={stopped / 'r'}", "seed=0,1") == 2
    assert "without -m" in capsys.readouterr().err
    assert run(["check", f"resume={stopped / 'r'}"]) == 2
    assert "only on the command line of mlefw train" in capsys.readouterr().err


def test_a_cosine_is_planned_over_its_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SMALL[:2], *QUIET, "trainer.max_epochs=2", "scheduler=cosine", "run_dir=r") == 0
    assert train("resume=r", "trainer.max_epochs=4") == 2
    assert "planned over 2 epochs" in capsys.readouterr().err


def test_one_process_at_a_time(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(stopped / "r"):
        assert train(f"resume={stopped / 'r'}", "trainer.max_epochs=2") == 2
    assert "another process" in capsys.readouterr().err
    assert train(f"resume={stopped / 'r'}", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_last_validation_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    import os

    from mlefw.training.module import LikelihoodModule

    assert threading.current_thread() is threading.main_thread()
    original = LikelihoodModule.on_validation_epoch_end

    def on_validation_epoch_end(self: LikelihoodModule) -> None:
        if self.current_epoch == 1:
            os.kill(os.getpid(), number)
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(LikelihoodModule, "on_validation_epoch_end", on_validation_epoch_end)
        assert train(*SMALL[:2], *QUIET, "trainer.max_epochs=2", "run_dir=part") == 128 + number
    assert summary_of(tmp_path / "part") == {"status": "failed", "reason": f"stopped by {number.name}", "seed": 0}
    assert train(*SMALL[:2], *QUIET, "trainer.max_epochs=2", "run_dir=whole") == 0
    assert train("resume=part") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def test_a_limit_of_steps_within_an_epoch_is_gone_on_from(tmp_path: Path) -> None:
    settings = (*SMALL, *QUIET, "batch.size=40", "step.per_chunk=1")
    assert train(*settings, "run_dir=whole") == 0
    assert train(*settings, "trainer.max_steps=9", "run_dir=part") == 0
    assert summary_of(tmp_path / "part")["num_steps"] == 9
    assert train("resume=part", "trainer.max_steps=-1") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def _events(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag) if tag != "rows_per_s"]


def test_the_configuration_of_a_resumed_run_is_whole(stopped: Path) -> None:
    import yaml

    config = yaml.safe_load((stopped / "r" / "config.yaml").read_text(encoding="utf-8"))
    assert config["resume"] is None
    assert json.loads((stopped / "r" / "summary.json").read_text(encoding="utf-8"))["status"] == "finished"
