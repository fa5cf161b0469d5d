"""Whole runs on pixels: figures against plain counts and torch, new images, images without labels, 256 levels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run, summary_of
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import mlefw
from mlefw.data.arrays import as_arrays
from mlefw.fit import fit
from mlefw.objective.objective import evaluate
from mlefw.report.hardest import hardest
from mlefw.report.hardest_images import VIEW
from mlefw.run.checkpoint import load
from mlefw.run.sample_pixels import sample_pixels

PIXELS = ("data.levels=2", "head=categorical")
SMALL = ("model=transformer", "model.width=8", "model.layers=1", "model.heads=2", "trainer.max_epochs=2")
QUIET = ("report=false", "plots=false", "logger=none", "callback=none")


def digits() -> dict[str, np.ndarray]:
    """Levels of the digits, (n, 8, 8), of each split with `data.seed=0`: 0 to 8 of 16 are dark."""
    images = (load_digits().images > 8).astype(int)
    order, share = np.random.default_rng(0).permutation(1797), 359
    return {
        "train": images[order[2 * share :]],
        "validation": images[order[share : 2 * share]],
        "test": images[order[:share]],
    }


def by_position(train: np.ndarray, held: np.ndarray) -> float:
    bright = (train.sum(0) + 0.5) / (len(train) + 1)
    return float(-np.log(np.where(held == 1, bright, 1 - bright)).mean())


def by_left(train: np.ndarray, held: np.ndarray) -> float:
    """Counts by the pixel to the left, 0 outside, with a half added."""
    before = [np.pad(one, ((0, 0), (0, 0), (1, 0)))[:, :, :-1] for one in (train, held)]
    table = np.zeros((2, 2))
    np.add.at(table, (before[0].ravel(), train.ravel()), 1)
    table = (table + 0.5) / (table + 0.5).sum(1, keepdims=True)
    return float(-np.log(table[before[1], held]).mean())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a transformer on the digits, with its report."""
    from mlefw.cli import run

    folder = tmp_path_factory.mktemp("pixels") / "run"
    settings = ("train", "data=digits_images", *PIXELS, *SMALL, "checkpoint.min_seconds=0", f"run_dir={folder}")
    assert run([*settings, "logger=none"]) == 0
    return folder


