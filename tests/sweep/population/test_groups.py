"""Which jobs train together, and what becomes of them when one fails, or all at once."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import summary_of

from mlefw.command import train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import Stopped
from mlefw.objective.objective import evaluate
from mlefw.run.build import build_metrics
from mlefw.run.prepare import prepare
from mlefw.score.figures import figures_on
from mlefw.sweep.population import fit, run, signature
from mlefw.sweep.population.dispatch import Groups
from mlefw.sweep.population.stacked import Stack
from mlefw.sweep.population.stacked_rows import StackedRows
from mlefw.sweep.progress import Progress
from mlefw.sweep.record import Journal, plan
from mlefw.system.fork_pool import Pool
from mlefw.system.signals import deferred

FEW = ("model.hidden=[4]", "trainer.max_epochs=3", "logger=none", "report=false", "plots=false")


def composed(*overrides: str) -> dict[str, Any]:
    return read_settings("train", list({item.partition("=")[0]: item for item in (*FEW, *overrides)}.values()), (), ())


def entries(folder: Path, *members: tuple[str, ...]) -> list[run.Entry]:
    return [run.Entry(i, composed(*own), folder / str(i), folder / f"{i}.log") for i, own in enumerate(members)]


@pytest.mark.parametrize(
    ("common", "own"),
    [
        ((), "seed=7"),
        ((), "optimizer.lr=0.1"),
        (("optimizer=adamw",), "optimizer.weight_decay=0.1"),
        ((), "step.clip_norm=0"),
        ((), "model.dropout=0.1"),
        ((), "scheduler.factor=0.3"),
        ((), "early_stopping.patience=3"),
        (("prior=l2",), "prior.scale=3"),
        (("loss=label_smoothing", "data=iris", "head=categorical"), "loss.amount=0.2"),
        (("loss=focal", "data=iris", "head=categorical"), "loss.gamma=1"),
        (("loss=beta_nll", "head=heteroscedastic"), "loss.beta=0.1"),
    ],
)
def test_what_is_data_to_a_step_is_a_member_s_own(common: tuple[str, ...], own: str) -> None:
    known = [signature.signature(settings_of(composed(*common, *more))) for more in ((), (own,))]
    assert known[0] == known[1] is not None


@pytest.mark.parametrize(
    "other", ["model.hidden=[5]", "batch.size=16", "data.seed=1", "head=laplace", "trainer.max_epochs=4", "prior=l2"]
)
def test_all_else_is_common(other: str) -> None:
    assert signature.signature(settings_of(composed(other))) not in (None, signature.signature(settings_of(composed())))


@pytest.mark.parametrize(
    ("unusual", "words"),
    [
        *(("model=residual", "model"), ("batch.size=2048", "batch.size")),
        *(("trainer.max_time=00:00:01:00", "trainer.max_time"), ("optimizer.amsgrad=true", "optimizer")),
        *(("step.replay=false", "step.replay=false"), ("checkpoint.every_steps=3", "checkpoints within epochs")),
        # Whoever else watches a training counts on Lightning's trainer.
        ("+callback.timer._target_=lightning.pytorch.callbacks.Timer", "callback"),
    ],
)
def test_what_is_unusual_is_trained_alone(unusual: str, words: str) -> None:
    few = composed(unusual) if unusual != "model=residual" else read_settings("train", [unusual], (), ())
    assert signature.signature(settings_of(few)) is None
    assert signature.obstacle(settings_of(few)) == words


def test_where_it_is_asked_for_sizes_and_models_are_no_obstacle() -> None:
    few = read_settings("train", ["model=residual", "batch.size=2048"], (), ())
    assert signature.obstacle(settings_of(few), is_asked=True) is None


def test_figures_of_all_members_are_computed_at_once() -> None:
    known = [prepare(settings_of({**composed(f"seed={seed}"), "run_dir": "runs"}), None) for seed in (1, 2)]
    stack = Stack([one.estimand.objective.eval() for one in known])
    metrics = build_metrics(settings_of(composed()), stack.objectives[0].head)
    rows = known[0].data.train
    table = StackedRows([rows._replace(x=stack.objectives[0].model.standardize(rows.x))] * 2)
    found = stack.figures(table, metrics)
    assert stack.together == [True] * len(metrics)
    for figures, objective in zip(found, stack.objectives, strict=True):
        expected = figures_on(objective, evaluate(objective, known[0].data.train), known[0].data.train, metrics)
        assert figures["crps"] == pytest.approx(expected["crps"], rel=1e-6)


def test_groups_are_split_over_the_processes_and_bounded() -> None:
    assert signature.groups(["a", None, "a", "b", "a", "a"], 2) == [[0, 4], [2, 5]]
    sizes = [len(group) for group in signature.groups(["a"] * 300, 2)]
    assert sum(sizes) == 300 and max(sizes) <= signature.MAX_MEMBERS and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("large", "is_suitable"),
    [
        (("batch.size=1024",), True),
        (("batch.size=8", "model.hidden=[128,128]"), True),
        (("batch.size=8", "model.hidden=[256,256]"), False),
        (("batch.size=512", "model.hidden=[128,128]"), False),
        (("batch=full", "data=synthetic"), True),
        (("batch=full", "data=synthetic", "data.num_rows=4000"), False),
    ],
)
def test_large_networks_and_large_batches_are_trained_alone(large: tuple[str, ...], is_suitable: bool) -> None:
    config = composed(*large)
    assert signature.signature(settings_of(config)) is not None
    prepared = prepare(settings_of({**config, "run_dir": "runs"}), None)
    with nullcontext() if is_suitable else pytest.raises(signature.UnsuitableError, match="rows a step of"):
        signature.check(prepared)


@pytest.mark.filterwarnings("ignore")
def test_a_member_that_may_go_back_is_left_to_train_alone(tmp_path: Path) -> None:
    members = [(f"optimizer.lr={lr}", "optimizer=sgd", "step.clip_norm=0") for lr in ("0.01", "1e30", "0.02")]
    assert run.run(entries(tmp_path, *members), tmp_path / "results.json") == 0
    assert {i: code for i, (code, _) in run.read_results(tmp_path / "results.json").items()} == {0: 0, 2: 0}


@pytest.mark.filterwarnings("ignore")
def test_a_member_that_diverges_costs_itself_alone(tmp_path: Path) -> None:
    common = ("optimizer=sgd", "step.clip_norm=0", "step.recoveries=0")
    members = [(f"optimizer.lr={lr}", *common) for lr in ("0.01", "1e30", "0.02")]
    group = entries(tmp_path, *members)
    assert run.run(group, tmp_path / "results.json") == 0
    assert {i: code for i, (code, _) in run.read_results(tmp_path / "results.json").items()} == {0: 0, 1: 3, 2: 0}
    assert "diverged" in summary_of(tmp_path / "1")["reason"] and "diverged" in group[1].log.read_text("utf-8")
    for index in (0, 2):
        solo = tmp_path / f"solo{index}"
        expected = train.run(settings_of({**group[index].config, "run_dir": str(solo)}), solo)
        found = summary_of(tmp_path / str(index))["metrics"]["test"]["nll_nats"]
        assert found == pytest.approx(expected["metrics"]["test"]["nll_nats"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_member_can_be_resumed(tmp_path: Path) -> None:
    group = entries(tmp_path, ("seed=1",), ("seed=2",))
    assert run.run(group, tmp_path / "results.json") == 0
    longer = settings_of({**group[1].config, "run_dir": str(tmp_path / "1"), "resume": str(tmp_path / "1")})
    longer = longer.replaced(trainer={**longer.trainer.node, "max_epochs": 5})
    resumed = train.run(longer, tmp_path / "1")
    solo = settings_of({**group[1].config, "run_dir": str(tmp_path / "solo")})
    solo = solo.replaced(trainer={**solo.trainer.node, "max_epochs": 5})
    expected = train.run(solo, tmp_path / "solo")
    assert resumed["num_steps"] == expected["num_steps"]
    for split, figures in expected["metrics"].items():
        assert resumed["metrics"][split]["nll_nats"] == pytest.approx(figures["nll_nats"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_signal_leaves_a_checkpoint_of_every_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = fit._Group._steps

    def stopped(group: Any, epoch: int) -> int:
        os.kill(os.getpid(), 15)
        return steps(group, epoch)

    monkeypatch.setattr(fit._Group, "_steps", stopped)
    group = entries(tmp_path, ("seed=1",), ("seed=2",))
    assert run.run(group, tmp_path / "results.json") == Stopped("SIGTERM", 143).exit_code
    assert [code for code, _ in run.read_results(tmp_path / "results.json").values()] == [143, 143]
    for index in ("0", "1"):
        assert (tmp_path / index / "checkpoints" / "last.ckpt").is_file()
        assert summary_of(tmp_path / index)["status"] == "failed"


@pytest.mark.parametrize("end", ["killed", "large"])
def test_the_jobs_of_a_group_that_ends_without_a_word_are_left_to_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    if end == "killed":
        monkeypatch.setattr(fit._Group, "_steps", lambda *_: os.kill(os.getpid(), 9))
    else:
        monkeypatch.setattr(signature, "_MAX_WORK", 1)
    jobs = plan(tmp_path, [("seed=1",), ("seed=2",), ("batch.size=16",)], ["seed", "batch.size"])
    groups = Groups(Progress(Journal(tmp_path, jobs), True, None))
    configs = {i: composed(*job.overrides) for i, job in enumerate(jobs)}
    assert torch.get_num_threads()
    with deferred(), Pool(1, 1, None, groups.ended) as pool:
        assert groups.submit(pool, configs) == [2]
        pool.drain()
    assert sorted(groups.left) == [0, 1]
    assert not any(job.run_dir.exists() for job in jobs)
    assert {job.status for job in jobs} == {"not run"}
    assert not [path for path in tmp_path.glob("*.json") if path.name != "sweep.json"]
    assert isinstance(json.loads((tmp_path / "sweep.json").read_text("utf-8")), dict)
    assert [*tmp_path.glob("superseded/*")] != [] if end == "killed" else not (tmp_path / "superseded").exists()


def test_it_can_be_switched_off() -> None:
    from mlefw.sweep.launcher import ForkLauncher

    assert ForkLauncher().population
    assert not ForkLauncher(population=False).population
    assert not ForkLauncher(timeout_s=5.0).population


def test_inputs_that_do_not_fit_into_memory_are_those_of_a_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(settings_of(composed("inputs=piecewise_linear")), None)
    signature.check(prepared)
    monkeypatch.setattr(signature, "MAX_INPUTS", 1000)
    with pytest.raises(signature.UnsuitableError, match="inputs of the model"):
        signature.check(prepared)


class Unsuitable(torch.nn.Module):
    """A network that draws random numbers, or looks at a value, or may not be recorded."""

    def __init__(self, inner: torch.nn.Module, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind
        self.replayable = kind != "opaque"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x)
        if self.kind == "draws":
            return found + torch.randn_like(found)
        return found if self.kind == "opaque" or bool((found > -9).all()) else -found


@pytest.mark.parametrize(
    ("kind", "words"), [("draws", "at once: "), ("looks", "at once: "), ("opaque", "lacks replayable = True")]
)
def test_a_network_that_no_step_of_several_can_compute_is_trained_alone(kind: str, words: str) -> None:
    prepared = prepare(settings_of({**composed("seed=3"), "run_dir": "runs"}), None)
    prepared.estimand.objective.model.model = Unsuitable(prepared.estimand.objective.model.model, kind)
    with pytest.raises(signature.UnsuitableError, match=words):
        signature.check(prepared, is_asked=True)
