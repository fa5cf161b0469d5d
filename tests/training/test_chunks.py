"""Whole runs: nothing depends on how many steps one hand-over from Lightning holds."""

import csv
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from mlefw.objective.tape import Tape
from mlefw.run import archive
from tests.interrupted import QUIET, TEXT, train, write_text

SMALL = ("model.hidden=[9]", "model.dropout=0.2", "batch.size=11", "trainer.max_epochs=3", "seed=3", *QUIET)
"""266 training rows of 10 features: 25 steps an epoch, the last one of 2 rows, none of whole cache lines."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


def content(run_dir: str) -> dict[str, Any]:
    return archive.read(Path(run_dir) / "checkpoints" / "last.ckpt")


def leaves(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in leaves(value)]
    return [leaf for value in node for leaf in leaves(value)] if isinstance(node, list | tuple) else [node]


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


def state(run_dir: str) -> list[Any]:
    """Weights, the optimiser's and scheduler's memory, the place, the figures and the random states, bit for bit."""
    found = content(run_dir)
    return leaves([found[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "resume")])


@pytest.mark.parametrize(
    "settings",
    [
        ("head=heteroscedastic", "prior=l1"),
        ("head=gaussian", "optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.9", "batch=replacement"),
        ("head=laplace", "optimizer=adamw", "batch=growing", "batch.every=1", "step.clip_norm=0"),
    ],
    ids=["mini-l1", "replacement-momentum", "growing-adamw"],
)
def test_results_do_not_depend_on_the_chunk(settings):
    for chunk in ("1", "5", "32", "auto"):
        assert train(*settings, *SMALL, f"step.per_chunk={chunk}", f"run_dir=k{chunk}") == 0
    for chunk in ("5", "32", "auto"):
        assert same(state("k1"), state(f"k{chunk}"))


def test_results_do_not_depend_on_recorded_steps(monkeypatch):
    settings = ("head=heteroscedastic", "prior=l1", *SMALL)
    assert train(*settings, "run_dir=recorded") == 0
    # Exact solvers record derivatives of their own, which are no steps.
    monkeypatch.setattr("mlefw.baseline.derivatives.is_replayable", lambda head: False)
    monkeypatch.setattr(Tape, "__init__", refused)
    assert train(*settings, "step.replay=false", "run_dir=anew") == 0
    assert same(state("recorded"), state("anew"))


@pytest.mark.parametrize("regime", ["mini", "replacement"])
def test_the_windows_of_a_text_do_not_depend_on_the_chunk_or_on_recorded_steps(regime):
    settings = (*TEXT, f"batch={regime}", "seed=3", *QUIET)
    others = {"k4": ("step.per_chunk=4",), "auto": (), "anew": ("step.replay=false",)}
    for name, more in {"k1": ("step.per_chunk=1",), **others}.items():
        assert train(*settings, *more, f"run_dir={name}") == 0
    for name in others:
        assert same(state("k1"), state(name))


def test_slices_of_windows_add_up_to_the_gradient_of_all():
    given = {"batch.size=16", "model.dropout=0.1", "trainer.max_epochs=3"}
    settings = (*(one for one in TEXT if one not in given), "batch=full", "trainer.precision=64-true", *QUIET)
    settings = (*settings, "trainer.max_epochs=6")
    for size in ("30", "1000"):
        assert train(*settings, f"batch.max_rows={size}", f"run_dir=of{size}") == 0
    one, other = (archive.read(Path(name) / "checkpoints" / "last.ckpt")["state_dict"] for name in ("of30", "of1000"))
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-9, atol=1e-11), name


def refused(*_: object) -> None:
    raise AssertionError("something was recorded")


FULL = ("model.hidden=[9]", "model.dropout=0.2", "batch=full", "trainer.max_epochs=75", "seed=3", *QUIET)
"""Epochs of one step: evaluated each at first, then every second, and more rarely from 30 on."""


def test_epochs_of_one_step_do_not_depend_on_the_chunk():
    for chunk in ("1", "7", "auto"):
        assert train(*FULL, "scheduler=cosine", f"step.per_chunk={chunk}", f"run_dir=k{chunk}") == 0
    for chunk in ("7", "auto"):
        assert same(state("k1"), state(f"k{chunk}"))
        assert figures_of("k1") == figures_of(f"k{chunk}")


@pytest.mark.parametrize("steps", [45, 57, 64, 66])
def test_a_run_of_one_step_epochs_goes_on_from_anywhere_between_two_evaluations(steps):
    settings = (*FULL, "scheduler=plateau", "scheduler.patience=3", "optimizer.lr=0.1")
    assert train(*settings, "run_dir=whole") == 0
    assert train(*settings, "run_dir=part", f"trainer.max_steps={steps}") == 0
    assert train("resume=part", "trainer.max_steps=-1") == 0
    assert same(state("part"), state("whole"))
    assert figures_of("part") == figures_of("whole")


def test_a_longer_run_of_one_step_epochs_is_the_one_that_was_asked_for_at_once():
    # 61 epochs end between two evaluations: the one at the end is logged, and changes nothing.
    assert train(*FULL, "run_dir=whole") == 0
    assert train(*FULL, "run_dir=part", "trainer.max_epochs=61") == 0
    assert train("resume=part", "trainer.max_epochs=75") == 0
    assert same(state("part"), state("whole"))
    found, expected = figures_of("part", leave=[61]), figures_of("whole")
    # The mean over the steps since the evaluation before is one over fewer of them, once.
    assert [
        row.pop("train/step_loss") != other.pop("train/step_loss")
        for row, other in zip(found[1:], expected[1:], strict=True)
    ].count(True) == 1
    assert found == expected


def test_a_fixed_number_of_epochs_between_evaluations_is_kept():
    assert train(*FULL, "run_dir=r", "trainer.check_val_every_n_epoch=10") == 0
    assert [int(row["epoch"]) + 1 for row in figures_of("r")] == [0, *range(10, 75, 10)]
    assert all("train/nll_nats" in row for row in figures_of("r"))


def figures_of(run_dir: str, leave: Collection[int] = ()) -> list[dict[str, str]]:
    """What metrics.csv has of each evaluation, the time aside, less those after some numbers of epochs."""
    with (Path(run_dir) / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
    for row in rows:
        row.pop("rows_per_s", None)
    return [row for row in rows if int(row["epoch"]) + 1 not in leave]


@pytest.mark.parametrize("chunk", ["1", "5", "32", "auto"])
def test_a_limit_of_steps_is_met_within_an_epoch_and_the_run_goes_on_from_there(chunk):
    steps = 25 + 12
    assert train(*SMALL, f"step.per_chunk={chunk}", "run_dir=whole") == 0
    assert train(*SMALL, f"step.per_chunk={chunk}", "run_dir=part", f"trainer.max_steps={steps}") == 0
    place = content("part")["resume"]
    assert (content("part")["global_step"], place["step"], place["epoch"], place["first_step"]) == (steps, steps, 1, 25)
    assert train("resume=part", "trainer.max_steps=-1") == 0
    assert same(state("part"), state("whole"))


def test_a_limit_of_steps_before_the_first_evaluation_ends_as_a_run_does():
    assert train(*SMALL, "scheduler=plateau", "run_dir=r", "trainer.max_steps=1") == 0
    assert content("r")["global_step"] == 1


def test_what_lightning_counts_in_batches_is_counted_in_steps():
    assert train(*SMALL, "run_dir=r", "trainer.limit_train_batches=3") == 0
    assert content("r")["global_step"] == 9


@pytest.mark.parametrize("value", ["0", "-2", "2.5", "many", "true"])
def test_a_chunk_of_no_whole_number_is_refused(value, capsys):
    assert train(*SMALL, f"step.per_chunk={value}", "run_dir=r") == 2
    assert "step.per_chunk" in capsys.readouterr().err
    assert not Path("r").exists()
