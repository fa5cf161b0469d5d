"""The example of every page on plugins, run as the page tells it: files in an empty folder, and a command line."""

import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, summary_of

from mlefw.cli import run

PAGES = ROOT / "docs" / "plugins"
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.M | re.S)
FEW = ("trainer.max_epochs=8", "logger=none", "report=false", "plots=false")
"""What the commands are given beside what the page says, so that they take a second or two."""


def blocks(page: Path) -> tuple[dict[str, str], list[list[str]]]:
    """The files of a page by their names, and the arguments of its commands."""
    found = {title: text for _, title, text in BLOCK.findall(page.read_text(encoding="utf-8"))}
    lines = found.pop("command line").splitlines()
    return found, [shlex.split(line) for line in lines if line]


def at(summary: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        summary = summary[key]
    return summary


def gumbel(summary: dict[str, Any]) -> bool:
    """The exact linear estimate exists, and a network does better than the null model."""
    predictions = Path("predictions.csv").read_text(encoding="utf-8").splitlines()
    nll, null = (at(summary, f"{who}.train.nll_nats") for who in ("metrics", "null"))
    return summary["baseline"]["exists"] is True and nll < null and len(predictions) == summary["num_rows"]["test"] + 1


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "head": gumbel,
    "prior": lambda s: s["prior"] == "logistic" and abs(at(s, "distance.excess_objective")) < 1e-9,
    "loss": lambda s: s["loss"].startswith("forgiving") and at(s, "metrics.train.nll_nats") < 0.3,
    "batch": lambda s: s["num_steps"] == 3 * s["num_epochs"],
    "model": lambda s: s["num_parameters"] == 102 and at(s, "distance.head_refit_gap") > 0,
}


def test_every_page_has_an_example_that_is_checked() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"index"} == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_example_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, commands = blocks(PAGES / f"{name}.md")
    assert any(file.endswith(".py") for file in files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLEFW_PLUGINS", "")
    for file, text in files.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(file).stem, raising=False)
    for program, command, *arguments in commands:
        assert program == "mlefw"
        more = FEW if command == "train" else ()
        # Under the warning filters of a process of its own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert run([command, *arguments, *more]) == 0, arguments
    assert CHECKS[name](summary_of(Path("run")))
