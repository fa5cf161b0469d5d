"""The report of a sweep shows how the training of the best job went."""

import json
import shutil
from pathlib import Path

import pytest

from mlefw.cli import run
from mlefw.run.drawn import of_training
from mlefw.run.exhibit import captioned
from mlefw.sweep.conclusion import _of_best


@pytest.mark.filterwarnings("ignore")
def test_the_pictures_of_the_best_job_are_those_of_its_training_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = ("model=linear", "trainer.max_epochs=3", "logger=none", "callback=none", "report=false", "plots=true")
    assert run(["train", *settings, f"run_dir={folder}"]) == 0
    drawn = {file.stem: file.read_bytes() for file in (folder / "plots").glob("*.png")}
    assert {"learning_curves", "gap"} <= drawn.keys()
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    again = dict(captioned(of_training(folder, summary)))
    assert {name: picture.content for name, picture in again.items()} == {name: drawn[name] for name in again}
    assert [*again] == ["learning_curves", "gap"]
    shutil.rmtree(folder / "plots")
    titles = [picture.conclusion for picture in _of_best({**summary, "run_dir": str(folder)})]
    assert titles[:2] == ["Learning curves", "Gap"]
    assert len(titles) > 2
