"""The theorem of the whole: training the linear model with the whole of the rows reaches the exact estimate.

The estimate to reach comes from statsmodels, scikit-learn, HiGHS or scipy, on data sets that these bring along.
"""

import csv
from pathlib import Path
from typing import Any

import pytest
from baseline.exact_oracles import Sample, data, estimate, varied

from mlefw.command import train
from mlefw.configuration.read import read_settings, settings_of

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

SCALE = 7.5
SETTINGS = [
    "model=linear",
    "batch=full",
    "optimizer=lbfgs",
    "logger=none",
    "report=false",
    "plots=false",
    "data=csv",
    "data.target=the_target",
    "data.test_fraction=0",
    "data.validation_fraction=0",
]


def write(file: Path, of: Sample, labels: bool) -> list[str]:
    """The sample as a CSV file, and the settings that read it."""
    roles = {name: column for name, column in (("weight", of.weight), ("offset", of.offset)) if len(set(column)) > 1}
    with file.open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow([*of.names, *roles, "the_target"])
        for i, (row, y) in enumerate(zip(of.x.tolist(), of.y.tolist(), strict=True)):
            out.writerow([*row, *(column[i].item() for column in roles.values()), f"class {y:.0f}" if labels else y])
    return [f"data.path={file}", *(f"data.{name}={name}" for name in roles)]


def trained(head: str, of: Sample, tau: float | None, folder: Path) -> dict[str, Any]:
    """The summary of a run."""
    settings = [*SETTINGS, *write(folder / "data.csv", of, head == "categorical"), f"head={head}"]
    settings += ["prior=none"] if tau is None else ["prior=l2", f"prior.scale={tau}"]
    settings += [f"head.scale={SCALE}"] if head == "gaussian_fixed" else []
    config = read_settings("train", settings, [], [])
    run_dir = folder / "run"
    return train.run(settings_of({**config, "run_dir": str(run_dir)}), run_dir)


CASES = [
    *(("gaussian", name, None) for name in ("stackloss", "scotland", "engel", "diabetes", "longley")),
    *(("gaussian", name, tau) for name in ("stackloss", "diabetes") for tau in (0.1, 1.0)),
    *(("gaussian_fixed", name, tau) for name in ("stackloss", "diabetes") for tau in (None, 0.1, 1.0)),
    *(("heteroscedastic", name, tau) for name in ("engel", "diabetes") for tau in (None, 0.1, 1.0)),
    *(("laplace", name, None) for name in ("stackloss", "engel", "scotland", "diabetes")),
    *(("laplace", "stackloss", tau) for tau in (0.1, 1.0)),
    *(("bernoulli", name, None) for name in ("spector", "fair", "iris_12", "star98")),
    *(("bernoulli", name, tau) for name in ("spector", "breast_cancer") for tau in (0.1, 1.0)),
    *(("categorical", name, None) for name in ("anes96", "wine_2")),
    *(("categorical", name, tau) for name in ("anes96", "iris", "wine") for tau in (0.1, 1.0)),
    *(("poisson", name, None) for name in ("cpunish", "randhie")),
    *(("poisson", name, tau) for name in ("cpunish", "randhie") for tau in (0.1, 1.0)),
]
VARIED = [
    *((head, "stackloss") for head in ("gaussian", "gaussian_fixed", "laplace")),
    ("heteroscedastic", "engel"),
    ("bernoulli", "spector"),
    ("poisson", "cpunish"),
]


def check(head: str, name: str, of: Sample, tau: float | None, folder: Path) -> None:
    expected = estimate(head, of, tau, SCALE)
    summary = trained(head, of, tau, folder)
    size = max(1.0, abs(expected.nll))
    tolerance = (1e-4 if head == "laplace" else 1e-6) * size
    reached = summary["metrics"]["train"]["objective"]
    # Nothing is better than the optimum: what is left is the rounding of the oracle.
    assert -1e-8 * size < reached - expected.objective < tolerance
    assert -1e-8 * size < summary["distance"]["excess_objective"] < tolerance
    if tau is None:
        assert summary["null"]["train"]["nll_nats"] > expected.nll + 1e-2, "training had nothing to do"
        assert summary["metrics"]["train"]["nll_nats"] == pytest.approx(expected.nll, rel=tolerance, abs=tolerance)
        assert summary["distance"]["reference"] == "mle"
        assert -1e-8 * size < summary["distance"]["gap_nats"]["train"] < tolerance


@pytest.mark.parametrize(("head", "name", "tau"), CASES)
def test_training_reaches_the_exact_estimate(head: str, name: str, tau: float | None, tmp_path: Path) -> None:
    check(head, name, data(name), tau, tmp_path)


@pytest.mark.parametrize(("head", "name"), VARIED)
def test_with_row_weights_and_an_offset(head: str, name: str, tmp_path: Path) -> None:
    check(head, name, varied(data(name), "weight and offset"), None, tmp_path)
