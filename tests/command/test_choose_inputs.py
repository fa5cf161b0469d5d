"""`inputs=auto`: a run with each candidate, of which the one with the least validation NLL is kept."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import summary_of
from interrupted import QUIET, assert_same_run, stopping_after, train

from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.errors import NumericalError
from mlefw.fit import fit
from mlefw.training.module import LikelihoodModule

SMALL = ("model.hidden=[6]", "trainer.max_epochs=4", "head=heteroscedastic", *QUIET)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_is_the_better_one_of_two_runs() -> None:
    alone = {}
    for name in ("clipped", "piecewise_linear"):
        assert train(*SMALL, f"inputs={name}", f"run_dir={name}") == 0
        alone[name] = summary_of(Path(name))
    assert train(*SMALL, "inputs=auto", "run_dir=auto") == 0
    found, nll = summary_of(Path("auto")), {n: s["metrics"]["validation"]["nll_nats"] for n, s in alone.items()}
    best = min(nll, key=nll.__getitem__)
    assert found["inputs"] == {**alone[best]["inputs"], "validation_nll_nats": nll}
    assert found["metrics"] == alone[best]["metrics"]
    assert not Path("auto/candidates").exists()


def stopping_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the process get a signal in the middle of the training of a candidate."""
    original = KeepCheckpoints.on_train_batch_end

    def on_train_batch_end(self: KeepCheckpoints, trainer: Any, *args: Any) -> None:
        if self.folder.parent.name == name and trainer.global_step >= 20:
            monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", original)
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *args)

    monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", on_train_batch_end)


def test_it_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(*SMALL, "inputs=auto", "run_dir=whole") == 0
    stopping_after(monkeypatch, 12)
    assert train(*SMALL, "inputs=auto", "run_dir=stopped") == 143
    stopping_in(monkeypatch, "piecewise_linear")
    assert train("resume=stopped") == 143
    assert sorted(path.name for path in Path("stopped/candidates").iterdir()) == ["clipped", "piecewise_linear"]
    assert train("resume=stopped") == 0
    assert_same_run(Path("whole"), Path("stopped"))
    assert train("resume=stopped", "trainer.max_epochs=5") == 0, "from here on it is an ordinary run"


def test_a_candidate_that_cannot_be_trained_leaves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    step = LikelihoodModule.training_step

    def failing(self: LikelihoodModule, *arguments: object) -> None:
        if self.objective.model.num_inputs > 10:
            raise NumericalError("training diverged: as it does here")
        step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LikelihoodModule, "training_step", failing)
    assert train(*SMALL, "inputs=auto", "run_dir=run") == 0
    summary = summary_of(Path("run"))
    assert list(summary["inputs"]["validation_nll_nats"]) == ["clipped"]
    assert summary["warnings"][-1] == "inputs=piecewise_linear could not be trained: training diverged: as it does here"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("data.validation_fraction=0",), "chooses by validation rows, and there are none"),
        (("trainer.strategy=ddp", "trainer.devices=2"), "trains in one process"),
    ],
)
def test_what_it_cannot_do_is_refused(
    settings: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(*SMALL, "inputs=auto", "run_dir=run", *settings) == 2
    assert message in capfd.readouterr().err
    assert not Path("run").exists()


@pytest.mark.filterwarnings("default")
def test_rows_of_one_call_are_not_those_of_another() -> None:
    """Of rows that a program hands over nothing is kept beyond the run that chooses."""
    x = np.linspace(-1, 1, 60)
    quick = (*SMALL, "inputs=auto")
    fit({"a": x, "y": np.sin(3 * x)}, "y", *quick, run_dir=Path("one"))
    other = fit({"b": x, "c": x**2, "y": np.cos(3 * x)}, "y", *quick, run_dir=Path("two"))
    assert other.predict({"b": x, "c": x**2}) is not None
    assert summary_of(Path("two"))["num_features"] == 2
