"""Exact estimates beside whole runs on images: pixels, components, the last layer, against scikit-learn and numpy."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import summary_of
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from mlefw.cli import run
from mlefw.run.checkpoint import load

pytestmark = pytest.mark.filterwarnings("ignore")
QUIET = ("report=false", "plots=false", "logger=none", "callback=none")
SHORT = ("trainer.max_epochs=1", "model=linear", *QUIET)


def parts(num_rows: int) -> dict[str, np.ndarray]:
    """The rows of each split with `data.seed=0` and the shares 0.2 and 0.2."""
    order, share = np.random.default_rng(0).permutation(num_rows), round(0.2 * num_rows)
    return {"test": order[:share], "validation": order[share : 2 * share], "train": order[2 * share :]}


def mean_nll(logits: np.ndarray, y: np.ndarray) -> float:
    return float(-log_softmax(logits, 1)[np.arange(len(y)), y].mean())


@cache
def mnist() -> tuple[Path, dict[str, Any]]:
    """MNIST-10k and its reference values, where they lie beside the checkout; skips the test where they do not."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data" / "tensors"
        if (folder / "mnist_10k.npz").is_file():
            known = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
            return folder / "mnist_10k.npz", known["images"]["mnist_10k"]
    pytest.skip("shared/data/tensors is not here")


def train(
    folder: Path, *settings: str, source: str = "data=digits_images", head: str = "categorical"
) -> dict[str, Any]:
    assert run(["train", source, f"head={head}", *SHORT, *settings, f"run_dir={folder}"]) == 0
    return summary_of(folder)


def test_components_beside_a_run_are_those_of_scikit_learn(tmp_path: Path) -> None:
    """Also on a new file, from the checkpoint alone, and after a resume."""
    digits = load_digits()
    x, y, of = digits.images.reshape(-1, 64), digits.target, parts(1797)
    found = train(tmp_path / "r", "baseline.features=pca:6", "checkpoint.min_seconds=0")
    pca = PCA(6, svd_solver="full").fit(x[of["train"]])
    z = pca.transform(x) / np.sqrt(pca.explained_variance_)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=20_000).fit(z[of["train"]], y[of["train"]])
    logits = oracle.decision_function(z)
    for split, index in of.items():
        assert found["baseline"][split]["nll_nats"] == pytest.approx(mean_nll(logits[index], y[index]), abs=1e-6)
    assert found["baseline"]["features"] == "6 principal components" and found["distance"]["reference"] == "mle"
    assert "excess_objective" not in found["distance"]
    new = of["test"][:50]
    np.savez(tmp_path / "new.npz", x=digits.images[new, None].astype(np.uint8), digit=y[new])
    out = tmp_path / "e.json"
    assert run(["evaluate", f"run={tmp_path / 'r'}", f"data.path={tmp_path / 'new.npz'}", f"output={out}"]) == 0
    scored = json.loads(out.read_text(encoding="utf-8"))
    assert scored["baseline"]["nll_nats"] == pytest.approx(mean_nll(logits[new], y[new]), abs=1e-6)
    assert scored["baseline"]["features"] == "6 principal components"
    gap = scored["metrics"]["nll_nats"] - scored["baseline"]["nll_nats"]
    assert scored["distance"]["gap_nats"] == pytest.approx(gap, abs=1e-12)
    assert run(["train", f"resume={tmp_path / 'r'}", "trainer.max_epochs=2"]) == 0
    assert summary_of(tmp_path / "r")["baseline"] == found["baseline"]


def test_a_map_on_components_is_that_of_scikit_learn(tmp_path: Path) -> None:
    digits = load_digits()
    x, y, of = digits.images.reshape(-1, 64), digits.target, parts(1797)
    found = train(tmp_path / "r", "baseline.features=pca:20", "prior=l2", "prior.scale=0.2")
    z = PCA(20, svd_solver="full").fit(x[of["train"]]).transform(x)
    z /= z[of["train"]].std(0)
    oracle = LogisticRegression(C=0.2**2, tol=1e-10, max_iter=20_000).fit(z[of["train"]], y[of["train"]])
    logits = oracle.decision_function(z)
    for split, index in of.items():
        assert found["baseline_map"][split]["nll_nats"] == pytest.approx(mean_nll(logits[index], y[index]), abs=1e-6)


