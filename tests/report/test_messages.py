"""Messages: bounded in length and number, no advice that is followed already, one number format."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import summary_of

from mlefw.callback.progress import ShowProgress
from mlefw.cli import run
from mlefw.command.outermost import print_error, take_over_signals
from mlefw.errors import UsageError
from mlefw.system import warning
from mlefw.system.number_format import number
from mlefw.training.step import divergence_advice

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_warnings_are_bounded_in_length_and_number(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        take_over_signals()
        for k in range(300):
            for text in (f"{k} " + "x" * 10_000_000 * (k == 0) + f"the end of {k}", "the same"):
                warnings.showwarning(UserWarning(text), UserWarning, "/lib/mlefw/training/module.py", 1)
    err = capfd.readouterr().err
    assert len(err) < 20_000
    assert "the end of 0" in err
    assert "characters left out" in err
    assert err.count("the same") == 1
    assert err.count("mlefw: warning: ") == len(warning.collected()) == 100
    assert "further warnings are left out" in warning.collected()[-1]
    assert all(len(text) < 2100 for text in warning.collected())


def test_an_error_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    assert print_error(UsageError("a" * 10_000_000 + " expected: b")) == 2
    err = capfd.readouterr().err
    assert len(err) < 10_200
    assert "expected: b" in err


@pytest.mark.parametrize(("clip_norm", "proposed"), [(0.0, True), (0.5, False), (1.0, False), (10.0, True)])
def test_clipping_is_proposed_where_it_is_not_set(clip_norm: float, proposed: bool) -> None:
    assert ("step.clip_norm=1" in divergence_advice(clip_norm)) == proposed


def test_a_run_that_fails_late_says_what_is_left_of_it(
    table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("data=csv", f"data.path={table()}", "data.target=y", "model.hidden=[4]", "trainer.max_epochs=40")
    # The rate grows after some epochs, so that a good state is followed by none.
    kind = "torch.optim.lr_scheduler.ExponentialLR"
    growing = ("scheduler=none", f"+scheduler._target_={kind}", "+scheduler._partial_=true", "+scheduler.gamma=50.0")
    assert run(["train", *data, *growing, "step.clip_norm=0", "optimizer.lr=1e-3", "run_dir=r"]) == 3
    err = capfd.readouterr().err
    assert "step.clip_norm=1" in err
    assert "mlefw evaluate run=" in err
    summary = summary_of(tmp_path / "r")
    assert (summary["status"], summary["best"]) == ("failed", "checkpoints/best.ckpt")
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "The run failed: training diverged" in page
    assert run(["evaluate", "run=r"]) == 0


def test_the_progress_line_has_the_format_of_every_number() -> None:
    shown = ShowProgress()
    described: list[str] = []

    class Line:
        def update(self, task: int, completed: int, description: str) -> None:
            described.append(description)

    shown.progress = Line()  # type: ignore[assignment]
    module = torch.nn.Module()
    module.figures = {"train": {"nll_nats": 1e166}, "validation": {"nll_nats": 1.23456}}  # type: ignore[assignment]
    trainer = type("Trainer", (), {"sanity_checking": False, "current_epoch": 3})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlefw.callback.progress.LikelihoodModule", torch.nn.Module)
        shown.on_validation_end(trainer, module)  # type: ignore[arg-type]
    assert described == [f"nats  train {number(1e166)}  validation 1.2346"]
    assert len(described[0]) < 60
