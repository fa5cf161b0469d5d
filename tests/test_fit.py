"""Training from Python: the same run as from the command line, on rows in memory."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.fit import fit
from mlefw.trained import load

pytestmark = pytest.mark.filterwarnings("default")  # as outside the test runner: Lightning has some of its own

FEW = ("trainer.max_epochs=3", "model.hidden=[4]", "logger=none", "report=false", "plots=false")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def frame(num_rows: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(3)
    x = random.normal(size=(num_rows, 2)).round(6)
    columns = {"age (y)": x[:, 0], "dose": x[:, 1], "kind": random.choice(["a", "b"], num_rows)}
    return pd.DataFrame({**columns, "w": random.integers(1, 4, num_rows), "y": random.poisson(np.exp(0.4 * x[:, 0]))})


def told(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        return run(list(arguments))


def test_a_frame_trains_to_the_numbers_of_its_file() -> None:
    rows = frame()
    rows.to_csv("d.csv", index=False)
    given = ("head=poisson", "data.weight=w", *FEW)
    assert told("train", "data=csv", "data.path=d.csv", "data.target=y", "run_dir=file", *given) == 0
    in_memory = fit(rows, "y", *given, run_dir="memory")
    assert in_memory.summary["metrics"] == load("file").summary["metrics"]
    pd.testing.assert_frame_equal(in_memory.predict(rows), load("file").predict(rows), rtol=0, atol=0)
    assert fit(pa.Table.from_pandas(rows), "y", *given).summary["metrics"] == in_memory.summary["metrics"]
    # The file predicts and scores with the run, which has no rows of its own on disk.
    assert told("predict", "run=memory", "data.path=d.csv") == 0
    assert told("evaluate", "run=memory", "data.path=d.csv") == 0


def test_a_matrix_and_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 2))
    y = x @ [1.0, -1.0] + random.normal(size=90)
    settings = (
        "model=linear",
        "uncertainty=laplace",
        "trainer.max_epochs=3",
        "logger=none",
        "report=false",
        "plots=false",
    )
    model = fit(x[:70], y[:70], *settings, validation=(x[70:80], y[70:80]), test=(x[80:], y[80:]), run_dir="r")
    assert (model.features, model.target) == (["x0", "x1"], "y")
    assert model.summary["num_rows"] == {"train": 70, "validation": 10, "test": 10}
    wide = model.predict(x, uncertainty="laplace")["sd"]
    assert (wide > model.predict(x)["sd"]).all()
    assert told("evaluate", "run=r") == 2
    assert "came from Python" in capsys.readouterr().err
    held_out = model.evaluate(x[80:], y[80:])
    assert held_out["nll_nats"] == pytest.approx(model.summary["metrics"]["test"]["nll_nats"], rel=1e-12)
    columns = {"x1": x[80:, 1], "x0": x[80:, 0]}
    assert model.evaluate(columns, pd.Series(y[80:])) == model.evaluate({**columns, "y": y[80:]}) == held_out
    with pytest.raises(UsageError, match=r"the target has shape \(3,\)"):
        model.evaluate(x[80:], y[:3])
    with pytest.raises(UsageError, match="the target is called 'y', and so is a column"):
        model.evaluate({**columns, "y": y[80:]}, y[80:])
    named = fit({"a": x[:, 0], "b": x[:, 1]}, pd.Series(y, name="z"), *settings[:1], *settings[2:])
    assert (named.features, named.target) == (["a", "b"], "z")


def test_an_interrupted_run_goes_on() -> None:
    rows = frame()
    given = (*FEW, "head=poisson", "early_stopping.patience=null")
    whole = fit(rows, "y", *given, "trainer.max_epochs=5", run_dir="whole")
    fit(rows, "y", *given, run_dir="part")
    part = fit(rows, "y", "trainer.max_epochs=5", resume="part")
    assert part.summary["num_epochs"] == 5
    assert part.summary["metrics"] == whole.summary["metrics"]
    with pytest.raises(UsageError, match=r"the train rows .* are not those of the run"):
        fit(rows[::-1], "y", "trainer.max_epochs=6", resume="part")


@pytest.mark.parametrize(
    ("data", "target", "settings", "message"),
    [
        (frame(), "z", (), "lacks these columns\n  'z'"),
        (frame(), "y", ("head=poison",), "Did you mean 'poisson'"),
        (frame(), "y", ("data.target=w",), "as an argument of fit"),
        (frame().assign(dose=np.inf), "y", (), "the frame: column 'dose' holds an infinite value"),
        (frame().assign(day=pd.Timestamp("2020-01-01")), "y", (), "the frame: column 'day' holds timestamp"),
        (np.zeros((4, 2)), np.zeros(3), (), r"the target has shape \(3,\)"),
        (np.zeros(4), np.zeros(4), (), r"the matrix has shape \(4,\)"),
        (frame(), pd.Series(np.zeros(80), name="w"), (), "the target is called 'w'"),
        (7, "y", (), "the frame cannot be read"),
        ({"a": [1, 2], "y": [1]}, "y", (), "the frame cannot be read"),
    ],
)
def test_mistakes_write_nothing(data: Any, target: Any, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(data, target, *settings)
    assert not list(Path().iterdir())


ORDERS = {
    "the package alone": "import mlefw; fit = mlefw.fit",
    "the module": "import mlefw.fit; fit = mlefw.fit",
    "the function": "from mlefw.fit import fit",
    "the function, then the package": "from mlefw.fit import fit as first; import mlefw; fit = mlefw.fit",
    "the package, then the function": "import mlefw; mlefw.fit; from mlefw.fit import fit",
    "from the package": "from mlefw import fit",
    "opening a run first": "from mlefw import load; import mlefw; assert mlefw.load is load; fit = mlefw.fit",
}


@pytest.mark.parametrize("order", ORDERS)
def test_fit_can_be_called_however_it_was_imported(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a process that has imported nothing of it yet.
    for name in ("mlefw", "mlefw.fit", "mlefw.trained"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    names: dict[str, Any] = {}
    exec(ORDERS[order], names)
    with pytest.raises(Exception, match="unknown setting nothing"):
        names["fit"]({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}, "y", "nothing=1")
