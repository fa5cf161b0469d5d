"""No group is closed: a plugin of every group, written in a folder of its own and used from the command line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchmetrics
from conftest import Run, summary_of
from pyarrow import csv, parquet
from torch import from_numpy

COMMON = (
    "data=csv",
    "data.path=d.csv",
    "data.target=y",
    "logger=none",
    "report=false",
    "plots=false",
    "trainer.max_epochs=3",
)
QUICK = ("model=linear", *COMMON)

UNCERTAINTY = '''
import torch
from torch.distributions import Normal

from mlefw.errors import UsageError
from mlefw.uncertainty.base import Method, Uncertain


class Wide(Uncertain):
    name = "inflate"

    def __init__(self, factor, mean):
        self.factor, self.mean = factor, mean

    def predictive(self, objective, rows):
        found = objective.head(objective.eta(rows.x, rows.offset))
        return Normal(found.mean, found.stddev * self.factor, validate_args=False)

    def facts(self):
        return {"factor": self.factor}

    def state(self):
        return {"factor": self.factor, "mean": self.mean}


class Inflate(Method):
    """Spreads every prediction by a factor, and remembers the mean of the training targets."""

    name = "inflate"

    def __init__(self, factor=2.0):
        self.factor = factor

    def check(self, objective):
        if objective.head.target != "numeric":
            raise UsageError("uncertainty=inflate is for numbers")

    def fit(self, objective, train):
        return Wide(self.factor, train.y.mean())

    def restore(self, state):
        return Wide(self.factor, state["mean"]) if state["factor"] == self.factor else None
'''

SOLVER = '''
import torch

from mlefw.baseline.base import Solution, Solver
from mlefw.head.gaussian import GaussianHead


class Pseudoinverse(Solver):
    """Least squares by the pseudoinverse."""

    def supports(self, problem):
        head = problem.head
        return type(head) is GaussianHead and head.shared_dim == 1 and problem.prior.flat and bool(problem.num_active)

    def solve(self, problem):
        design, rows, head = problem.design(problem.rows), problem.rows, problem.head
        raw = (rows.y - rows.offset - head.center[0]) / head.gain[0]
        beta = torch.linalg.pinv(design) @ raw
        theta = problem.with_scale(beta, float((raw - design @ beta).square().mean().sqrt()))
        value, gradient = problem.slope(theta)
        residual = float(gradient.abs().max())
        return Solution(problem, theta, value, residual, "pseudoinverse", 1, is_global=True, exists=True)
'''

CALIBRATION = '''
from typing import ClassVar

import torch
from torch.distributions import Normal

from mlefw.calibrate.base import Calibration, scalar
from mlefw.head.gaussian import Gaussian


class Shift(Calibration):
    """Adds to every mean what the predictions are off on average."""

    takes: ClassVar = "numbers: head=gaussian"

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", scalar(0.0))

    def fits(self, distribution):
        return isinstance(distribution, Normal)

    def fit(self, distribution, y, weight):
        self.shift.fill_(float((weight * (y - distribution.mean)).sum() / weight.sum()))

    def forward(self, distribution):
        return Gaussian(distribution.loc + self.shift, distribution.scale, validate_args=False)
'''

SOURCE = '''
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlefw.data.base import Source
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class Lines(Source):
    """A JSON document a row, whose numbers are divided by a unit."""

    path: str | None = None
    unit: float = 1.0

    @classmethod
    def reads(cls, path):
        return path.endswith(".jsonl")

    def read(self):
        rows = [json.loads(line) for line in Path(self.path).read_text(encoding="utf-8").splitlines()]
        columns = {name: np.array([row[name] for row in rows], dtype=float) / self.unit for name in rows[0]}
        return Table(columns, self.path, first_row=1)
'''


@pytest.fixture
def folder(tmp_path: Path, table: Callable[..., Path]) -> Callable[[str, str, str], tuple[str, ...]]:
    """Writes a plugin and its YAML beside a table, and says how it is admitted."""
    table("gaussian", 200)

    def write(group: str, code: str, yaml: str) -> tuple[str, ...]:
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(f"# mine\n{yaml}", encoding="utf-8")
        return ("--config-dir", "conf", "--plugin", "mine")

    return write


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


def test_an_uncertainty(mlefw: Run, tmp_path: Path, folder) -> None:
    admit = folder("uncertainty", UNCERTAINTY, "_target_: mine.Inflate\nfactor: 2.0\n")
    succeeded(mlefw("train", *QUICK, "uncertainty=own", "run_dir=r", *admit))
    summary = summary_of(tmp_path / "r")
    assert summary["inflate"]["factor"] == 2.0
    assert summary["inflate"]["test"]["nll_nats"] != pytest.approx(summary["metrics"]["test"]["nll_nats"])
    # What the checkpoint keeps is used without being asked for, and shown beside the model as fitted.
    evaluated = mlefw("evaluate", "run=r", "output=e.json", *admit)
    succeeded(evaluated)
    content = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert content["uncertainty"] == "inflate"
    assert content["inflate"]["nll_nats"] == pytest.approx(summary["inflate"]["test"]["nll_nats"], rel=1e-6)
    assert "inflate" in evaluated.stdout
    for name, more in (
        ("plain", ()),
        ("wide", ("uncertainty=own",)),
        ("wider", ("uncertainty=own", "uncertainty.factor=3")),
    ):
        succeeded(mlefw("predict", "run=r", "data.path=d.csv", f"output={name}.parquet", *more, *admit))
    sd = {
        name: parquet.read_table(tmp_path / f"{name}.parquet")["sd"].to_numpy() for name in ("plain", "wide", "wider")
    }
    np.testing.assert_allclose(sd["wide"] / sd["plain"], 2, rtol=1e-6)
    np.testing.assert_allclose(sd["wider"] / sd["plain"], 3, rtol=1e-6)


def test_an_exact_solver(mlefw: Run, tmp_path: Path, folder) -> None:
    admit = folder("baseline", SOLVER, "defaults:\n  - linear\nsolvers:\n  - _target_: mine.Pseudoinverse\n")
    succeeded(mlefw("baseline", *QUICK[:4], "baseline=own", "run_dir=b", *admit))
    succeeded(mlefw("baseline", *QUICK[:4], "run_dir=known"))
    found, known = (json.loads((tmp_path / name / "baseline.json").read_text("utf-8")) for name in ("b", "known"))
    assert (found["solver"], known["solver"]) == ("pseudoinverse", "least squares")
    assert found["nll_nats"] == pytest.approx(known["nll_nats"], rel=1e-12)
    refused = mlefw("baseline", *QUICK[:4], "baseline._target_=mine.Pseudoinverse", "run_dir=c", *admit)
    assert refused.returncode == 2


def test_a_recalibration(mlefw: Run, tmp_path: Path, folder) -> None:
    admit = folder("calibrate", CALIBRATION, "_target_: mine.Shift\n")
    succeeded(mlefw("train", *QUICK, "calibrate=own", "run_dir=r", *admit))
    summary = summary_of(tmp_path / "r")
    assert summary["calibration"]["parameters"]["shift"] != 0
    succeeded(mlefw("evaluate", "run=r", "split=validation", "output=e.json", *admit))
    content = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    after = summary["calibration"]["after"]["validation"]["nll_nats"]
    assert content["metrics"]["nll_nats"] == pytest.approx(after, rel=1e-9)
    succeeded(mlefw("predict", "run=r", "data.path=d.csv", "output=p.csv", *admit))


def test_a_source_at_prediction_and_evaluation(mlefw: Run, tmp_path: Path, folder) -> None:
    admit = folder("data", SOURCE, "_target_: mine.Lines\npath: null\nunit: 1.0\n")
    rows = csv.read_csv(tmp_path / "d.csv").to_pylist()
    lines = "".join(json.dumps({name: 4 * value for name, value in row.items()}) + "\n" for row in rows)
    (tmp_path / "d.jsonl").write_text(lines, encoding="utf-8")
    settings = ("data=own", "data.path=d.jsonl", "data.unit=4", "data.target=y", *QUICK[3:], "model=linear")
    succeeded(mlefw("train", *settings, "run_dir=r", *admit))
    # The unit is that of the training; a CSV is read as one, and has no unit.
    for file in ("d.jsonl", "d.csv"):
        for command, output in (("predict", "p.csv"), ("evaluate", "e.json")):
            done = mlefw(command, "run=r", f"data.path={file}", f"output={file}.{output}", *admit)
            succeeded(done)
    one, other = (csv.read_csv(tmp_path / f"{file}.p.csv")["mean"].to_numpy() for file in ("d.jsonl", "d.csv"))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    figures = [json.loads((tmp_path / f"{file}.e.json").read_text("utf-8"))["metrics"] for file in ("d.jsonl", "d.csv")]
    assert figures[0]["nll_nats"] == pytest.approx(figures[1]["nll_nats"], rel=1e-9)


def test_a_metric_of_torchmetrics(mlefw: Run, tmp_path: Path, table) -> None:
    weight = np.arange(200) % 3 + 1
    table("gaussian", 200, w=weight)
    more = ("data.weight=w", "metric.mse._target_=torchmetrics.MeanSquaredError")
    more += ("metric.rank._target_=torchmetrics.SpearmanCorrCoef",)
    succeeded(mlefw("train", *QUICK, *more, "run_dir=r"))
    metrics = summary_of(tmp_path / "r")["metrics"]["test"]
    assert metrics["mse"] == pytest.approx(metrics["rmse"] ** 2, rel=1e-9)
    succeeded(mlefw("evaluate", "run=r", "output=e.json"))
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    assert found["mse"] == pytest.approx(metrics["mse"], rel=1e-6)
    succeeded(mlefw("evaluate", "run=r", "data.path=d.csv", "output=all.json"))
    succeeded(mlefw("predict", "run=r", "data.path=d.csv", "output=p.csv"))
    mean = csv.read_csv(tmp_path / "p.csv")["mean"].to_numpy()
    y = csv.read_csv(tmp_path / "d.csv")["y"].to_numpy()
    oracle = torchmetrics.functional.spearman_corrcoef(
        *(from_numpy(np.repeat(column, weight).copy()) for column in (mean, y))
    )
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["metrics"]
    assert found["rank"] == pytest.approx(float(oracle), rel=1e-6)
    assert "mse" in (tmp_path / "r" / "summary.json").read_text(encoding="utf-8")


def test_metrics_of_torchmetrics_that_do_not_fit(mlefw: Run, tmp_path: Path, table) -> None:
    table("gaussian", 200, w=np.full(200, 0.5))
    half = mlefw("train", *QUICK, "data.weight=w", "metric.mse._target_=torchmetrics.MeanSquaredError", "run_dir=a")
    assert half.returncode == 2
    assert "metric.mse: MeanSquaredError of torchmetrics takes no row weights" in half.stderr
    classes = mlefw("train", *QUICK, "metric.acc._target_=torchmetrics.classification.BinaryAccuracy", "run_dir=b")
    assert classes.returncode == 2
    assert (
        "metric.acc: BinaryAccuracy of torchmetrics is for classes, and the head predicts a Gaussian" in classes.stderr
    )
    network = mlefw("train", *QUICK, "metric.bert._target_=torchmetrics.text.BERTScore", "run_dir=c")
    assert network.returncode == 2
    assert "metric.bert" in network.stderr
    assert not any((tmp_path / name).exists() for name in "abc")
