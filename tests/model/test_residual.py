"""The residual model starts exactly at the classical estimate.

The estimate comes from statsmodels, scikit-learn, HiGHS or scipy, on data sets that these bring along.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from baseline.exact_oracles import Sample, data, estimate, varied
from conftest import Run, summary_of
from pyarrow import csv
from training.test_theorem import SCALE, write

from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import UsageError
from mlefw.model.linear import Linear
from mlefw.model.mlp import Mlp
from mlefw.model.residual import Residual
from mlefw.objective.objective import evaluate
from mlefw.run import prepare
from mlefw.run.prepare import Prepared

PLAIN = ("logger=none", "report=false", "plots=false")
CASES = [
    *(("gaussian", name, None) for name in ("stackloss", "scotland", "engel", "diabetes", "longley")),
    *(("gaussian_fixed", name, tau) for name in ("stackloss", "diabetes") for tau in (None, 0.1)),
    *(("heteroscedastic", name, None) for name in ("engel", "diabetes")),
    *(("laplace", name, None) for name in ("stackloss", "engel", "scotland", "diabetes")),
    *(("bernoulli", name, None) for name in ("spector", "fair", "iris_12", "star98")),
    *(("categorical", name, None) for name in ("anes96", "wine_2")),
    *(("poisson", name, None) for name in ("cpunish", "randhie")),
    *((head, "stackloss", 0.1) for head in ("gaussian", "laplace")),
    ("heteroscedastic", "engel", 1.0),
    ("bernoulli", "breast_cancer", 1.0),
    ("categorical", "iris", 0.1),
    ("poisson", "cpunish", 0.1),
]
VARIED = [
    *((head, "stackloss") for head in ("gaussian", "gaussian_fixed", "laplace")),
    ("heteroscedastic", "engel"),
    ("bernoulli", "spector"),
    ("poisson", "cpunish"),
]


def started(head: str, of: Sample, tau: float | None, folder: Path, *more: str) -> Prepared:
    """A run with the residual model, just before its first step."""
    settings = ["model=residual", "data=csv", "data.target=the_target", "data.test_fraction=0", f"head={head}"]
    settings += ["data.validation_fraction=0", *write(folder / "data.csv", of, head == "categorical")]
    settings += ["prior=none"] if tau is None else ["prior=l2", f"prior.scale={tau}"]
    settings += [f"head.scale={SCALE}"] if head == "gaussian_fixed" else []
    config = settings_of({**read_settings("train", [*settings, *more], [], []), "run_dir": "r"})
    return prepare.start(config, prepare.prepare(config, None))


def mean_nll(prepared: Prepared) -> float:
    rows = prepared.data.train
    return float(rows.weight @ evaluate(prepared.estimand.objective, rows).nll / rows.weight.sum())


def check(head: str, of: Sample, tau: float | None, folder: Path) -> None:
    prepared = started(head, of, tau, folder)
    expected = estimate(head, of, tau, SCALE)
    found = mean_nll(prepared)
    # The oracles stop at 1e-8 themselves; with the exact solver the start agrees to rounding.
    assert found == pytest.approx(expected.nll, rel=1e-7, abs=1e-7)
    problem = prepared.exact.optimum.problem
    assert found == pytest.approx(problem.mean_nll(prepared.exact.optimum.theta), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("head", "name", "tau"), CASES)
def test_it_starts_at_the_exact_estimate(head: str, name: str, tau: float | None, tmp_path: Path) -> None:
    check(head, data(name), tau, tmp_path)


@pytest.mark.parametrize(("head", "name"), VARIED)
def test_with_row_weights_and_an_offset(head: str, name: str, tmp_path: Path) -> None:
    check(head, varied(data(name), "weight and offset"), None, tmp_path)


def test_collinear_columns_do_not_matter(tmp_path: Path) -> None:
    of = data("stackloss")
    twice = Sample(np.column_stack([of.x, of.x[:, 0] * 2]), (*of.names, "again"), of.y, of.weight, of.offset)
    assert mean_nll(started("gaussian", twice, None, tmp_path)) == pytest.approx(estimate("gaussian", of).nll, rel=1e-9)


def test_the_start_does_not_depend_on_where_the_head_starts(tmp_path: Path) -> None:
    found = mean_nll(started("gaussian", data("diabetes"), None, tmp_path, "head.start=zero"))
    assert found == pytest.approx(estimate("gaussian", data("diabetes")).nll, rel=1e-9)


@pytest.mark.parametrize("linear", ["frozen", "trainable"])
def test_what_is_trained_and_what_the_prior_holds(linear: str, tmp_path: Path) -> None:
    prepared = started("poisson", data("cpunish"), 0.1, tmp_path, f"model.linear={linear}", "model.hidden=[3]")
    objective, p = prepared.estimand.objective, data("cpunish").x.shape[1]
    skip = p + 1 if linear == "trainable" else 0
    assert prepared.num_parameters == (p * 3 + 3) + (3 + 1) + skip
    shapes = [tuple(w.shape) for w in objective.weights()]
    assert shapes == [(1, p)] * bool(skip) + [(3, p), (1, 3)]
    objective(prepared.data.train).backward()
    layer = objective.model.model.linear.layer
    assert (layer.weight.grad is not None) == (linear == "trainable")
    if linear == "trainable":
        # At the optimum of the linear model its gradient vanishes: the network alone is pulled.
        assert float(layer.weight.grad.abs().max()) < 1e-9
    assert float(objective.model.model.last.weight.grad.abs().max()) > 1e-4


def test_the_output_is_the_sum() -> None:
    torch.manual_seed(0)
    model = Residual(3, 2, hidden=[4], activation="tanh").double()
    torch.nn.init.normal_(model.last.weight)
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3), (2, 3), (2,)))
    model.start_at(weight, bias)
    network = Mlp(3, 2, hidden=[4], activation="tanh").double()
    network.load_state_dict(model.network.state_dict())
    torch.testing.assert_close(model(x), x @ weight.T + bias + network(x), rtol=1e-13, atol=1e-13)


def test_the_estimate_keeps_its_digits_beside_32_bit_weights() -> None:
    model, exact = Residual(2, 1), Linear(2, 1).double()
    weight, bias = torch.tensor([[1 / 3, 1e-9]], dtype=torch.float64), torch.tensor([1e6], dtype=torch.float64)
    model.start_at(weight, bias)
    exact.load(weight, bias)
    x = torch.randn(10, 2, dtype=torch.float64)
    assert torch.equal(model(x), exact(x))
    assert model.last.weight.dtype == torch.float32


@pytest.mark.parametrize("bad", ["fixed", "", "Frozen"])
def test_bad_settings_are_refused(bad: Any) -> None:
    with pytest.raises(UsageError, match=r"model\.linear="):
        Residual(3, 1, linear=bad)


# ------------------------------------------------------------------------------------------------------ as a command


@pytest.mark.parametrize("linear", ["frozen", "trainable"])
def test_a_run_reloads_and_predicts_without_solving(mlefw: Run, tmp_path: Path, linear: str) -> None:
    done = mlefw("train", "model=residual", f"model.linear={linear}", "trainer.max_epochs=5", *PLAIN, "run_dir=r")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "r")
    log = csv.read_csv(tmp_path / "r" / "metrics.csv").to_pydict()
    assert log["epoch"] == [-1, 0, 1, 2, 3, 4]
    for split in ("train", "validation"):
        assert log[f"{split}/gap_nats"][0] == pytest.approx(0, abs=1e-12)
        assert log[f"{split}/skill"][0] == pytest.approx(1, abs=1e-9)
    assert log["train/gap_nats"][-1] < -1e-3
    assert mlefw("evaluate", "run=r", "output=e.json").returncode == 0
    evaluated = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert evaluated["metrics"] == pytest.approx(summary["metrics"]["test"], rel=1e-12)


def test_training_that_only_harms_keeps_the_start(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    common = ("train", "model=residual", "data=csv", f"data.path={path}", "data.target=y", *PLAIN)
    noisy = ("optimizer=sgd", "optimizer.lr=0.5", "step.clip_norm=1", "average=none", "trainer.max_epochs=4")
    done = mlefw(*common, *noisy, "run_dir=r")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "r")
    log = csv.read_csv(tmp_path / "r" / "metrics.csv").to_pydict()
    assert min(log["validation/nll_nats"][1:]) > log["validation/nll_nats"][0]
    assert summary["best_epoch"] == -1
    for split, exact in summary["baseline"].items():
        if isinstance(exact, dict):
            assert summary["metrics"][split]["nll_nats"] == pytest.approx(exact["nll_nats"], rel=1e-12)
    predicted = mlefw("predict", "run=r", f"data.path={path}", "output=p.csv")
    assert predicted.returncode == 0, predicted.stderr
    frame = csv.read_csv(path).to_pandas()
    kept = summary["num_rows"]
    assert sum(kept.values()) == len(frame)
    # The kept model is linear: its predictions are an affine function of the features.
    design = np.column_stack([np.ones(len(frame)), frame[["x0", "x1", "x2"]]])
    mean = csv.read_csv(tmp_path / "p.csv").to_pandas()["mean"].to_numpy()
    fitted = design @ np.linalg.lstsq(design, mean, rcond=None)[0]
    np.testing.assert_allclose(mean, fitted, rtol=1e-12)


def test_without_an_estimate_nothing_is_written(mlefw: Run, tmp_path: Path) -> None:
    separated = ("head=bernoulli", "data=breast_cancer", "model=residual", *PLAIN, "trainer.max_epochs=2")
    done = mlefw("train", *separated, "run_dir=r")
    assert done.returncode == 2
    assert "separated" in done.stderr
    assert "prior=l2" in done.stderr
    assert not (tmp_path / "r").exists()
    assert mlefw("check", *separated).returncode == 2
    assert mlefw("baseline", *separated, "run_dir=b").returncode == 0
    done = mlefw("train", *separated, "prior=l2", "run_dir=m")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "m")
    assert summary["distance"]["reference"] == "map"
    assert "excess_objective" not in summary["distance"]
    done = mlefw("train", "model=residual", "baseline=none", "run_dir=n")
    assert done.returncode == 2
    assert "baseline=linear" in done.stderr


def test_a_perfect_fit_is_refused(mlefw: Run, tmp_path: Path) -> None:
    x = np.arange(30.0)
    csv.write_csv(pa.table({"x": x, "y": 2 * x + 1}), tmp_path / "line.csv")
    done = mlefw("train", "model=residual", "data=csv", "data.path=line.csv", "data.target=y", "run_dir=r")
    assert done.returncode == 2
    assert "there is no finite one: the linear model fits every" in done.stderr
    assert "gaussian_fixed" in done.stderr
    assert not (tmp_path / "r").exists()


def test_in_a_sweep(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "-m", "model=linear,mlp,residual", "trainer.max_epochs=2", *PLAIN, "run_dir=s")
    assert done.returncode == 0, done.stderr
    assert {summary_of(folder)["model"] for folder in (tmp_path / "s").glob("0*")} == {"linear", "mlp", "residual"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lbfgs"])
def test_every_optimizer_takes_both_precisions(mlefw: Run, tmp_path: Path, optimizer: str) -> None:
    common = ("model=residual", "model.linear=trainable", *PLAIN, "trainer.max_epochs=3", "step.clip_norm=1")
    more = ("batch=full", *(["trainer.precision=32-true"] if optimizer == "lbfgs" else ["optimizer.lr=0.01"]))
    done = mlefw("train", *common, f"optimizer={optimizer}", *more, "data.validation_fraction=0", "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert summary_of(tmp_path / "r")["distance"]["gap_nats"]["train"] < 0
