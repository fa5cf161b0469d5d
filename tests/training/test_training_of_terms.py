"""Training with formulas: the exact optimum of linear terms, a network beside them, and the model of a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlefw.errors import UsageError
from mlefw.fit import fit
from mlefw.trained import Model, load

# Lightning calls a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

RANDOM = np.random.default_rng(6)
N = 120
X, Z = RANDOM.normal(size=(2, N))
G = np.array(["a", "b", "c"])[np.arange(N) % 3]
ETA = np.sin(X) + 0.4 * (G == "b")
FRAME = pd.DataFrame(
    {
        **{"x": X, "z": Z, "g": G, "site": [f"s{k}" for k in np.arange(N) % 8], "o": 0.3 * Z},
        "y": ETA + np.exp(0.4 * Z - 0.5) * RANDOM.normal(size=N),
        "count": RANDOM.poisson(np.exp(ETA)),
    }
)
WHOLE = ("data.test_fraction=0", "data.validation_fraction=0")
EXACTLY = ("model=linear", "batch=full", "optimizer=lbfgs", "logger=none", "report=false", "plots=false", *WHOLE)

FORMULAS = {
    "y ~ bs(x, df=4) + g | x:g + offset(o)": (),
    "count ~ 0 + poly(x, 2) + C(g, contr.sum) + offset(log(x**2 + 1))": ("head=poisson",),
    "y ~ s(x, k=6) + (1 + z | site)": (),
}


def agrees(model: Model, folder: Path) -> None:
    """The checkpoint gives the predictions and the NLL of the run."""
    known: Any = model.predict(FRAME)
    again = load(folder)
    pd.testing.assert_frame_equal(again.predict(FRAME), known)
    nll = model.summary["metrics"]["train"]["nll_nats"]
    assert again.evaluate(FRAME)["nll_nats"] == pytest.approx(nll, rel=1e-6)
    assert known["nll_nats"].mean() == pytest.approx(nll, rel=1e-6)


@pytest.mark.parametrize("formula", FORMULAS)
def test_training_of_terms_reaches_the_exact_estimate(formula: str, tmp_path: Path) -> None:
    model = fit(FRAME, None, f"formula={formula}", *FORMULAS[formula], *EXACTLY, run_dir=tmp_path / "run")
    summary = model.summary
    assert summary["null"]["train"]["nll_nats"] > summary["baseline"]["train"]["nll_nats"] + 0.05
    # With a correlation of effects at 1 their precision is 5e8, in which 1e-17 of an effect is some 1e-9 nats.
    assert -2e-8 < summary["distance"]["excess_objective"] < 1e-6
    agrees(model, tmp_path / "run")


def test_a_network_beside_a_formula_for_the_scale(tmp_path: Path) -> None:
    settings = ("head.terms.scale=1 + z + g:z", "data.features=[x,g]", "model.hidden=[5]", "trainer.max_epochs=15")
    model = fit(FRAME, "y", *settings, *WHOLE, run_dir=tmp_path / "run")
    # Three features and a bias into five units, these and a bias into one, and four coefficients of the scale.
    assert model.summary["num_parameters"] == 4 * 5 + 6 + 4
    assert model.summary["metrics"]["train"]["nll_nats"] < model.summary["null"]["train"]["nll_nats"]
    agrees(model, tmp_path / "run")
    rows = pd.DataFrame({"x": 0.3, "g": "c", "z": np.linspace(-1, 1, 5)})
    found = model.predict(rows)
    assert np.ptp(found["mean"]) < 1e-12
    steps = np.diff(np.log(found["sd"]))
    assert steps == pytest.approx(np.full(4, steps[0]), rel=1e-6)
    assert abs(steps[0]) > 1e-3
    other = model.predict(rows.assign(x=np.linspace(-2, 2, 5), z=0.0))
    assert np.ptp(other["sd"]) < 1e-12 < np.ptp(other["mean"])
    # The report and TensorBoard show the terms of the scale; the location is the network's.
    assert [file.stem for file in sorted((tmp_path / "run" / "plots").glob("terms_*"))] == ["terms_scale"]
    assert "Dashed lines and crosses: the trained model." in (tmp_path / "run" / "report.html").read_text("utf-8")
    events = b"".join(file.read_bytes() for file in (tmp_path / "run" / "tensorboard").rglob("events*"))
    assert b"terms_scale" in events


def test_a_formula_and_another_target_are_refused() -> None:
    with pytest.raises(UsageError, match="is of the target 'y', and fit of 'count'"):
        fit(FRAME, "count", "formula=y ~ x")