def test_the_line_of_the_table_names_the_components(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "r", "baseline.features=pca:6")
    said = capfd.readouterr().out
    assert "linear MLE on 6 principal components (exact)" in said
    assert "the linear MLE on 6 principal components" in said


@pytest.mark.parametrize("features", ["auto", "pca:9"])
def test_the_gaussian_mle_of_images_is_least_squares(features: str, tmp_path: Path) -> None:
    digits = load_digits()
    x, y, of = digits.images.reshape(-1, 64), digits.target * 1.5 + digits.images.mean((1, 2)), parts(1797)
    np.savez(tmp_path / "d.npz", x=digits.images[:, None].astype(np.float32), y=y)
    where = (f"data.path={tmp_path / 'd.npz'}", f"baseline.features={features}")
    found = train(tmp_path / "r", *where, source="data=npz", head="gaussian")
    z = x if features == "auto" else PCA(9, svd_solver="full").fit(x[of["train"]]).transform(x)
    design = np.column_stack([np.ones(len(z)), z])
    beta = np.linalg.lstsq(design[of["train"]], y[of["train"]], rcond=None)[0]
    square = (y - design @ beta) ** 2
    variance = square[of["train"]].mean()
    for split, index in of.items():
        nll = 0.5 * np.log(2 * np.pi * variance) + square[index].mean() / (2 * variance)
        assert found["baseline"][split]["nll_nats"] == pytest.approx(nll, abs=1e-9)
    assert found["baseline"]["features"] == ("64 pixels" if features == "auto" else "9 principal components")


def test_a_linear_model_of_pixels_is_measured_from_their_map(tmp_path: Path) -> None:
    """Training by L-BFGS comes to the exact optimum, whose gap in the last layer is the same excess."""
    settings = ("prior=l2", "prior.scale=0.05", "batch=full", "optimizer=lbfgs", "trainer.max_epochs=60")
    distance = train(tmp_path / "r", *settings, "trainer.precision=64-true")["distance"]
    assert 0 <= distance["excess_objective"] < 1e-6 and distance["parameter"]["mahalanobis"] < 0.1
    assert distance["head_refit_gap"] == pytest.approx(distance["excess_objective"], abs=1e-10)


def test_the_last_layer_is_refitted_once_the_network_is_trained(tmp_path: Path) -> None:
    settings = ("model=cnn", "model.channels=[4,4]", "trainer.max_epochs=3", "baseline.features=last_layer")
    found = train(tmp_path / "r", *settings, "prior=l2", "prior.scale=0.3")
    trained = load(tmp_path / "r").objective
    seen: list[torch.Tensor] = []
    trained.model.model.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().double()))
    digits, of = load_digits(), parts(1797)
    trained.double().model(torch.from_numpy(digits.images[:, None].astype(np.uint8)))
    phi, y = seen[0].numpy(), digits.target
    oracle = LogisticRegression(C=0.3**2, tol=1e-10, max_iter=20_000).fit(phi[of["train"]], y[of["train"]])
    logits = oracle.decision_function(phi)
    for split, index in of.items():
        assert found["baseline_map"][split]["nll_nats"] == pytest.approx(mean_nll(logits[index], y[index]), abs=1e-6)
    assert found["baseline_map"]["features"] == "the last layer's features"
    mle = found["baseline"]["train"]["nll_nats"]
    assert mle < found["baseline_map"]["train"]["nll_nats"] < found["metrics"]["train"]["nll_nats"]
    gap = found["metrics"]["train"]["nll_nats"] - mle
    assert found["distance"]["gap_nats"]["train"] == pytest.approx(gap, abs=1e-12)
    new = of["test"]
    np.savez(tmp_path / "new.npz", x=digits.images[new, None].astype(np.uint8), digit=y[new])
    out = tmp_path / "e.json"
    assert run(["evaluate", f"run={tmp_path / 'r'}", f"data.path={tmp_path / 'new.npz'}", f"output={out}"]) == 0
    scored = json.loads(out.read_text(encoding="utf-8"))["baseline_map"]["nll_nats"]
    assert scored == pytest.approx(found["baseline_map"]["test"]["nll_nats"], abs=1e-9)


