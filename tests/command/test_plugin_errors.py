"""An error in the code of a plugin is the plugin's: it is told with its file and line, ends with 2, and is no bug."""

import re
import sys
from pathlib import Path

import pytest
from conftest import summary_of
from interrupted import train

from mlefw.cli import run
from mlefw.objective.objective import evaluate
from mlefw.system import error_origin

MODULE = '''
import os

import numpy as np
import torch
from lightning import Callback
from torch.distributions import Normal

from mlefw.batch.mini import MiniBatch
from mlefw.data.synthetic import Synthetic
from mlefw.head.gaussian import GaussianHead
from mlefw.loss.plain import Plain
from mlefw.metric.error import PointError
from mlefw.model.linear import Linear
from mlefw.prior.l2 import L2Prior


def trap(kind):
    """Let each method fail when it is asked to by name, after so many calls."""

    def failing(name, original):
        def method(self, *args, **more):
            wanted, _, after = os.environ.get("BROKEN", "").partition(":")
            calls = method.calls = method.calls + 1
            if wanted == f"{kind.__name__}.{name}" and calls > int(after or 0):
                raise LookupError("no such luck")
            return original(self, *args, **more)

        method.calls = 0
        method.__wrapped__ = original
        return method

    for name in kind.traps:
        setattr(kind, name, failing(name, getattr(kind, name)))
    return kind


@trap
class Head(GaussianHead):
    traps = ("build",)


@trap
class Model(Linear):
    traps = ("__init__", "forward")


@trap
class Prior(L2Prior):
    traps = ("__init__", "forward", "smooth_part")


@trap
class Loss(Plain):
    traps = ("check", "forward")


@trap
class Metric(PointError):
    traps = ("update", "compute")


@trap
class Regime(MiniBatch):
    traps = ("batches",)


@trap
class Watch(Callback):
    traps = ("on_fit_start", "on_train_epoch_end", "on_validation_end", "on_fit_end")


@trap
class Source(Synthetic):
    traps = ("read",)


@trap
class Optimizer(torch.optim.SGD):
    traps = ("__init__", "step")


@trap
class Scheduler(torch.optim.lr_scheduler.ConstantLR):
    traps = ("step",)


class Leaving(Linear):
    def forward(self, x):
        raise SystemExit(0)


class Opening(Linear):
    def forward(self, x):
        open("/nowhere/at/all")


class Square(Synthetic):
    def read(self):
        table = super().read()
        return type(table)({**table.columns, "x0": np.zeros((table.num_rows, 2))}, "mine")
'''
NODES = {"head": "Head", "model": "Model", "prior": "Prior", "loss": "Loss", "batch": "Regime", "data": "Source"}
SETTINGS = ("trainer.max_epochs=2", "logger=none", "report=true", "plots=true", "baseline=none", "data.num_rows=80")
BROKEN = (
    *("Head.build", "Model.__init__", "Model.forward", "Model.forward:9", "Prior.__init__", "Prior.forward"),
    *("Prior.smooth_part", "Loss.check", "Loss.forward", "Metric.update", "Metric.compute:3", "Regime.batches"),
    *("Watch.on_fit_start", "Watch.on_train_epoch_end", "Watch.on_validation_end:1", "Watch.on_fit_end"),
    *("Source.read", "Optimizer.__init__", "Optimizer.step", "Scheduler.step:1", "Head.build:8"),
)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLEFW_PLUGINS", "")
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    Path("broken.py").write_text(MODULE, encoding="utf-8")
    texts = {f"{group}/mine": f"_target_: broken.{name}" for group, name in NODES.items()}
    texts["data/mine"] += "\ntarget: y"
    texts |= {
        "prior/mine": "_target_: broken.Prior\nscale: 1.0",
        "batch/mine": "_target_: broken.Regime\nsize: 16",
        "metric/mine": "nll: {_target_: mlefw.metric.nll.Nll}\nmine: {_target_: broken.Metric}",
        "callback/mine": "mine: {_target_: broken.Watch}",
        "optimizer/mine": "_target_: broken.Optimizer\n_partial_: true\nlr: 0.05",
        "scheduler/mine": "_target_: broken.Scheduler\n_partial_: true",
    }
    for name, text in texts.items():
        Path("conf", name).parent.mkdir(parents=True, exist_ok=True)
        Path("conf", f"{name}.yaml").write_text(f"# mine\n{text}\n", encoding="utf-8")
    groups = [f"{name.split('/')[0]}=mine" for name in texts]
    return (*groups, "--config-dir", "conf", "--plugin", "broken", *SETTINGS)


def is_told(message: str) -> bool:
    return re.search(rf"{re.escape(str(Path.cwd() / 'broken.py'))}, line \d+, in ", message) is not None


@pytest.mark.parametrize("broken", BROKEN)
def test_every_kind_of_plugin_at_every_moment(
    broken: str, plugin: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKEN", broken)
    assert train(*plugin, "run_dir=r") == 2
    message = capsys.readouterr().err
    assert is_told(message), message
    assert "no such luck" in message
    assert "bug" not in message
    if Path("r/summary.json").exists():
        assert is_told(summary_of(Path("r"))["reason"])


@pytest.mark.parametrize("kind", ["Leaving", "Opening"])
def test_a_plugin_that_leaves_or_opens_what_is_not_there(
    kind: str, plugin: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("conf/model/mine.yaml").write_text(f"# mine\n_target_: broken.{kind}\n", encoding="utf-8")
    assert train(*plugin, "run_dir=r") == 2
    assert is_told(capsys.readouterr().err)


def test_prediction_and_a_column_of_two_dimensions(
    plugin: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*plugin, "run_dir=r", "report=false", "plots=false") == 0, capsys.readouterr().err
    monkeypatch.setenv("BROKEN", "Head.build")
    assert run(["evaluate", "run=r", "split=test", "--plugin", "broken"]) == 2
    assert is_told(capsys.readouterr().err)
    monkeypatch.delenv("BROKEN")
    Path("conf/data/square.yaml").write_text("# mine\n_target_: broken.Square\ntarget: y\n", encoding="utf-8")
    assert train(*(item.replace("data=mine", "data=square") for item in plugin), "run_dir=s") == 2
    assert "column 'x0' has shape (80, 2)" in capsys.readouterr().err


def test_an_error_of_our_own_is_nobody_elses() -> None:
    with pytest.raises(AttributeError) as met:
        evaluate(None, None)  # type: ignore[arg-type]
    # This test is code of a user's own.
    assert "test_plugin_errors.py" in error_origin.plugin_location(met.value, ["broken"])
    error = met.value.with_traceback(met.tb.tb_next)
    assert error_origin.plugin_location(error, ["broken"]) == ""
