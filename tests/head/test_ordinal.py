"""Proportional odds: the exact fit beside statsmodels, separation, and labels with an order."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scoringrules
import torch
from pyarrow import csv
from statsmodels.miscmodels.ordinal_model import OrderedModel

from mlefw.baseline.existence import examine
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.errors import UsageError
from mlefw.head.ordinal import OrdinalHead
from mlefw.prior.none import NoPrior
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows
from mlefw.schema.target import learn_labels


def problem_of(x: np.ndarray, y: np.ndarray, num_classes: int) -> Problem:
    ones = torch.ones(len(y), dtype=torch.float64)
    rows = Rows(torch.tensor(x), torch.tensor(y), ones, torch.zeros_like(ones))
    return Problem.of(OrdinalHead(num_classes), rows, rows.x.mean(0), rows.x.std(0), NoPrior())


@pytest.mark.parametrize("cuts", [[0.0], [-1.0, 1.0], [-2.0, -0.5, 1.0, 1.3]])
def test_the_exact_fit_is_that_of_proportional_odds(cuts: list[float]) -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    y = np.digitize(x @ [1.0, -0.05, 2.0] - 1.75 + random.logistic(size=400), cuts)
    problem = problem_of(x, y, len(cuts) + 1)
    solution = examine(LinearBaseline().solve(problem))
    assert solution.converged
    assert solution.exists
    assert solution.is_global
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    other = OrderedModel(y, z, distr="logit")
    fit = other.fit(
        method="newton", disp=0, start_params=other.start_params, maxiter=200, tol=1e-12, warn_convergence=False
    )
    assert solution.objective * 400 == pytest.approx(-fit.llf, abs=1e-8)
    # Its first threshold is minus our intercept; after it come the logarithms of the gaps.
    theirs = [*fit.params[:3], -fit.params[3], *fit.params[4:]]
    np.testing.assert_allclose(solution.theta.numpy(), theirs, rtol=1e-6, atol=1e-7)


def test_two_classes_are_logistic_regression() -> None:
    head = OrdinalHead(2)
    eta = torch.tensor([[-3.0], [0.2]], dtype=torch.float64)
    assert head.convex
    torch.testing.assert_close(
        head.nll(eta, torch.tensor([1, 0])), torch.nn.functional.softplus(torch.tensor([3.0, 0.2]).double())
    )


def test_complete_separation_is_found() -> None:
    x = np.linspace(-1, 1, 30)[:, None]
    solution = examine(LinearBaseline().solve(problem_of(x, np.digitize(x[:, 0], [-0.3, 0.4]), 3)))
    assert not solution.exists
    assert solution.reason is not None
    assert "completely separated" in solution.reason


def test_quasi_complete_separation_is_found() -> None:
    random = np.random.default_rng(0)
    x = np.stack([np.repeat([0.0, 1.0], 50), random.normal(size=100)], 1)
    # The highest class occurs on one side of a dummy alone, and every row there has it.
    y = np.where(x[:, 0] == 1, 2, random.integers(0, 2, 100))
    solution = examine(LinearBaseline().solve(problem_of(x, y, 3)))
    assert not solution.exists
    assert "50 of 100 rows" in (solution.reason or "")


def test_overlapping_classes_have_an_estimate_however_close_to_separation() -> None:
    x = np.linspace(-1, 1, 30)[:, None]
    y = np.digitize(x[:, 0], [-0.3, 0.4])
    y[[9, 11]] = [1, 0]
    y[[19, 21]] = [2, 1]
    solution = examine(LinearBaseline().solve(problem_of(x, y, 3)))
    assert solution.exists
    assert solution.converged


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_rows_has_no_thresholds(absent: int) -> None:
    random = np.random.default_rng(0)
    y = random.choice([k for k in range(3) if k != absent], 60)
    solution = examine(LinearBaseline().solve(problem_of(random.normal(size=(60, 2)), y, 3)))
    assert not solution.exists
    assert "a class has no rows" in (solution.reason or "")


def test_the_ranked_probability_score() -> None:
    eta = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distribution, y = OrdinalHead(5).double().distribution(eta), torch.arange(50) % 5
    hit = torch.nn.functional.one_hot(y, 5).double()
    expected = [scoringrules.rps_score(int(k) + 1, p.numpy()) for k, p in zip(y, distribution.probs, strict=True)]
    assert hit.sum() == 50
    np.testing.assert_allclose(distribution.crps(y).numpy(), expected, rtol=1e-12)


def a_table(values: list[object]) -> Table:
    return Table({"y": np.array(values, dtype=object)}, "d.csv", 2)


def test_text_labels_need_their_order() -> None:
    with pytest.raises(UsageError, match=r"labels of no known order: high, low\n.*data\.labels=\[…\]"):
        learn_labels(a_table(["low", "high"]), "y", "ordered")
    assert learn_labels(a_table(["low", "high"]), "y", "ordered", ["low", "high"]) == ("low", "high")
    assert learn_labels(a_table(["10", "9"]), "y", "ordered") == ("9", "10")


@pytest.mark.parametrize(
    ("kind", "order", "words"),
    [
        ("ordered", ["low"], "row 3\n  expected: one of data.labels: low"),
        ("ordered", ["low", "high", "huge"], "'huge' occurs in no row"),
        ("ordered", ["low", "high", "low"], "3 labels, 2 of them distinct"),
        ("numeric", ["low", "high"], "data.labels is for heads whose target has labels"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(kind: str, order: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        learn_labels(a_table(["low", "high"]), "y", kind, order)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_from_a_table_to_predictions(tmp_path: Path, mlefw: Callable[..., object]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=300)
    y = np.array(["low", "middle", "high"])[np.digitize(x + random.logistic(size=300), [-1, 1])]
    csv.write_csv(pa.table({"x": x, "y": y}), tmp_path / "d.csv")
    settings = ("data=csv", "data.path=d.csv", "data.target=y", "head=ordinal", "data.labels=[low,middle,high]")
    done = mlefw(
        "train", *settings, "run_dir=r", "model=linear", "batch=full", "optimizer=lbfgs", "report=false", "plots=false"
    )
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    gap = summary["metrics"]["train"]["nll_nats"] - summary["baseline"]["train"]["nll_nats"]
    assert abs(gap) < 1e-6
    done = mlefw("predict", "run=r", "data.path=d.csv", "output=p.csv")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    table = csv.read_csv(tmp_path / "p.csv").to_pydict()
    assert {"prob_low", "prob_middle", "prob_high", "class"} <= table.keys()
    cumulated = np.array(table["prob_low"])[np.argsort(x)]
    assert (np.diff(cumulated) <= 1e-12).all()


@pytest.mark.parametrize("kind", ["ordered", "labels"])
def test_a_number_is_not_taken_for_hundreds_of_labels(kind: str) -> None:
    numbers = Table({"y": np.arange(300) % 150}, "d.csv", 2)
    with pytest.raises(UsageError, match="holds 150 distinct numbers in 300 rows, not labels"):
        learn_labels(numbers, "y", kind)  # type: ignore[arg-type]
    codes = Table({"y": np.arange(3000) % 150}, "d.csv", 2)
    assert len(learn_labels(codes, "y", kind) or ()) == 150  # type: ignore[arg-type]
