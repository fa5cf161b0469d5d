"""A training that diverges goes back to its last good state with half the rate, and says so."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import summary_of
from interrupted import QUIET, train

from mlefw.head.gaussian import GaussianHead
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized
from mlefw.training.recovery import Recovery, dominating_rows

WILD = (
    *("head=heteroscedastic", "optimizer=sgd", "step.clip_norm=0", "model.hidden=[6]", "trainer.max_epochs=6"),
    *("baseline=none", *QUIET),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def column(run_dir: str, name: str) -> list[float]:
    with (Path(run_dir) / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("average", ["none", "ema"])
def test_it_goes_back_twice_and_goes_on(average: str) -> None:
    assert train(*WILD, "optimizer.lr=3", f"average={average}", "run_dir=run") == 0
    assert column("run", "learning_rate") == [3.0, 1.5, *[0.75] * 5]
    nll = column("run", "train/nll_nats")
    assert nll[0] == nll[1] == nll[2] > nll[-1]
    (text,) = [text for text in summary_of(Path("run"))["warnings"] if "diverged" in text]
    assert "in epoch 0, 1, and went on" in text


def test_what_cannot_be_helped_ends_with_the_best_state() -> None:
    assert train(*WILD, "optimizer.lr=30", "run_dir=run") == 3
    summary = summary_of(Path("run"))
    assert summary["status"] == "failed"
    assert "It had gone back with half the learning rate in epoch 0, 1, 2." in summary["reason"]
    assert (Path("run") / summary["best"]).is_file()


def test_it_can_be_switched_off() -> None:
    assert train(*WILD, "optimizer.lr=3", "step.recoveries=0", "run_dir=run") == 3
    assert "gone back" not in summary_of(Path("run"))["reason"]


def objective() -> Objective:
    mean, scale = torch.zeros(1).double(), torch.ones(1).double()
    return Objective(Standardized(Linear(1, 1), mean, scale), GaussianHead(), NoPrior(), 10.0)


def test_a_step_that_leads_far_is_an_explosion_though_all_is_finite() -> None:
    target = objective()
    optimizer = torch.optim.Adam(target.parameters(), lr=0.1)
    recovery = Recovery(1, target)
    recovery.start(2.0)
    assert not recovery.is_possible, "there is no state to go back to"
    recovery.keep(5, optimizer)
    assert recovery.is_possible
    assert [recovery.is_exploded(loss) for loss in (-50.0, 21.9, 22.1, float("nan"))] == [False, False, True, True]
    weight = next(target.parameters())
    with torch.no_grad():
        weight.fill_(1e13)
    assert recovery.is_exploded(0.0)
    recovery.go_back(7, Rows(*(torch.ones(3, 1), torch.zeros(3), torch.ones(3), torch.zeros(3))), optimizer)
    assert (float(weight.detach().sum()), optimizer.param_groups[0]["lr"], recovery.history.epochs) == (0.0, 0.05, [7])
    assert not recovery.is_possible, "once was all that was asked for"


def test_rows_whose_gradients_dominate_are_named() -> None:
    y = torch.tensor([0.1, -0.2, 900.0, 0.3, -0.1, -500.0], dtype=torch.float64)
    rows = Rows(torch.zeros(6, 1).double(), y, torch.ones(6).double(), torch.zeros(6).double())
    assert dominating_rows(objective(), rows) == [2, 5]
    even = rows._replace(y=torch.ones(20).double(), x=torch.zeros(20, 1).double(), weight=torch.ones(20).double())
    assert dominating_rows(objective(), even._replace(offset=torch.zeros(20).double())) == []
