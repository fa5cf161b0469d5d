"""Trials of a search that train together: as alone, also where they leave the group, and whoever is killed."""

import csv
import json
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_search import JOURNAL, QUICK, children, start, states, trials_of, wait_for
from test_search import data as data
from test_search import environment as environment

from mlefw.cli import run

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

NETWORK = tuple(item for item in QUICK if item != "model=linear")
SPACE = (
    "optimizer.lr=tag(log,interval(1e-3,1))",
    "step.clip_norm=0.0,1.0",
    "model.dropout=interval(0,0.5)",
    "prior.scale=tag(log,interval(0.1,10))",
)
COMMON = ("model.hidden=[4]", "prior=l2", "early_stopping.patience=null")


def source(data: str) -> tuple[str, ...]:
    return ("data=csv", f"data.path={data}", "data.target=y", "head=poisson")


def command(data: str, root: Path, *more: str, space: tuple[str, ...] = SPACE) -> list[str]:
    common = {item.partition("=")[0]: item for item in (*source(data), *NETWORK, *COMMON, *more)}
    return ["train", "-m", "hydra/sweeper=search", *common.values(), *space, f"run_dir={root}"]


def alone(data: str, folder: Path, trial: Any, *more: str) -> list[dict[str, float]]:
    """The history of a single run with the settings of a trial."""
    settings = [f"{name}={value}" for name, value in trial.params.items()]
    assert run(["train", *source(data), *NETWORK, *COMMON, *settings, *more, f"run_dir={folder}"]) == 0
    return history(folder)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if name != "rows_per_s"} for row in rows]


def folder_of(root: Path, number: int) -> Path:
    (folder,) = root.glob(f"{number:03d}_*")
    return folder


def test_a_trial_is_as_alone_until_it_leaves_and_when_it_goes_on(data: str, tmp_path: Path) -> None:
    root = tmp_path / "s"
    epochs = "trainer.max_epochs=27"
    assert run(command(data, root, "search.trials=7", "search.population=7", "hydra.launcher.jobs=1", epochs)) == 0
    assert states(root).keys() == {"COMPLETE", "PRUNED"}
    lengths = Counter[int]()
    for trial in trials_of(root):
        folder = folder_of(root, trial.number)
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        assert summary["status"] == "finished"
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        expected = alone(data, tmp_path / str(trial.number), trial, epochs)
        found = history(folder)
        lengths[summary["num_epochs"]] += 1
        assert len(found) == len(expected) or summary["num_epochs"] < 27
        for mine, theirs in zip(found, expected, strict=False):
            assert mine == pytest.approx(theirs, rel=2e-4, abs=2e-4)
        known = {row["epoch"]: row["validation/nll_nats"] for row in expected if "validation/nll_nats" in row}
        for rung, value in trial.intermediate_values.items():
            least = min(nll for epoch, nll in known.items() if 0 <= epoch < rung)
            assert value == pytest.approx(least, rel=1e-5)
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(min(known.values()), rel=1e-5)
    # Of seven the best two go on at the first rung, by the values of all seven; the best one goes on to the end.
    assert lengths[1] == 5
    assert lengths[27] == 1


@pytest.mark.parametrize("whom", ["worker", "parent", "both"])
def test_whoever_is_killed_costs_running_trials_alone(whom: str, data: str, tmp_path: Path) -> None:
    root, chance = tmp_path / "s", random.Random(whom)
    arguments = command(data, root, "search.trials=8", "search.population=4", "trainer.max_epochs=300")
    process = start(arguments)
    wanted = chance.randrange(1, 5)
    wait_for(lambda: (root / JOURNAL).exists() and len(list(root.glob("0*_*/config.yaml"))) >= wanted, process)
    victims = children(process.pid) if whom != "parent" else []
    victims += [process.pid] if whom != "worker" else []
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert process.wait() == (0 if whom == "worker" else -signal.SIGKILL)
    if whom != "worker":
        assert run(arguments) == 0
    assert states(root).total() == 8
    assert states(root).keys() <= {"COMPLETE", "PRUNED"}
    for number in range(8):
        assert json.loads((folder_of(root, number) / "summary.json").read_text("utf-8"))["status"] == "finished"


def test_two_processes_share_groups(data: str, tmp_path: Path) -> None:
    root = tmp_path / "s"
    few = ("search.trials=10", "search.population=3", "trainer.max_epochs=30", "hydra.launcher.jobs=1")
    first = start(command(data, root, *few))
    wait_for((root / JOURNAL).exists, first)
    second = start(command(data, root, *few))
    assert (first.wait(), second.wait()) == (0, 0)
    trials = trials_of(root)
    assert len(trials) == 10
    assert states(root).keys() <= {"COMPLETE", "PRUNED"}
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 10
    assert not [path for path in root.glob("population-*")]


def test_trials_of_one_architecture_train_together(data: str, tmp_path: Path) -> None:
    few = ("search.trials=6", "search.population=true", "hydra.launcher.jobs=1", "search.pruner=none")
    space = (SPACE[0], "model.hidden=choice([3],[4])")
    more = ("trainer.max_epochs=2", "search.sampler=random")
    kept = tuple(item for item in COMMON if "hidden" not in item)
    arguments = [item for item in command(data, tmp_path / "s", *few, *more, space=space) if item not in COMMON]
    assert run([*arguments, *kept]) == 0
    trials = trials_of(tmp_path / "s")
    assert {trial.params["model.hidden"] for trial in trials} == {"[3]", "[4]"}
    assert states(tmp_path / "s") == {"COMPLETE": 6}
    for trial in trials:
        summary = json.loads((folder_of(tmp_path / "s", trial.number) / "summary.json").read_text("utf-8"))
        assert trial.value == summary["metrics"]["validation"]["nll_nats"]


def test_what_cannot_train_together_is_told_and_trains_alone(
    data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = ("search.trials=3", "search.population=3", "hydra.launcher.jobs=1", "trainer.max_epochs=3")
    arguments = command(data, tmp_path / "s", *few, "model=residual", "baseline=linear")
    assert run(arguments) == 0
    assert "search.population: trials train one by one: parameters of several kinds" in capfd.readouterr().out
    assert states(tmp_path / "s").total() == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["search.population=1"], "expected true, false, or a number of trials of at least 2"),
        (["search.population=many"], "expected true, false, or a number"),
        (["search.population=true", "hydra.launcher.timeout_s=9"], "expected one of both"),
    ],
)
def test_it_is_refused_before_anything_runs(
    settings: list[str], message: str, data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command(data, tmp_path / "s", *settings)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "s").exists()
