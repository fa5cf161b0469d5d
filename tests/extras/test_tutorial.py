"""The notebook of the documentation runs, in a kernel of its own, and has the results that it has when it runs."""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT

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
