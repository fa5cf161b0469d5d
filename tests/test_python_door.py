"""The Python door: rows of every kind, what a model shows of itself, and the state of the process around it."""

import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from statsmodels import api as sm

import mlefw
from mlefw.errors import UsageError
from mlefw.plot.style import png
from mlefw.trained import Model, load

pytestmark = pytest.mark.filterwarnings("default")  # as outside the test runner: Lightning has some of its own

FEW = ("trainer.max_epochs=3", "logger=none")
PLAIN = (*FEW, "report=false", "plots=false", "model=linear")
RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(160, 2)).round(6)
Y = RANDOM.poisson(np.exp(0.4 * X[:, 0]))
NAMES = ["x0", "x1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small network on counts, with everything that a run leaves."""
    folder = tmp_path_factory.mktemp("door") / "run"
    return mlefw.fit((X, Y), None, "head=poisson", "model.hidden=[4]", "calibrate=none", *FEW, run_dir=folder)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


KINDS: dict[str, tuple[Any, Any]] = {
    "arrays": (X, Y),
    "tensors": (torch.from_numpy(X), torch.from_numpy(Y)),
    "tensors with gradients": (torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y).double().requires_grad_()),
    "lists": (X.tolist(), Y.tolist()),
    "a column of targets": (X, Y[:, None]),
    "pandas": (pd.DataFrame(X, columns=NAMES), pd.Series(Y)),
    "pandas, shuffled columns, a frame of targets": (
        pd.DataFrame(X, columns=NAMES)[["x1", "x0"]],
        pd.DataFrame({"y": Y}),
    ),
    "pandas, nullable": (pd.DataFrame(X, columns=NAMES).convert_dtypes(), pd.Series(Y, dtype="Int64")),
    "arrow": (pa.table(dict(zip(NAMES, X.T, strict=True))), pa.array(Y)),
    "columns": (dict(zip(NAMES, X.T, strict=True)), pa.chunked_array([Y[:50], Y[50:]])),
    "columns of tensors": (dict(zip(NAMES, torch.from_numpy(X).T, strict=True)), Y),
    "masked, nothing hidden": (np.ma.masked_invalid(X), np.ma.masked_invalid(Y)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_are_the_same_rows(model: Model, kind: str) -> None:
    x, y = KINDS[kind]
    figures = model.evaluate(X, Y)
    assert model.evaluate(x, y) == model.evaluate((x, y)) == figures
    predicted = model.predict((x, y))
    column = predicted.column("nll_nats") if isinstance(predicted, pa.Table) else predicted["nll_nats"]
    assert np.mean(np.asarray(column)) == pytest.approx(figures["nll_nats"], rel=1e-12)
    assert isinstance(predicted, type(x) if kind in ("pandas", "pandas, nullable", "arrow") else (dict, type(x)))
    rate: Any = model.distribution((x, y))
    assert torch.equal(rate.mean, model.distribution(x).mean) and rate.batch_shape == (160,)
    assert torch.equal(model.rows((x, y)).y, torch.from_numpy(Y).double())
    with pytest.raises(UsageError, match="a target beside it"):
        model.evaluate((x, y), y)


def test_network_and_head_make_the_distribution(model: Model) -> None:
    rows, head = model.rows(X), model.head
    with torch.no_grad():
        mean = head(head.center + head.gain * model.network(rows.x)).mean
    assert np.allclose(mean, model.predict(X)["mean"], rtol=1e-6)
    assert not model.network.training
    assert repr(model).startswith("Model(head=poisson, model=mlp, target=y, path=")


MISSING: dict[str, Any] = {
    "nan": np.where(np.arange(160) == 7, np.nan, X[:, 0]),
    "masked": np.ma.MaskedArray(X[:, 0], np.arange(160) == 7),
    "masked, nan behind it": np.ma.MaskedArray(np.where(np.arange(160) == 7, np.nan, X[:, 0]), np.arange(160) == 7),
    "None": [None if row == 7 else value for row, value in enumerate(X[:, 0].tolist())],
    "pandas NA": pd.Series(X[:, 0], dtype="Float64").mask(np.arange(160) == 7),
    "arrow null": pa.array(X[:, 0], mask=np.arange(160) == 7),
    "tensor": torch.from_numpy(np.where(np.arange(160) == 7, np.nan, X[:, 0])),
}


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_is_never_taken_for_a_value(model: Model, kind: str) -> None:
    columns = {"x0": MISSING[kind], "x1": X[:, 1], "y": Y}
    with pytest.raises(UsageError, match=r"missing values\n  column 'x0': 1, row 7"):
        model.evaluate(columns)
    seen = np.arange(160) != 7
    with pytest.warns(UserWarning, match="1 rows with missing values are dropped"):
        dropped = load(model.path, missing="drop").evaluate(columns)
    assert dropped == model.evaluate(X[seen], Y[seen])
    hidden = {**columns, "x0": X[:, 0], "y": MISSING[kind]}
    with pytest.raises(UsageError, match=r"'y'.*\n?.*row 7"):
        model.evaluate(hidden)


def test_masks_that_cannot_be_missing_values_are_refused(model: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its masked tensors a prototype
        masked = torch.masked.masked_tensor(torch.from_numpy(X), torch.from_numpy(X) > 0)
        with pytest.raises(UsageError, match="a masked tensor"):
            model.predict(masked)
    with pytest.raises(UsageError, match="a sparse tensor"):
        model.predict(torch.from_numpy(X).to_sparse())


def test_ordered_categories_keep_their_order() -> None:
    levels = ["low", "mid", "high"]
    code = np.clip(np.round(X[:, 0] + RANDOM.normal(size=160)) + 1, 0, 2).astype(int)
    y = pd.Series(pd.Categorical.from_codes(code, levels, ordered=True), name="risk")
    model = mlefw.fit(pd.DataFrame(X, columns=NAMES), y, "head=ordinal", *PLAIN, run_dir="a")
    predicted = model.predict((X, y))
    assert list(predicted)[:4] == ["row", "class", "prob_low", "prob_mid"] and model.target == "risk"
    chosen = np.stack([predicted[f"prob_{level}"] for level in levels])[code, np.arange(160)]
    assert np.allclose(predicted["nll_nats"], -np.log(chosen), rtol=1e-9)
    table = model.coefficients()
    assert table["term"].tolist() == ["(intercept)", "x0", "x1", "low | mid", "mid | high"]
    whole = pd.DataFrame(X, columns=NAMES).assign(risk=y)
    assert mlefw.fit(whole, "risk", "head=ordinal", *PLAIN).evaluate(whole) == model.evaluate((X, y))
    with pytest.raises(UsageError, match="labels of no known order"):
        mlefw.fit(X, [levels[k] for k in code], "head=ordinal", *PLAIN)


def test_several_targets_are_the_columns_of_a_matrix_or_a_frame() -> None:
    trials = np.full(160, 5)
    hits = RANDOM.binomial(5, 1 / (1 + np.exp(-X[:, 0])))
    both = np.column_stack([hits, trials])
    one = mlefw.fit(X, both, "head=binomial", *PLAIN)
    frame = pd.DataFrame(both, columns=["hits", "of"])
    two = mlefw.fit((X, frame), None, "head=binomial", *PLAIN, test=(X[:9], frame[:9]))
    assert one.evaluate((X, both))["nll_nats"] == pytest.approx(one.evaluate(X, torch.from_numpy(both))["nll_nats"])
    assert two.summary["num_rows"]["test"] == 9 and "hits" in two.target
    with pytest.raises(UsageError, match="the target lacks 'of'"):
        two.evaluate(X, frame[["hits"]])
    with pytest.raises(UsageError, match="the target has 3 rows"):
        two.evaluate(X, frame[:3])
    with pytest.raises(UsageError, match="the target is missing"):
        mlefw.fit(X)


@pytest.mark.slow
def test_arrays_of_any_shape_in_pairs() -> None:
    digits = load_digits()
    x, y = digits.images[:120, None].astype(np.float32), digits.target[:120]
    settings = ("model=cnn", "model.channels=[4]", "head=categorical", "trainer.max_epochs=1", "logger=none")
    model = mlefw.fit((x, y), None, *settings, validation=(x[:20], y[:20]), run_dir="run")
    assert model.evaluate((x, y)) == model.evaluate(x, y) == model.evaluate((torch.from_numpy(x), torch.from_numpy(y)))
    assert model.predict((x, y))["nll_nats"].mean() == pytest.approx(model.evaluate(x, y)["nll_nats"])
    for name in ("confusion", "hardest", "calibration"):
        stored = Path(f"run/plots/{'reliability' if name == 'calibration' else name}.png").read_bytes()
        assert png(model.plot(name)) == stored, name
    assert isinstance(model.plot("confusion", x, y), Figure)
    with pytest.raises(UsageError, match="masked array"):
        model.evaluate(np.ma.masked_less(x, 0), y)


def test_every_picture_of_a_run_is_a_figure(model: Model) -> None:
    """Drawn anew it is the picture that the run has drawn, to the last pixel."""
    folder = model.path.parent.parent
    names = [file.stem for file in (folder / "plots").iterdir()]
    assert {"learning_curves", "gap", "pit", "coverage", "predictions", "residuals"} <= set(names)
    for name in names:
        figure = model.plot(name)
        assert isinstance(figure, Figure) and figure.axes
        assert png(figure) == (folder / "plots" / f"{name}.png").read_bytes(), name
    assert png(model.plot("calibration")) == png(model.plot("pit")) == model.plot("pit")._repr_png_()
    # In another process the rows are not there: the picture that the run has stored.
    kept = load(folder).plot("pit")
    assert kept.get_size_inches().tolist() == model.plot("pit").get_size_inches().tolist()
    assert png(load(folder).plot("gap")) == (folder / "plots" / "gap.png").read_bytes()
    other = load(folder).plot("calibration", X[:60], Y[:60])
    assert any("rows (n = 60)" in text.get_text() and "test" not in text.get_text() for text in other.texts)
    with pytest.raises(
        UsageError, match=r"no picture 'pix' of this run\n  expected one of: calibration, coverage, gap"
    ):
        model.plot("pix")
    with pytest.raises(UsageError, match=r"no picture 'gap' of such rows\n  expected one of: calibration, reliability"):
        model.plot("gap", (X, Y))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_picture_of_a_file_is_of_the_rows_of_the_run() -> None:
    frame = pd.DataFrame(X, columns=NAMES).assign(y=X @ [1.0, 2.0] + RANDOM.normal(size=160))
    frame.to_csv("d.csv", index=False)
    from mlefw.cli import run

    with warnings.catch_warnings():
        warnings.resetwarnings()
        given = ("data=csv", "data.path=d.csv", "data.target=y", "run_dir=r", "model=linear", "calibrate=scale")
        assert run(["train", *given, *FEW]) == 0
    model = load("r")
    for file in Path("r/plots").iterdir():
        same = png(model.plot(file.stem)) == file.read_bytes()
        # The path of coefficients is known to the training alone, and its picture is shown at its size.
        assert same or file.stem == "coefficient_path", file.stem
    path = model.plot("coefficient_path")
    stored = matplotlib.image.imread("r/plots/coefficient_path.png")
    assert (path.get_size_inches() * path.dpi).round().astype(int).tolist() == [*stored.shape[1::-1]]
    frame[::-1].to_csv("d.csv", index=False)
    with pytest.raises(UsageError, match="rows have changed since the run"):
        model.plot("pit")


def test_coefficients_of_the_model_beside_the_exact_ones(model: Model) -> None:
    frame = pd.DataFrame(X, columns=NAMES).assign(kind=RANDOM.choice(["a", "b"], 160), y=Y)
    share = ("data.test_fraction=0", "data.validation_fraction=0")
    linear = mlefw.fit(frame, "y", "head=negative_binomial", *PLAIN, *share)
    table = linear.coefficients()
    assert list(table) == ["parameter", "term", "trained", "exact", "std_error", "z", "p_value", "ci_low", "ci_high"]
    rows = linear.rows(frame)
    eta = linear.head.center[0] + linear.head.gain[0] * linear.network(rows.x)[:, 0]
    design = np.column_stack([np.ones(160), X, frame["kind"] == "b"]).astype(float)
    slopes = np.linalg.lstsq(design, eta.detach().numpy(), rcond=None)[0]
    mean = table[table["parameter"] == table["parameter"][0]]
    assert mean["term"].tolist() == ["(intercept)", "x0", "x1", "kind=b"]
    assert np.allclose(mean["trained"], slopes, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = sm.NegativeBinomial(Y, design).fit(disp=False, maxiter=200, method="bfgs")
    assert np.allclose(mean["exact"], fitted.params[:4], atol=2e-3)
    whole = table.iloc[-1]
    assert whole["term"] == "(shared)" and whole["trained"] > 0
    network = model.coefficients()
    assert "trained" not in network and network["term"].tolist() == ["(intercept)", "x0", "x1"]
    alone = mlefw.fit(frame, "y", "head=poisson", "baseline=none", *PLAIN).coefficients()
    assert list(alone) == ["parameter", "term", "trained"]
    none = mlefw.fit(X, Y, "baseline=none", *PLAIN[:-1], "model.hidden=[2]", run_dir="none")
    with pytest.raises(UsageError, match=r"whose rows came from Python\n  expected the rows: plot"):
        load("none").plot("pit")
    with pytest.raises(UsageError, match="its model is not linear"):
        none.coefficients()


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not open, and keeps the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags = list[str](), set[str]()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_notebook_shows_the_verdict_and_the_table(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    text = model._repr_html_()
    page = Balanced(text)
    assert {"table", "p"} <= page.tags and not page.tags & {"script", "link", "img"} and "http" not in text
    assert f"{model.summary['metrics']['test']['nll_nats']:.4f}" in text and "linear MLE" in text
    several = load([model.path, model.path])._repr_html_()
    assert "A trained model" in several and "table" not in Balanced(several).tags
    hostile = "<img src=x onerror=alert(1)>"
    summary = {**model.summary, "model": hostile, "warnings": [hostile]}
    monkeypatch.setattr(Model, "summary", summary)
    assert "img" not in Balanced(model._repr_html_()).tags and "&lt;img" in model._repr_html_()
    monkeypatch.setattr(Model, "summary", {"status": "failed", "reason": hostile})
    assert "The run failed: &lt;img" in model._repr_html_()


def state() -> dict[str, Any]:
    """What belongs to the caller's process, and not to a library."""
    loggers = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    return {
        "python random": random.getstate(),
        "numpy random": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch random": torch.get_rng_state().tolist(),
        "seed": torch.initial_seed(),
        "torch": (
            *(torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads()),
            *(torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_device()),
            *(torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.is_inference_mode_enabled()),
        ),
        "numpy": (np.geterr(), np.get_printoptions()["precision"]),
        "rcParams": {key: str(value) for key, value in matplotlib.rcParams.items() if key != "backend"},
        # `get_backend` would choose one.
        "backend": dict.__getitem__(matplotlib.rcParams, "backend"),
        "logging": [(one.name, one.level, list(one.handlers), one.propagate, one.disabled) for one in loggers],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "environment": dict(os.environ),
        "directory": Path.cwd(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals() if number not in (9, 19)},
        "streams": (sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook),
        "path": list(sys.path),
        "limits": (sys.getrecursionlimit(), os.umask(os.umask(0o22)) or 0),
        "pandas": (pd.get_option("display.max_rows"), pd.get_option("display.width")),
    }


def refused() -> None:
    """A mistake is found after much has been set up."""
    with pytest.raises(UsageError, match="a value for each row"):
        mlefw.fit(X, Y[:3])


ACTIONS: dict[str, Any] = {
    "fit": lambda model: mlefw.fit(X, Y, "head=poisson", *PLAIN),
    "refused": lambda model: refused(),
    "load": lambda model: load(model.path),
    "evaluate": lambda model: model.evaluate(X, Y),
    "predict": lambda model: model.predict(X, quantiles=[0.1], uncertainty="laplace"),
    "predict exact": lambda model: model.predict(X, exact=True),
    "distribution": lambda model: model.distribution(X),
    "plot": lambda model: model.plot("calibration").savefig("it.png"),
    "plot of the training": lambda model: model.plot("learning_curves"),
    "plot of other rows": lambda model: model.plot("predictions", (X, Y)),
    "coefficients": lambda model: (model.coefficients(), model.tidy(), model.glance()),
    "html": lambda model: (model._repr_html_(), repr(model)),
}


def check_state(action: str, model: Model | None) -> None:
    """Everything is as it was, but for loggers that were not there."""
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    before = state()
    ACTIONS[action](model)
    after = state()
    known = {one[0] for one in before["logging"]}
    after["logging"] = [one for one in after["logging"] if one[0] in known]
    for name in before:
        assert after[name] == before[name], name


@pytest.mark.parametrize("action", ACTIONS)
def test_the_state_of_the_process_is_the_callers(model: Model, action: str) -> None:
    check_state(action, model)


FRESH = """
import sys
sys.path.insert(0, {tests!r})
import mlefw.fit, mlefw.trained
import test_python_door as door
from mlefw.trained import load
door.check_state("fit", None)
for action in door.ACTIONS:
    if action not in ("fit", "predict"):
        door.check_state(action, load({model!r}))
"""


@pytest.mark.slow
def test_so_it_is_in_a_process_that_has_trained_nothing_yet(model: Model) -> None:
    """What is imported late, and what a first call sets up, leaves no trace either."""
    script = FRESH.format(tests=str(Path(__file__).parent), model=str(model.path.parent.parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
