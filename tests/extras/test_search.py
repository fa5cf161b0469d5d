"""A search: what is asked for, halving, kills at any moment, several processes in one directory, what is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pyarrow import csv

from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.sweep.launcher import ForkLauncher
from mlefw.sweep.search.participation import Participation
from mlefw.sweep.search.presence import Presence
from mlefw.sweep.search.rungs import Standing, goes_on, promotable, rungs
from mlefw.sweep.search.search import Search
from mlefw.sweep.search.settings import SearchSettings
from mlefw.sweep.search.space import Space
from mlefw.sweep.search.study import JOURNAL, NAME, SharedStudy

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

QUICK = ("logger=none", "callback=none", "report=false", "baseline=none", "model=linear", "batch=full")
SPACE = ("optimizer.lr=tag(log,interval(1e-3,1))", "step.clip_norm=0.0,1.0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(150, 2))
    path = tmp_path_factory.mktemp("data") / "d.csv"
    y = generator.poisson(np.exp(0.5 * x[:, 0]))
    csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1], "y": y}), path)
    return str(path)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # A sweep sets variables for its libraries.
    monkeypatch.setattr(os, "environ", os.environ.copy())


def command(data: str, root: Path, *more: str) -> list[str]:
    head = () if any(item.startswith("head=") for item in more) else ("head=poisson",)
    source = ("data=csv", f"data.path={data}", "data.target=y")
    return ["train", "-m", "hydra/sweeper=search", *source, *QUICK, *head, *more, f"run_dir={root}"]


def trials_of(root: Path) -> list[Any]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(root / JOURNAL)))
    return optuna.load_study(study_name=NAME, storage=storage).trials


def states(root: Path) -> Counter[str]:
    return Counter(trial.state.name for trial in trials_of(root))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("interval(0,0.5)", FloatDistribution(0, 0.5)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("range(1,8,2)", IntDistribution(1, 7, step=2)),
        ("range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("choice([8],[8,8])", CategoricalDistribution(["[8]", "[8,8]"])),
        ("a,b", CategoricalDistribution(["a", "b"])),
    ],
)
def test_hydras_grammar_says_what_varies(text: str, expected: Any) -> None:
    space = Space.of(["seed=3", f"++x.y={text}"])
    assert space.distributions == {"x.y": expected}
    assert space.overrides({"x.y": 5})[:2] == ["seed=3", "++x.y=5"]


@pytest.mark.parametrize("text", ["x=tag(log,interval(0,1))", "x=interval(2,1)", "x=range(3,3)", "seed=0"])
def test_a_space_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be searched|no setting varies"):
        Space.of([text])


def test_of_three_trials_one_goes_on_whatever_the_order() -> None:
    assert rungs(400) == [14, 44, 133]
    assert [goes_on(0.0, others) for others in ([], [1.0], [1.0, 2.0])] == [False, False, True]
    order, value = list(range(27)), np.random.default_rng(1).permutation(27).astype(float)
    trials: dict[int, Standing] = {}
    work: Counter[int] = Counter()
    levels, shuffled = rungs(27), random.Random(0)
    assert levels == [1, 3, 9]
    shuffled.shuffle(order)

    def train(number: int) -> None:
        values = dict(trials[number].values) if number in trials else {}
        for level in levels[len(values) :]:
            work[level] += 1
            values[level] = value[number]
            others = [one.values[level] for other, one in trials.items() if other != number and level in one.values]
            if not goes_on(value[number], others):
                trials[number] = Standing(values, is_waiting=True)
                return
        work[27] += 1
        trials[number] = Standing(values, is_waiting=False)

    for number in order:
        while (promoted := promotable(trials, is_last=False)) is not None:
            train(promoted)
        train(number)
    while (promoted := promotable(trials, is_last=True)) is not None:
        train(promoted)
    ended = [number for number, one in trials.items() if not one.is_waiting]
    assert int(np.argmin(value)) in ended
    assert work[1] == 27
    # Trials that were among the best when they came are not called back: a few more than in the synchronous halving.
    assert 9 <= work[3] <= 15
    assert 3 <= work[9] <= 8
    assert 1 <= work[27] <= 5


def test_a_lone_trial_goes_to_the_end() -> None:
    assert promotable({0: Standing({1: 0.5}, True)}, is_last=True) == 0
    assert promotable({0: Standing({1: 0.5}, True)}, is_last=False) is None
    assert promotable({0: Standing({1: 0.5}, True), 1: Standing({}, False)}, is_last=True) is None


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_it_asks_for_what_optuna_itself_would(sampler: str, data: str, tmp_path: Path) -> None:
    settings = ("search.trials=13", f"search.sampler={sampler}", "search.pruner=none", "search.seed=5")
    few = ("trainer.max_epochs=2", "hydra.launcher.jobs=1")
    assert run(command(data, tmp_path / "s", *settings, *few, *SPACE)) == 0
    found = trials_of(tmp_path / "s")
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    own = (
        kinds[sampler](seed=5)
        if sampler in kinds
        else optuna.samplers.CmaEsSampler(
            seed=5, independent_sampler=optuna.samplers.RandomSampler(seed=5), warn_independent_sampling=False
        )
    )
    study = optuna.create_study(sampler=own)

    def objective(trial: Any) -> float:
        trial.suggest_float("optimizer.lr", 1e-3, 1, log=True)
        trial.suggest_categorical("step.clip_norm", ["0.0", "1.0"])
        return float(found[trial.number].value)

    study.optimize(objective, n_trials=13)
    assert [trial.params for trial in study.trials] == [trial.params for trial in found]
    for trial in found:
        summary = json.loads(next((tmp_path / "s").glob(f"{trial.number:03d}_*/summary.json")).read_text("utf-8"))
        assert summary["metrics"]["validation"]["nll_nats"] == trial.value


def test_it_goes_on_with_more_trials_and_does_not_repeat_itself(
    data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = ("search.sampler=random", "search.pruner=none", "trainer.max_epochs=1", "hydra.launcher.jobs=1")
    for count in (3, 3, 7):
        assert run(command(data, tmp_path / "s", f"search.trials={count}", *few, *SPACE)) == 0
        assert states(tmp_path / "s") == {"COMPLETE": count}
    rates = [trial.params["optimizer.lr"] for trial in trials_of(tmp_path / "s")]
    assert len(set(rates)) == 7
    assert run(command(data, tmp_path / "s", "search.trials=7", *few, SPACE[0], "step.clip_norm=0.0,2.0")) == 2
    assert "begun with other settings (step.clip_norm: " in capfd.readouterr().err


def test_halving_stops_most_trials_and_the_best_one_ends(
    data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "s"
    assert run(command(data, root, "search.trials=9", "trainer.max_epochs=27", *SPACE)) == 0
    trials = trials_of(root)
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    assert len(trials) == 9
    assert all(1 in trial.intermediate_values for trial in trials)
    epochs = [
        json.loads(next(root.glob(f"{trial.number:03d}_*/summary.json")).read_text("utf-8"))["num_epochs"]
        for trial in trials
    ]
    assert max(epochs) == 27
    assert sum(count <= 1 for count in epochs) >= 4
    jobs = json.loads((root / "sweep.json").read_text("utf-8"))["jobs"]
    assert Counter(job["status"] for job in jobs) == {
        {"COMPLETE": "finished", "PRUNED": "pruned"}[name]: count for name, count in states(root).items()
    }
    assert "9 of 9 jobs finished" in capfd.readouterr().out


def test_the_median_ends_what_is_worse(data: str, tmp_path: Path) -> None:
    settings = ("search.trials=9", "search.pruner=median", "search.sampler=qmc", "trainer.max_epochs=20")
    assert run(command(data, tmp_path / "s", *settings, *SPACE)) == 0
    assert states(tmp_path / "s").keys() == {"COMPLETE", "PRUNED"}
    assert states(tmp_path / "s").total() == 9


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "mlefw.cli", *arguments], start_new_session=True, **quiet)  # type: ignore[call-overload]


def children(parent: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


def wait_for(is_so: Any, process: subprocess.Popen[bytes] | None = None) -> None:
    while not is_so():
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.02)


@pytest.mark.parametrize("whom", ["worker", "parent", "both"])
def test_whoever_is_killed_costs_running_trials_alone(whom: str, data: str, tmp_path: Path) -> None:
    root, chance = tmp_path / "s", random.Random(whom)
    arguments = command(data, root, "search.trials=8", "trainer.max_epochs=300", *SPACE)
    for round_ in range(2):
        process = start(arguments)
        wanted = 2 * round_ + chance.randrange(1, 3)
        wait_for(
            lambda count=wanted: (root / JOURNAL).exists() and len(list(root.glob("0*_*/config.yaml"))) >= count,
            process,
        )
        victims = children(process.pid) if whom != "parent" else []
        victims += [process.pid] if whom != "worker" else []
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if whom == "worker":
            assert process.wait() == 0
            break
        process.wait()
    if whom != "worker":
        assert run(arguments) == 0
    found = states(root)
    assert found.total() == 8
    assert found.keys() <= {"COMPLETE", "PRUNED"}
    for trial in trials_of(root):
        (folder,) = root.glob(f"{trial.number:03d}_*")
        assert json.loads((folder / "summary.json").read_text("utf-8"))["status"] == "finished"


WAITING = """
import os, time
from pathlib import Path