def logits_by_hand(folder: Path, images: np.ndarray) -> torch.Tensor:
    flat = torch.from_numpy(images.reshape(len(images), -1))
    x = torch.cat([torch.full((len(flat), 1), 2), flat[:, :-1]], 1)
    objective = load(folder).objective
    with torch.no_grad():
        return objective.eta(x, torch.zeros(x.shape, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore")
def test_a_run_states_bits_of_a_pixel_beside_the_exact_tables(done: Path) -> None:
    found, parts = summary_of(done), digits()
    assert found["observation"] == "pixel" and found["nll_se_unit"] == "rows"
    for split, images in parts.items():
        figures = found["metrics"][split]
        assert found["num_rows"][split] == len(images) and found["num_observations"][split] == images.size
        bright = parts["train"].mean()
        share = np.where(images == 1, bright, 1 - bright)
        assert found["null"][split]["nll_nats"] == pytest.approx(-np.log(share).mean(), abs=1e-12)
        expected = by_position(parts["train"], images)
        assert found["baseline_position"][split]["nll_nats"] == pytest.approx(expected, abs=1e-12)
        expected = by_left(parts["train"], images)
        assert found["baseline_nearest_1"][split]["nll_nats"] == pytest.approx(expected, abs=1e-12)
        target = torch.from_numpy(images.reshape(len(images), -1))
        each = cross_entropy(logits_by_hand(done, images).mT, target, reduction="none").numpy()
        assert figures["nll_nats"] == pytest.approx(each.mean(), abs=1e-6)
        assert figures["nll_bits"] == pytest.approx(each.mean() / np.log(2), abs=1e-6)
        # Images are the units of the standard error.
        assert figures["nll_se"] == pytest.approx(each.mean(1).std(ddof=1) / len(each) ** 0.5, rel=1e-5)
    assert found["baseline_longer"]["order"] == 10
    assert found["metrics"]["test"]["nll_nats"] < found["null"]["test"]["nll_nats"]
    assert len(found["nll_by_position"]["model"]) == 64


def test_the_report_shows_samples_and_the_hardest_images(done: Path) -> None:
    assert {"sample.png", "hardest.png", "nll_by_position.png"} <= {file.name for file in (done / "plots").iterdir()}
    page = (done / "report.html").read_text(encoding="utf-8")
    for words in (
        "nats per pixel",
        "MAP by position",
        "MAP by the 10 nearest pixels",
        "16 images drawn",
    ):
        assert words in page


def test_the_hardest_images_are_those_of_largest_nll_as_levels(done: Path) -> None:
    trained, images = load(done), digits()["test"]
    table = as_arrays({"x": (16 * images).astype(np.uint8)[:, np.newaxis]}, None, "x", "y")
    rows = trained.rows(table)
    each = cross_entropy(logits_by_hand(done, images).mT, rows.y.long(), reduction="none").mean(1)
    hard = hardest(trained.objective, evaluate(trained.objective, rows).nll, rows, "test", 5)
    assert hard is not None and VIEW.suits(trained.schema)
    figure = VIEW.show(hard, trained.schema)
    order = each.argsort(descending=True)[:5].tolist()
    assert not isinstance(figure, str) and len(figure.axes) == 5
    for axes, index in zip(figure.axes, order, strict=True):
        assert (np.asarray(axes.images[0].get_array()) == images[index]).all()
        assert axes.get_xlabel().startswith(f"row {index}: {float(each[index]):.3g} nats")


def test_new_images_are_scored_and_forecast(done: Path, mlefw: Run, tmp_path: Path) -> None:
    """No array of labels is needed; the exact tables come from the checkpoint."""
    x = load_digits().images[:40].astype(np.uint8)[:, np.newaxis]
    np.savez(tmp_path / "new.npz", x=x)
    evaluated = mlefw("evaluate", f"run={done}", "data.path=new.npz", "output=e.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "MAP by the 4 nearest pixels (exact), in nats" in evaluated.stdout and "nats per pixel" in evaluated.stdout
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    images, train = (x[:, 0] > 8).astype(int), digits()["train"]
    each = cross_entropy(logits_by_hand(done, images).mT, torch.from_numpy(images.reshape(40, -1)), reduction="none")
    assert found["metrics"]["nll_nats"] == pytest.approx(float(each.mean()), abs=1e-6)
    assert found["baseline_position"]["nll_nats"] == pytest.approx(by_position(train, images), abs=1e-12)
    assert found["baseline_nearest_1"]["nll_nats"] == pytest.approx(by_left(train, images), abs=1e-12)
    assert mlefw("predict", f"run={done}", "data.path=new.npz", "output=p.npz").returncode == 0
    with np.load(tmp_path / "p.npz") as predicted:
        assert predicted["nll_nats"] == pytest.approx(each.numpy(), abs=1e-6)
        assert predicted["prob_1"].shape == (40, 64)
    refused = mlefw("predict", f"run={done}", "data.path=new.npz", "output=p.csv")
    assert refused.returncode == 2 and ".npz" in refused.stderr
    np.savez(tmp_path / "large.npz", x=np.zeros((3, 1, 9, 8), np.uint8))
    refused = mlefw("evaluate", f"run={done}", "data.path=large.npz")
    assert refused.returncode == 2 and "expected: (1, 8, 8), as in training" in refused.stderr


def test_a_checkpoint_draws_images(done: Path) -> None:
    drawn = sample_pixels(load(done), 3, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 1, 8, 8) and set(np.unique(drawn)) == {0, 255}


def test_a_run_goes_on_as_if_it_had_not_stopped(mlefw: Run, tmp_path: Path) -> None:
    settings = ("train", "data=digits_images", *PIXELS, *SMALL, "scheduler=none", *QUIET)
    assert mlefw(*settings, "trainer.max_steps=40", "run_dir=a").returncode == 0
    assert mlefw("train", "resume=a", "trainer.max_steps=60").returncode == 0
    assert mlefw(*settings, "trainer.max_steps=60", "run_dir=b").returncode == 0
    assert summary_of(tmp_path / "a")["metrics"] == summary_of(tmp_path / "b")["metrics"]


def test_baseline_prints_the_tables(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("baseline", "data=digits_images", *PIXELS, "model=transformer", "baseline.order=7", "run_dir=b")
    assert done.returncode == 0, done.stderr
    assert "Exact tables of the next pixel" in done.stdout and "MAP by the 7 nearest pixels" in done.stdout
    found = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    images = (load_digits().images > 8).astype(int)
    assert found["position"]["nll_nats"] == pytest.approx(by_position(images, images), abs=1e-12)
    assert found["nearest_1"]["nll_nats"] == pytest.approx(by_left(images, images), abs=1e-12)
    assert found["longer"]["order"] == 7


def test_the_linear_model_of_tokens_reaches_the_table_of_the_previous_pixel(mlefw: Run, tmp_path: Path) -> None:
    """Noise, so that all pairs occur: the MLE exists, and training ends at it."""
    np.savez(tmp_path / "noise.npz", x=np.random.default_rng(0).integers(0, 256, (300, 4, 4)).astype(np.uint8))
    settings = ("data=npz", "data.path=noise.npz", "data.levels=3", "head=categorical", "model=linear")
    exact = ("batch=full", "optimizer=lbfgs", "trainer.max_epochs=60", "data.validation_fraction=0", "run_dir=l")
    done = mlefw("train", *settings, *exact, *QUIET)
    assert done.returncode == 0, done.stderr
    found = summary_of(tmp_path / "l")
    assert found["baseline"]["exists"] is True and found["distance"]["reference"] == "mle"
    assert abs(found["metrics"]["train"]["nll_nats"] - found["baseline"]["train"]["nll_nats"]) < 1e-6


def test_images_need_no_labels_and_256_levels_are_bytes(mlefw: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(30):
        Image.fromarray(random.integers(0, 256, (5, 4, 3)).astype(np.uint8)).save(tmp_path / "photos" / f"{k:02}.png")
    settings = ("data=images", "data.path=photos", "data.levels=256", "head=categorical", *SMALL, *QUIET)
    refused = mlefw("train", *settings)
    assert refused.returncode == 2 and "data.color=gray" in refused.stderr
    done = mlefw("train", *settings, "data.color=gray", "run_dir=r")
    assert done.returncode == 0, done.stderr
    found = summary_of(tmp_path / "r")
    # Uniform noise: nothing is learnt beyond 8 bits, and the contexts are at most four pixels.
    assert 7 < found["metrics"]["test"]["nll_bits"] < 10
    assert found["baseline_longer"]["order"] == 4
    assert mlefw("evaluate", "run=r", "data.path=photos").returncode == 0
    predicted = mlefw("predict", "run=r", "data.path=photos/03.png", "output=p.npz")
    assert predicted.returncode == 0, predicted.stderr
    with np.load(tmp_path / "p.npz") as one:
        assert one["nll_nats"].shape == (1, 20) and one["id"].tolist() == ["03.png"]


@pytest.mark.filterwarnings("ignore")
def test_the_python_door_takes_images_alone(tmp_path: Path) -> None:
    x = load_digits().images[:200].astype(np.uint8)
    settings = ("data.levels=2", "data.range=[0,16]", "head=categorical", *SMALL, *QUIET)
    model: Any = fit(x, None, *settings, run_dir=tmp_path / "r")
    figures = model.evaluate(x[:20])
    predicted = model.predict(x[:20])
    assert predicted["nll_nats"].shape == (20, 64)
    assert figures["nll_nats"] == pytest.approx(predicted["nll_nats"].mean(), abs=1e-9)
    assert model.distribution(x[:20]).batch_shape == (20, 64)
    assert mlefw.load(tmp_path / "r").target == "pixel"


def test_the_command_draws_a_picture_or_arrays(done: Path, mlefw: Run, tmp_path: Path) -> None:
    for name in ("s.png", "s.npz"):
        assert mlefw("sample", f"run={done}", "num=3", f"output={name}").returncode == 0
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert arrays["x"].shape == (3, 1, 8, 8) and set(np.unique(arrays["x"])) <= {0, 255}
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    for given, said in (((), "ends in .png or .npz"), (("prompt=a", "output=t.npz"), "no prompt")):
        refused = mlefw("sample", f"run={done}", *given)
        assert refused.returncode == 2 and said in refused.stderr
