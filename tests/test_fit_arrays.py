"""Arrays, tensors and datasets from Python: the run of the same arrays from a file, and predictions of a model."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.fit import fit
from mlefw.trained import Model, load

pytestmark = pytest.mark.filterwarnings("default")  # as outside the test runner: Lightning has some of its own

QUIET = ("trainer.max_epochs=2", "baseline=none", "logger=none", "report=false", "plots=false", "callback=none")
CNN = ("model=cnn", "model.channels=[4]", "head=categorical", *QUIET)
DIGITS = load_digits()
X, Y = DIGITS.images[:300, None].astype(np.uint8), DIGITS.target[:300]
RANDOM = np.random.default_rng(2)
SERIES = RANDOM.normal(size=(80, 6, 2)).astype(np.float32)
STEPS = (SERIES[..., 0] > 0).astype(np.int64)

NETS = '''
import torch
from torch import nn


class Steps(nn.Module):
    """Looks at each step alone."""

    def __init__(self, input_shape, positions, eta_dim):
        super().__init__()
        self.last = nn.Linear(input_shape[-1], eta_dim)

    def forward(self, x):
        return self.last(x)
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        return run(list(arguments))


class Plain:
    """A dataset without a base class."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return X[index], int(Y[index])


def test_arrays_tensors_and_datasets_train_to_the_figures_of_a_file() -> None:
    np.savez("d.npz", x=X, y=Y)
    assert told("train", "data=npz", "data.path=d.npz", *CNN, "run_dir=file") == 0
    expected = load("file").summary["metrics"]
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    given: dict[str, tuple[Any, Any]] = {
        "arrays": (X, Y),
        "tensors": (torch.from_numpy(X), torch.from_numpy(Y).requires_grad_(False)),
        "series": (X, pd.Series(Y)),
        "mapping": ({"x": X, "y": Y}, "y"),
        "dataset": (tensors, None),
        "plain": (Plain(), None),
        "pairs": (list(tensors), None),
        "module": (LightningDataModule.from_datasets(tensors), None),
    }
    for name, (data, target) in given.items():
        model = fit(data, target, *CNN, run_dir=name)
        assert model.summary["metrics"] == expected, name
    assert fit(X, Y, *CNN, "data.stream=true").summary["num_rows"] == {"train": 180, "validation": 60, "test": 60}
    assert told("evaluate", "run=arrays", "data.path=d.npz") == 0


def check_model(model: Model, x: np.ndarray, y: np.ndarray) -> None:
    """Predictions, the distribution and the figures say the same, and as the command line."""
    predicted = model.predict(x)
    probabilities = np.stack([predicted[f"prob_{k}"] for k in np.unique(y)], -1)
    assert probabilities.shape == (*y.shape, len(np.unique(y))) and np.allclose(probabilities.sum(-1), 1)
    distribution: Any = model.distribution(torch.from_numpy(x))
    assert np.allclose(distribution.probs, probabilities, rtol=1e-6)
    nll = -np.log(np.take_along_axis(probabilities, y[..., None], -1))[..., 0]
    figures = model.evaluate(x, y)
    assert figures["nll_nats"] == pytest.approx(nll.mean(), rel=1e-6)
    assert figures["accuracy"] == pytest.approx((probabilities.argmax(-1) == y).mean())
    both = model.predict({"x": x, "y": y})
    assert np.allclose(both["nll_nats"], nll, rtol=1e-6)
    pairs = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    assert model.evaluate(pairs) == model.evaluate({"x": x, "y": y}) == figures
    alone = model.predict(TensorDataset(torch.from_numpy(x)))
    assert "nll_nats" not in alone and np.array_equal(alone["prob_0"], predicted["prob_0"])
    np.savez("new.npz", x=x)
    suffix = "npz" if y.ndim > 1 else "csv"
    output = (f"output=p.{suffix}", "overwrite=true", "--plugin", "steps_net")
    assert told("predict", f"run={model.path.parent.parent}", "data.path=new.npz", *output) == 0
    written = np.load("p.npz")["prob_1"] if y.ndim > 1 else pd.read_csv("p.csv")["prob_1"]
    assert np.allclose(written, predicted["prob_1"], rtol=1e-12)


def test_a_model_of_images_predicts_and_scores_arrays() -> None:
    model = fit(X, Y, *CNN, run_dir="run")
    assert (model.target, model.features) == ("y", [])
    check_model(model, X[:50], Y[:50])
    assert told("evaluate", "run=run") == 2
    for new, said in (
        (X[:, :, :7], r"rows of array 'x' .* have shape \(1, 7, 8\)\n  expected: \(1, 8, 8\), as in training"),
        (X.astype(float), "holds float64\n  expected: uint8, as in training"),
        (X[:, 0], r"have shape \(8, 8\)"),
    ):
        with pytest.raises(UsageError, match=said):
            model.predict(new)
    with pytest.raises(UsageError, match="'y' 3"):
        model.evaluate(X, Y[:3])
    with pytest.raises(UsageError, match=r"a value that the training data do not\n  row 1: '12'"):
        model.evaluate(X[:2], np.array([1, 12]))


