"""No verdict rests on a handful of rows."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import summary_of
from pyarrow import csv
from scipy import stats

from mlefw.baseline.distance import decisive
from mlefw.cli import run
from mlefw.report.sentences import verdict

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("far", [1e2, 1e28, math.inf, math.nan, -1e9])
@pytest.mark.parametrize("count", [1, 4])
def test_rows_that_carry_the_difference_are_found_and_left_out(far: float, count: int) -> None:
    difference = torch.as_tensor(np.random.default_rng(0).normal(0.1, 0.05, 88))
    difference[10 : 10 + count] = far
    weight = torch.ones(88).double()
    few = decisive(difference, weight)
    assert few is not None
    assert (few.num_rows, few.of) == (count, 88)
    rest = np.delete(difference.numpy(), range(10, 10 + count))
    assert few.mean == pytest.approx(rest.mean(), rel=1e-12)
    assert few.error == pytest.approx(stats.sem(rest), rel=1e-12)


@pytest.mark.parametrize("draw", ["normal", "laplace", "standard_cauchy", "lognormal"])
def test_differences_of_many_rows_are_not_blamed_on_few(draw: str) -> None:
    random = np.random.default_rng(0)
    told = 0
    for _ in range(40):
        values = getattr(random, draw)(size=200) * 0.1
        told += decisive(torch.as_tensor(values), torch.ones(200).double()) is not None
    assert told <= (2 if draw == "standard_cauchy" else 0)


def test_few_rows_or_no_difference_decide_nothing() -> None:
    assert decisive(torch.tensor([0.0, 100.0]).double(), torch.ones(2).double()) is None
    assert decisive(torch.zeros(100).double(), torch.ones(100).double()) is None
    assert decisive(torch.tensor([1e-9] + [0.0] * 99).double(), torch.ones(100).double()) is None


@pytest.mark.parametrize("far", [1e4, 1e30])
def test_a_verdict_without_the_row_that_is_far_out(
    far: float,
    table: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 3))
    x[17, 1] = far
    columns = {f"x{j}": x[:, j] for j in range(3)}
    csv.write_csv(pa.table({**columns, "y": 100 + 10 * random.normal(size=60)}), tmp_path / "t.csv")
    data = ("data=csv", f"data.path={table()}", "data.test_path=t.csv", "data.target=y", "report=false", "plots=false")
    for name, more in (("a", ("model.hidden=[8]",)), ("b", ("model=linear",))):
        assert run(["train", *data, *more, "trainer.max_epochs=20", f"run_dir={name}"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    summary = summary_of(tmp_path / "a")
    few = summary["distance"]["decisive"]["test"]
    assert (few["num_rows"], few["of"]) == (1, 60)
    assert few["error"] < 1 < abs(summary["distance"]["gap_nats"]["test"])
    assert "without 1 of 60 rows, which alone decides the mean" in verdict(summary)
    assert verdict(summary) in out
    assert run(["compare", "runs=[a,b]", "split=test"]) == 0
    assert "without 1 of 60 rows" in " ".join(capfd.readouterr().out.split())
