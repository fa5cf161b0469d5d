"""The distances of each epoch, and of the end, as a run writes them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, summary_of
from pyarrow import csv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PLAIN = ("logger=none", "report=false", "plots=false")
WHOLE = ("data.validation_fraction=0", "data.test_fraction=0")


def log_of(run_dir: Path) -> dict[str, np.ndarray]:
    return {name: np.array(column, float) for name, column in csv.read_csv(run_dir / "metrics.csv").to_pydict().items()}


@pytest.mark.parametrize("head", ["gaussian", "heteroscedastic", "laplace", "bernoulli", "categorical", "poisson"])
def test_a_linear_model_on_its_way_to_the_estimate(
    mlefw: Run, tmp_path: Path, table: Callable[..., Path], head: str
) -> None:
    path = table("gaussian" if head == "heteroscedastic" else head)
    data = ("data=csv", f"data.path={path}", "data.target=y", f"head={head}", *PLAIN, *WHOLE)
    done = mlefw("train", *data, "model=linear", "batch=full", "optimizer=lbfgs", "trainer.max_epochs=40", "run_dir=r")
    assert done.returncode == 0, done.stderr
    log, found = log_of(tmp_path / "r"), summary_of(tmp_path / "r")["distance"]
    assert log["epoch"][0] == -1
    if head == "categorical":
        # These labels are noise: where the exact estimate gains nothing there is no skill to speak of.
        assert "train/skill" not in log
        assert "train" not in found["skill"]
    else:
        assert log["train/skill"][0] == pytest.approx(0, abs=1e-9)
        assert found["skill"]["train"] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(log["train/gap_nats"], log["train/nll_nats"] - log["mle/train/nll_nats"], atol=1e-15)
    np.testing.assert_allclose(log["train/excess_objective"], log["train/gap_nats"], rtol=1e-9, atol=1e-12)
    for name in ("euclidean", "mahalanobis"):
        column = log[f"train/parameter_{name}"]
        assert column[0] > 0.1 > column[-1]
        assert column[-1] == pytest.approx(found["parameter"][name], rel=1e-9, abs=1e-12)
    assert log["train/gap_nats"][-1] == pytest.approx(found["gap_nats"]["train"], abs=1e-12)
    assert found["parameter"]["inside_95_region"] is True
    assert found["predictive_kl"]["train"] >= 0
    assert found["head_refit_gap"] == pytest.approx(found["excess_objective"], abs=1e-8)
    if head in ("gaussian", "bernoulli", "categorical", "poisson"):
        assert found["predictive_kl"]["train"] == pytest.approx(found["gap_nats"]["train"], abs=1e-10)


def test_a_start_far_off_is_outside_the_confidence_region(mlefw: Run, tmp_path: Path) -> None:
    still = ("model=linear", "optimizer.lr=0", "trainer.max_epochs=1", *PLAIN, *WHOLE)
    assert mlefw("train", *still, "run_dir=r").returncode == 0
    assert summary_of(tmp_path / "r")["distance"]["parameter"]["inside_95_region"] is False


def test_under_a_prior_the_excess_is_that_of_the_objective(mlefw: Run, tmp_path: Path) -> None:
    few = ("model=linear", "prior=l2", "prior.scale=0.1", "trainer.max_epochs=3", *PLAIN, *WHOLE)
    assert mlefw("train", *few, "run_dir=r").returncode == 0
    log, summary = log_of(tmp_path / "r"), summary_of(tmp_path / "r")
    assert log["train/excess_objective"][-1] == pytest.approx(summary["distance"]["excess_objective"], rel=1e-9)
    assert summary["distance"]["head_refit_gap"] == pytest.approx(summary["distance"]["excess_objective"], rel=1e-6)
    assert (log["train/excess_objective"] > 0).all()
    # A confidence region is one of the likelihood alone.
    assert "inside_95_region" not in summary["distance"]["parameter"]


def test_a_network_has_no_parameter_distance_but_a_refit(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "trainer.max_epochs=3", *PLAIN[1:], "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert "Refitting the last layer exactly would gain" in done.stdout
    log = log_of(tmp_path / "r")
    assert not [name for name in log if "parameter_" in name or "excess" in name]
    assert summary_of(tmp_path / "r")["distance"]["head_refit_gap"] > 0
    events = EventAccumulator(str(next((tmp_path / "r").rglob("events.*")).parent)).Reload()
    for split in ("train", "validation"):
        scalars = [event.value for event in events.Scalars(f"{split}/gap_nats")]
        np.testing.assert_allclose(scalars, log[f"{split}/gap_nats"], rtol=1e-6)
        assert not any(math.isnan(value) for value in scalars)


def test_the_start_is_kept_where_no_epoch_is_better(mlefw: Run, tmp_path: Path) -> None:
    assert mlefw("train", "optimizer.lr=0", "trainer.max_epochs=2", *PLAIN, "run_dir=r").returncode == 0
    summary = summary_of(tmp_path / "r")
    assert summary["best_epoch"] == -1
    assert summary["metrics"]["test"]["nll_nats"] == pytest.approx(summary["null"]["test"]["nll_nats"], rel=1e-9)
