"""Whole runs on image files: the figures of the same arrays, new images, and nothing written where files are wrong."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mlefw.cli import run
from mlefw.system import warning

FEW = (
    "model=cnn",
    "model.channels=[4]",
    "trainer.max_epochs=2",
    "baseline=none",
    "report=false",
    "plots=false",
    "logger=none",
)
LABELS = ("head=categorical", "callback=none")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(*arguments: str) -> int:
    warning.clear()
    with warnings.catch_warnings():
        warnings.resetwarnings()  # as outside the test runner
        return run(list(arguments))


def metrics(folder: str) -> Any:
    return json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))["metrics"]


def digits(num_rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Images of three digits in the order of their files, below `files`, and their labels."""
    data = load_digits(n_class=3)
    order = np.argsort(data.target[:num_rows], kind="stable")
    images, labels = data.images[:num_rows][order].astype(np.uint8) * 15, data.target[:num_rows][order]
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        Path("files", str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(Path("files", str(label), f"{k:03d}.png"))
    return images[:, None], labels


def test_a_folder_of_images_is_the_array_of_its_pixels() -> None:
    images, labels = digits()
    np.savez("d.npz", x=images, y=labels)
    assert told("check", "data=images", "data.path=files", *FEW, *LABELS) == 0
    assert sorted(file.name for file in Path().iterdir()) == ["d.npz", "files"]
    assert told("train", "data=npz", "data.path=d.npz", *FEW, *LABELS, "run_dir=arrays") == 0
    assert told("train", "data=images", "data.path=files", *FEW, *LABELS, "run_dir=folder") == 0
    assert told("train", "data=images", "data.path=files", "data.stream=true", *FEW, *LABELS, "run_dir=stored") == 0
    assert metrics("folder") == metrics("arrays")
    assert metrics("stored")["test"]["nll_nats"] == pytest.approx(metrics("arrays")["test"]["nll_nats"], rel=1e-6)
    for name in ("arrays", "folder"):
        assert (
            told(
                "evaluate",
                f"run={name}",
                f"data.path={'d.npz' if name == 'arrays' else 'files'}",
                "output=e.json",
                "overwrite=true",
            )
            == 0
        )
        scored = json.loads(Path("e.json").read_text(encoding="utf-8"))
        assert scored["num_rows"] == 120
    assert told("evaluate", "run=folder", "output=t.json") == 0
    kept = json.loads(Path("t.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
    assert kept == pytest.approx(metrics("folder")["test"]["nll_nats"], rel=1e-12)


def test_predictions_have_a_line_for_each_image(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = digits()
    assert told("train", "data=images", "data.path=files", *FEW, *LABELS, "run_dir=run") == 0
    Path("new").mkdir()
    for k in (3, 50):
        Image.fromarray(images[k, 0]).save(Path("new", f"{k}.png"))
    Image.fromarray(images[0, 0]).convert("RGB").convert("P").save(Path("new", "palette.png"))
    assert told("predict", "run=run", "data.path=new", "output=p.parquet") == 2
    assert "1 image is in colour, and the model takes grey ones\n  palette.png" in capsys.readouterr().err
    Path("new", "palette.png").unlink()
    assert told("predict", "run=run", "data.path=new/", "output=p.parquet") == 0
    found = pd.read_parquet("p.parquet")
    assert list(found.columns) == ["row", "id", "class", "prob_0", "prob_1", "prob_2"]
    assert found["id"].tolist() == ["3.png", "50.png"]
    assert told("predict", "run=run", "data.path=files", "output=q.csv") == 0
    whole = pd.read_csv("q.csv")
    assert whole["id"].tolist()[3] == "0/003.png" and len(whole) == 120
    probabilities = whole[["prob_0", "prob_1", "prob_2"]].to_numpy()
    assert np.allclose(whole["nll_nats"], -np.log(probabilities[np.arange(120), labels]), rtol=1e-9)
    assert np.allclose(found[["prob_0", "prob_1", "prob_2"]], probabilities[[3, 50]], rtol=1e-5)
    assert told("evaluate", "run=run", "data.path=files", "output=e.json") == 0
    scored = json.loads(Path("e.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
    assert scored == pytest.approx(whole["nll_nats"].mean(), rel=1e-9)
    assert told("predict", "run=run", "data.path=new/3.png", "output=one.csv") == 0
    assert pd.read_csv("one.csv")["id"].tolist() == ["3.png"]
    np.savez("n.npz", x=images[[3, 50]])
    assert told("predict", "run=run", "data.path=n.npz", "output=n.csv") == 0
    assert np.allclose(pd.read_csv("n.csv")["prob_1"], found["prob_1"], rtol=1e-12)


def test_a_table_of_numbers_trains_is_continued_and_scores_another_table() -> None:
    images, _ = digits()
    files = sorted(file.as_posix() for file in Path("files").rglob("*.png"))
    frame = pd.DataFrame({"file": files, "ink": images.mean((1, 2, 3)), "times": 1 + np.arange(120) % 2})
    frame.iloc[:100].to_csv("old,1.csv", index=False)
    frame.iloc[100:].to_csv("new.csv", index=False)
    settings = ("data=images", "data.table=old,1.csv", "data.target=ink", "data.weight=times", "head=gaussian")
    assert told("train", *settings, *FEW, "callback=none", "scheduler=plateau", "run_dir=whole") == 0
    assert (
        told("train", *settings, *FEW, "callback=none", "scheduler=plateau", "trainer.max_epochs=1", "run_dir=part")
        == 0
    )
    assert told("train", "resume=part", "trainer.max_epochs=2") == 0
    assert metrics("part") == metrics("whole")
    assert told("predict", "run=whole", "data.path=new.csv", "output=p.csv") == 0
    found = pd.read_csv("p.csv")
    assert found["id"].tolist() == files[100:] and {"mean", "lower", "upper", "nll_nats"} <= set(found.columns)
    assert told("evaluate", "run=whole", "data.path=new.csv", "output=e.json") == 0
    scored = json.loads(Path("e.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
    weight = frame["times"].to_numpy()[100:]
    assert scored == pytest.approx((weight * found["nll_nats"]).sum() / weight.sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "data.path is not set"),
        (("data.path=nowhere",), "does not exist (data.path)"),
        (("data.path=files/0",), "lie in no sub-folder"),
        (("data.path=files", "data.size=[0,8]"), "data.size=[0, 8]: expected [height,width] in pixels"),
        (("data.path=files", "data.max_pixels=0"), "data.max_pixels=0: expected a number of at least 1"),
        (("data.path=files", "data.max_pixels=10"), "image files cannot be taken"),
        (("data.path=files", "data.bad=maybe"), "data.bad"),
        (("data.path=files", "data.missing=drop"), "data.missing=drop is for columns of a table"),
        (("data.path=files", "head=gaussian"), "expected: numbers"),
    ],
)
def test_mistakes_write_nothing(settings: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    digits(30)
    before = sorted(Path().rglob("*"))
    assert told("train", "data=images", *FEW, *LABELS, *settings, "run_dir=run") == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message and len(message.splitlines()) <= 7, message
    assert sorted(Path().rglob("*")) == before