def test_targets_at_positions_masks_and_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("steps_net.py").write_text(NETS, encoding="utf-8")
    monkeypatch.syspath_prepend(".")
    weight = (RANDOM.uniform(size=STEPS.shape) > 0.2).astype(float)
    masked = np.where(weight > 0, STEPS, -9)
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/steps.yaml").write_text("# Each step alone\n_target_: steps_net.Steps\n", encoding="utf-8")
    model = _with_steps({"x": SERIES, "y": masked, "w": weight}, "y", "data.weight=w", run_dir="masked")
    assert sum(model.summary["num_observations"].values()) == weight.sum()
    whole = _with_steps(SERIES, STEPS, run_dir="whole")
    check_model(whole, SERIES[:20], STEPS[:20])
    dataset = TensorDataset(torch.from_numpy(SERIES), torch.from_numpy(masked), torch.from_numpy(weight))
    assert _with_steps(dataset, None).summary["metrics"] == model.summary["metrics"]


def _with_steps(data: Any, target: Any, *settings: str, **named: Any) -> Model:
    own = ("model=steps", "head=categorical", *QUIET)
    return fit(data, target, *own, *settings, plugins=["steps_net"], config_dirs=["conf"], **named)


def test_text_labels_numbers_ids_and_splits_that_are_given() -> None:
    names = np.array(["zero", "one", "two"])[Y[Y < 3]]
    model = fit(X[Y < 3], names, *CNN)
    assert set(model.predict(X[:9])["class"]) <= set(names) and "prob_zero" in model.predict(X[:1])
    numbers = ("model=cnn", "model.channels=[4]", "head=gaussian", *QUIET)
    ink = X.mean((1, 2, 3))
    model = fit(
        X[:200], ink[:200], *numbers, validation=(X[200:240], ink[200:240]), test={"x": X[240:], "y": ink[240:]}
    )
    assert model.summary["num_rows"] == {"train": 200, "validation": 40, "test": 60}
    assert model.evaluate(X[240:], ink[240:])["nll_nats"] == model.summary["metrics"]["test"]["nll_nats"]
    assert {"mean", "sd", "lower", "upper"} <= set(model.predict(X))
    sets = {"train": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))}
    test = TensorDataset(torch.from_numpy(X[:30]), torch.from_numpy(Y[:30]))
    assert fit(sets, None, *CNN, test=test).summary["num_rows"] == {"train": 240, "validation": 60, "test": 30}
    ids = RANDOM.integers(0, 5, (60, 7))
    few = ("model=transformer", "model.width=8", "model.heads=2", "model.layers=1", "head=categorical", *QUIET)
    model = fit(ids[:, :-1], ids[:, 1:], "data.vocabulary=5", *few)
    assert model.predict(ids[:4, :-1])["prob_3"].shape == (4, 6)


def test_an_interrupted_run_of_arrays_goes_on() -> None:
    given = (*CNN, "scheduler=plateau")
    whole = fit(X, Y, *given)
    fit(X, Y, *given, "trainer.max_epochs=1", run_dir="part")
    assert fit(X, Y, "trainer.max_epochs=2", resume="part").summary["metrics"] == whole.summary["metrics"]
    with pytest.raises(UsageError, match=r"the train rows .* are not those of the run"):
        fit(X[::-1], Y[::-1], "trainer.max_epochs=3", resume="part")


class Drawn(Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return torch.rand(1, 4, 4), index % 2


@pytest.mark.parametrize(
    ("data", "target", "settings", "message"),
    [
        (X, Y[:5], (), "the arrays: the arrays differ in length\n  rows of 'x' 300, 'y' 5"),
        (X + 1j, Y, (), "array 'x' .* holds complex128\n  expected: real numbers"),
        (X, np.full(300, {1}), (), "array 'y' .* holds object"),
        (X, 0 * Y, (), "one label alone: '0'"),
        (X, np.where(Y == 3, np.nan, Y), (), "row 3: nan; "),
        (np.where(X == 3, np.inf, X), Y, (), "holds values that are no finite numbers\n  row "),
        ({"images": X, "y": Y}, "y", (), "lacks these columns\n  'x' .*\n  it has 'images', 'y'"),
        ({"x": X, "y": Y}, "z", (), "lacks these columns\n  'z'"),
        ({"x": X, "y": Y}, Y, (), "the target is called 'y', and so is an array"),
        (X, np.ma.masked_less(Y, 3), (), "'y' is a masked array"),
        (X, Y, ("data.features=[a]",), "data.features=.* is for columns of a table"),
        (Drawn(), None, (), r"the dataset \(train\): item 0 is not the same .* draws at random\n.*augment="),
        (DataLoader(Drawn()), None, (), "item 0 is not the same when it is read twice"),
        ({"train": Drawn(), "val": Drawn()}, None, (), "datasets called 'train', 'val'"),
    ],
)
def test_mistakes_write_nothing(data: Any, target: Any, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(data, target, *CNN, *settings)
    assert not list(Path().iterdir())


def test_rows_that_are_given_twice_are_refused() -> None:
    sets = {name: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)) for name in ("train", "test")}
    with pytest.raises(UsageError, match="test=: the datasets have test rows of their own"):
        fit(sets, None, *CNN, test=sets["test"])
