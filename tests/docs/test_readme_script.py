"""What the first page shows of a run is what the run prints today, up to what differs between processors."""

import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import readme

NUMBER = r"[-+]?\d+\.\d+"


def marked() -> tuple[str, str]:
    """The command of the first page, and what stands there as its output."""
    (found,) = readme.MARKED.findall(readme.README.read_text(encoding="utf-8"))
    return found[1], found[2]


def test_the_page_has_a_table_and_a_verdict() -> None:
    command, shown = marked()
    assert command == "train" and shown.startswith("head=gaussian") and "linear MLE (exact)" in shown
    assert all(file.is_file() for file in readme.PICTURES.values())


@pytest.mark.slow
def test_the_run_prints_what_the_page_shows(tmp_path: Path) -> None:
    command, shown = marked()
    printed = readme.printed(command, tmp_path / "run")
    # The rows, the exact estimates and all words are the same everywhere; a training ends a little elsewhere.
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", shown)
    for now, then in zip(printed.splitlines(), shown.splitlines(), strict=True):
        is_exact = "null model" in then or "(exact)" in then
        numbers = [[float(one) for one in re.findall(NUMBER, line)] for line in (now, then)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3 if is_exact else 0.02, abs=1e-4 if is_exact else 0.15)
    assert (tmp_path / "run" / "plots" / "learning_curves.png").is_file()
