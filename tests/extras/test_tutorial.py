"""The notebook of the documentation runs, in a kernel of its own, and has the results that it has when it runs."""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

sys.path.insert(0, str(ROOT / "scripts"))

import tutorial


def kinds(cell: Any) -> list[list[str]]:
    return [sorted(output.get("data", {output.get("name", "error"): ""})) for output in cell.get("outputs", [])]


def numbers(cell: Any) -> list[float]:
    """The numbers in the text of the results of a cell."""
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", []))
    return [float(found) for text in texts for found in re.findall(r"-?\d+\.\d+", text)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The notebook as it is kept, and after it has run in an empty folder."""
    return nbformat.read(tutorial.NOTEBOOK, as_version=4), tutorial.executed(tmp_path_factory.mktemp("notebook"))


def test_it_runs_and_says_what_it_said(runs: tuple[Any, Any]) -> None:
    kept, now = runs
    assert [cell.source for cell in kept.cells] == [cell.source for cell in now.cells]
    for old, new in zip(kept.cells, now.cells, strict=True):
        assert kinds(old) == kinds(new), new.source
        # Another processor rounds otherwise, so that the training of a network ends a little elsewhere.
        assert numbers(new) == pytest.approx(numbers(old), rel=0.1, abs=0.02), new.source


def test_nothing_is_printed_beside_and_the_line_of_progress_is_gone(runs: tuple[Any, Any]) -> None:
    for notebook in runs:
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert not [one for one in outputs if one.get("name") == "stderr" or one.output_type == "error"]
        lines = [one for one in outputs if one.output_type == "display_data"]
        assert len(lines) == 2 and all(one.data == {"text/html": "", "text/plain": ""} for one in lines)


def test_it_is_small_and_knows_nothing_of_the_machine(runs: tuple[Any, Any]) -> None:
    text = Path(tutorial.NOTEBOOK).read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert not re.search(r"/(?:tmp|home|root|Users)/", text)


CELL = """
import IPython.display, mlefw, numpy as np
shown = []
update = IPython.display.DisplayHandle.update
def noted(self, content, **given):
    shown.append(content["text/plain"])
    update(self, content, **given)
IPython.display.DisplayHandle.update = noted
x = np.random.default_rng(0).normal(size=(60, 2))
given = ("model=linear", "trainer.max_epochs=3", "report=false", "plots=false", "logger=none")
mlefw.fit(x[:, :1], x[:, 1], *given, run_dir="shown")
told = list(shown)
mlefw.fit(x[:, :1], x[:, 1], *given, "callback=none", run_dir="quiet")
print(len(told), len(shown), "|".join(told))
"""


def test_progress_is_shown_while_it_trains_and_can_be_left_out(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    (printed,) = [one.text for one in notebook.cells[0].outputs if one.output_type == "stream"]
    count, total, text = printed.strip().split(" ", 2)
    # One line: at least each epoch, then nothing.
    lines = text.split("|")
    assert count == total and len(lines) == int(count) >= 4
    assert lines[-1] == "" and "epoch 3  nats  train" in lines[-2] and "validation" in lines[-2]