def test_a_residual_model_starts_at_an_estimate_on_components(tmp_path: Path) -> None:
    settings = ("model=residual", "prior=l2", "baseline.features=pca:8", "optimizer.lr=1e-12")
    found = train(tmp_path / "r", *settings)
    for split, figures in found["metrics"].items():
        assert figures["nll_nats"] == pytest.approx(found["baseline_map"][split]["nll_nats"], abs=1e-9)


def test_separated_pixels_name_what_helps(tmp_path: Path) -> None:
    found = train(tmp_path / "r")
    assert found["baseline"]["exists"] is False and "completely separated" in found["baseline"]["reason"]
    told = next(text for text in found["warnings"] if text.startswith("no finite linear MLE"))
    assert "prior=l2" in told and "baseline.features=pca:50" in told


REFUSED: list[tuple[Callable[[Path], list[str]], str]] = [
    (lambda path: ["data=digits_images", "baseline.features=[a]"], "names columns of a table"),
    (lambda path: ["data=digits", "baseline.features=pca:5"], "is for arrays"),
    (lambda path: ["data=digits_images", "baseline.features=pca:0"], "expected a list of text or null"),
    (lambda path: ["data=digits_images", "baseline.features=all"], "auto, pixels, last_layer or pca:50"),
    (lambda path: ["data=digits_images", "model=residual", "baseline.features=last_layer"], "known after training"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_features_that_do_not_fit_are_refused(
    settings: Callable[[Path], list[str]], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *SHORT, "head=categorical", *settings(tmp_path), f"run_dir={tmp_path / 'r'}"]) == 2
    said = capfd.readouterr().err
    assert "baseline.features=" in said and words in said and not (tmp_path / "r").exists()


def test_the_last_layer_has_no_estimate_without_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ["data=digits_images", "head=categorical", "baseline.features=last_layer", f"run_dir={tmp_path / 'r'}"]
    assert run(["baseline", *settings]) == 2
    assert "trained network" in capfd.readouterr().err


def test_mnist_by_components_is_the_reference(tmp_path: Path) -> None:
    path, known = mnist()
    found = train(tmp_path / "r", f"data.path={path}", source="data=npz")
    for split in ("train", "validation", "test"):
        assert found["baseline"][split]["nll_nats"] == pytest.approx(known["pca_50"][split], abs=1e-9)
        assert found["null"][split]["nll_nats"] == pytest.approx(known["null"][split], abs=1e-12)
    assert found["baseline"]["features"] == "50 principal components"


@pytest.mark.slow
def test_mnist_by_pixels_is_the_reference(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, known = mnist()
    settings = (
        f"data.path={path}",
        "baseline.features=pixels",
        "prior=l2",
        "prior.scale=0.1",
        "baseline.max_seconds=600",
    )
    found = train(tmp_path / "r", *settings, source="data=npz")
    said = capfd.readouterr().err
    assert "linear MAP on 7,850 coefficients: at most 1.6e11 multiplications, about 16 s" in said
    assert found["baseline"]["exists"] is False and found["baseline"]["nll_infimum"] == 0
    reference = known["pixels_map_tau_0.1"]
    for split in ("train", "validation", "test"):
        assert found["baseline_map"][split]["nll_nats"] == pytest.approx(reference[split], abs=1e-6)
    constant = 7840 / 6000 * (np.log(0.1) + 0.5 * np.log(2 * np.pi))
    objective = json.loads((tmp_path / "r" / "baseline.json").read_text(encoding="utf-8"))["objective"]
    assert objective - constant == pytest.approx(reference["objective"], abs=1e-10)
    assert found["baseline_map"]["excess_bound"] < 2e-9


def test_a_map_of_too_much_work_is_replaced_and_this_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small limit on dense matrices stands for large images."""
    monkeypatch.setattr("mlefw.baseline.linear.MOST_DENSE", 600)
    settings = ("baseline.features=pixels", "prior=l2", "prior.scale=1")
    found = train(tmp_path / "r", *settings, "baseline.max_work=1.2e9")
    assert found["baseline_map"]["features"] == "50 principal components"
    told = [text for text in found["warnings"] if "linear MAP left out" in text]
    assert len(told) == 1 and told[0].endswith("multiplications, more than baseline.max_work=1.2e9; pca:50 is used")
    assert "excess_objective" not in found["distance"]
