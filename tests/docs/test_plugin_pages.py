"""The example of every page on plugins, run as the page tells it: files in an empty folder, and a command line."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, summary_of
from pages import blocks, commands, execute

PAGES = ROOT / "docs" / "plugins"


def at(summary: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        summary = summary[key]
    return summary


def gumbel(summary: dict[str, Any]) -> bool:
    """The exact linear estimate exists, and a network does better than the null model."""
    predictions = Path("predictions.csv").read_text(encoding="utf-8").splitlines()
    nll, null = (at(summary, f"{who}.train.nll_nats") for who in ("metrics", "null"))
    return summary["baseline"]["exists"] is True and nll < null and len(predictions) == summary["num_rows"]["test"] + 1


def shift(summary: dict[str, Any]) -> bool:
    """A mean that was fitted is nearer to the rows that it was fitted on."""
    before, after = (at(summary, f"calibration.{when}.validation.nll_nats") for when in ("before", "after"))
    return after < before and Path("predictions.csv").is_file()


def pinball(summary: dict[str, Any]) -> bool:
    """That of a calibrated Gaussian is σ φ(Φ⁻¹(0.9)) = 0.1755 σ; beside it the usual figures are there."""
    figures = at(summary, "metrics.train")
    other = at(summary_of(Path("other")), "metrics.train")
    assert abs(other["mse"] - other["rmse"] ** 2) < 1e-6 * other["mse"]
    return abs(figures["pinball"] / (0.1755 * figures["rmse"]) - 1) < 0.1 and "crps" in figures


def signs(summary: dict[str, Any]) -> bool:
    """The optimiser descends, and the logger has a line for each evaluation, the first before training."""
    nll, null = (at(summary, f"{who}.train.nll_nats") for who in ("metrics", "null"))
    return nll < null and len(Path("run/figures.jsonl").read_text(encoding="utf-8").splitlines()) >= 9


def shapes(summary: dict[str, Any]) -> bool:
    """The network tells squares from discs, on the splits that the dataset names."""
    nll, null = (at(summary, f"{who}.test.nll_nats") for who in ("metrics", "null"))
    lines = Path("predictions.csv").read_text(encoding="utf-8").splitlines()
    assert summary["num_rows"] == {"train": 400, "validation": 100, "test": 200} and len(lines) == 201
    return summary["input_shape"] == [1, 16, 16] and nll < 0.75 * null


def whitened(summary: dict[str, Any]) -> bool:
    """A map as wide as the features, and predictions from a checkpoint that has it."""
    nll, null = (at(summary, f"{who}.train.nll_nats") for who in ("metrics", "null"))
    same = summary["inputs"] == {"method": "whitened", "num_inputs": 10}
    return nll < null and same and Path("predictions.csv").is_file()


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "head": gumbel,
    "prior": lambda s: s["prior"] == "logistic" and abs(at(s, "distance.excess_objective")) < 1e-9,
    "loss": lambda s: s["loss"].startswith("forgiving") and at(s, "metrics.train.nll_nats") < 0.3,
    "average": lambda s: at(s, "metrics.train.nll_nats") < at(s, "null.train.nll_nats") and s["num_epochs"] == 12,
    "batch": lambda s: s["num_steps"] == 3 * s["num_epochs"],
    "baseline": lambda s: at(s, "baseline.solver") == "QR" and at(s, "baseline.residual") < 1e-12,
    "calibrate": shift,
    "cv": lambda s: (
        s["num_rows"]["test"] == 89 and json.loads(Path("cv/cv.json").read_text("utf-8"))["num_rows"] == 442
    ),
    "ensemble": lambda s: (
        s["ensemble"]["num_finished"] == 3
        and "disagreement_nats" in Path("predictions.csv").read_text("utf-8").splitlines()[0]
        and [summary_of(Path(f"run/members/{k}"))["num_parameters"] for k in range(3)] == [98, 170, 242]
    ),
    "callback": lambda s: s["num_epochs"] < 8,
    "data": lambda s: s["num_features"] == 4 and len(Path("predictions.csv").read_text("utf-8").splitlines()) == 301,
    "experiment": lambda s: at(s, "values.mean_1000") > 0.5 and at(s, "values.median_1000") < 0.1,
    "metric": pinball,
    "by_target": signs,
    "testing": lambda s: s["head"] == "waiting" and at(s, "baseline.is_global") is True,
    "uncertainty": lambda s: abs(at(s, "weight_noise.test.nll_nats") - at(s, "metrics.test.nll_nats")) < 0.1,
    "images": shapes,
    "inputs": whitened,
    "augment": lambda s: s["augment"] == "cutout(side=2)",
    "model": lambda s: s["num_parameters"] == 102 and at(s, "distance.head_refit_gap") > 0,
}


def test_every_page_has_an_example_that_is_checked() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"index"} == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_example_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titled = {
        found[1]: text for info, text in blocks(PAGES / f"{name}.md") if (found := re.search('title="(.*)"', info))
    }
    lines = commands(titled.pop("command line"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLEFW_PLUGINS", "")
    for file, text in titled.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(file).stem, raising=False)
    for program, *arguments in lines:
        if program == "python":
            # Python looks for modules beside the file first.
            with monkeypatch.context() as beside:
                beside.syspath_prepend(tmp_path)
                runpy.run_path(*arguments)
        else:
            execute(*arguments)
    assert CHECKS[name](summary_of(Path("run")))