from mlefw.model.linear import Linear

PARENT = os.getpid()


class Net(Linear):
    def forward(self, x):
        while os.getpid() != PARENT and not Path("go").exists():
            time.sleep(0.02)
        return super().forward(x)
"""


def test_two_processes_share_the_trials(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, few = tmp_path / "s", ("trainer.max_epochs=30", "hydra.launcher.jobs=1")
    # A trial trains when each of the two has one.
    monkeypatch.chdir(tmp_path)
    Path("waiting.py").write_text(WAITING, encoding="utf-8")
    model = ("model._target_=waiting.Net", "--plugin", "waiting")
    arguments = command(data, root, "search.trials=10", *few, *model, *SPACE)
    first = start(arguments)
    try:
        wait_for(lambda: list(root.glob("0*_*.log")), first)
        second = start(arguments)
        wait_for(lambda: len({trial.user_attrs.get("owner") for trial in trials_of(root)} - {None}) == 2, second)
    finally:
        Path("go").touch()
    assert (first.wait(), second.wait()) == (0, 0)
    trials = trials_of(root)
    assert len(trials) == 10
    assert states(root).keys() <= {"COMPLETE", "PRUNED"}
    assert len({trial.user_attrs["owner"] for trial in trials}) == 2
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 10
    assert len(json.loads((root / "sweep.json").read_text("utf-8"))["jobs"]) == 10


def test_what_cannot_be_compared_is_a_failure(data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ("search.pruner=none", "trainer.max_epochs=1", "search.sampler=random", "hydra.launcher.jobs=1")
    assert run(command(data, tmp_path / "a", "search.trials=6", *few, "head=poisson,gaussian", SPACE[0])) == 5
    assert "NLL is of a" in capfd.readouterr().out
    assert run(command(data, tmp_path / "b", "search.trials=2", *few, "data.seed=int(interval(0,99))")) == 5
    assert "validation rows" in capfd.readouterr().out
    assert run(command(data, tmp_path / "c", "search.trials=1", *few, SPACE[0], "data.validation_fraction=0")) == 5
    assert "no validation rows" in capfd.readouterr().out
    assert states(tmp_path / "c") == {"FAIL": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["search.trials=0"], "search.trials=0"),
        (["search.sampler=grid"], "expected tpe, random, qmc or cmaes"),
        (["search.pruner=hyperband"], "expected halving, median or none"),
        (["search.trails=3"], "Did you mean 'trials'"),
        (["search.timeout_s=-1"], "positive number of seconds"),
        (["trainer.max_epochs=int(interval(1,9))"], "equal numbers of epochs"),
        (["trainer.max_epochs=2"], "expected at least 3"),
        (["cv=kfold"], "many fits"),
        (["inputs=clipped,auto"], "several models in one trial"),
        (["optimizer.lr=tag(log,interval(-1,1))"], "cannot be searched"),
        (["model.hiden=choice(1,2)"], "hiden"),
    ],
)
def test_it_is_refused_before_anything_runs(
    settings: list[str], message: str, data: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = [] if any("optimizer.lr" in item for item in settings) else ["optimizer.lr=interval(0.1,0.2)"]
    assert run(command(data, tmp_path / "s", *settings, *more)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "s").exists()


def test_the_journal_is_one_of_optuna(data: str, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    study = SharedStudy(tmp_path / "s")
    assert study.study.directions[0].name == "MINIMIZE"
    assert trials_of(tmp_path / "s") == []


def test_a_process_of_another_machine_is_dead_after_a_minute_without_a_sign(tmp_path: Path) -> None:
    own, other = Presence(tmp_path), Presence(tmp_path)
    other.name = f"elsewhere-{other.name}"
    with own.kept(), other.kept():
        own.beat()
        assert own.is_alive(other.name)
        long_ago = time.time() - 3600
        os.utime(other.root / other.name, (long_ago, long_ago))
        assert not own.is_alive(other.name)
        assert not own.is_alive(own.name.replace("-", "-0", 1))


def test_a_process_of_this_machine_is_dead_when_it_has_ended(tmp_path: Path) -> None:
    own, other = Presence(tmp_path), Presence(tmp_path)
    with own.kept():
        with other.kept():
            assert own.is_alive(other.name)
        assert not own.is_alive(other.name)
        # A file that a killed process has left is not locked.
        (other.root / other.name).touch()
        assert not own.is_alive(other.name)


def test_earlier_failures_are_made_up_for_by_who_is_alone(tmp_path: Path) -> None:
    space, settings = Space.of(["optimizer.lr=interval(0.1,1)"]), SearchSettings(3, "random", "none")
    search = Search(tmp_path, settings, space, (), None)
    study, own, other = search.open(), Presence(tmp_path), Presence(tmp_path)
    study.end(study.ask(settings, space.distributions, other.name).number, "fail")
    study.ask(settings, space.distributions, other.name)
    with own.kept():
        with other.kept():
            assert Participation(search, study, own, ForkLauncher(jobs=1)).wanted == 3
        assert Participation(search, study, own, ForkLauncher(jobs=1)).wanted == 4
