"""One figure has one value, wherever it stands: terminal, report, pictures, summary, evaluation."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import summary_of
from pyarrow import csv

from mlefw.cli import run
from mlefw.system.number_format import number, percent

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

KINDS = ("gaussian", "poisson", "bernoulli", "categorical")


def cells(page: str) -> dict[str, list[list[str]]]:
    """The rows of all tables of a report by their first cell."""
    found: dict[str, list[list[str]]] = {}
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL):
        name, *values = [
            re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)
        ]
        found.setdefault(name, []).append(values)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_has_the_same_number(
    kind: str,
    table: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = table(kind, 240)
    if kind == "poisson":
        # Overdispersed, so that counting points in closed intervals tells another coverage than the PIT.
        random = np.random.default_rng(1)
        x = random.normal(size=(240, 2))
        csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1], "y": random.poisson(random.gamma(0.5, 2, 240))}), file)
    data = ("data=csv", f"data.path={file}", "data.target=y", f"head={kind}")
    assert run(["train", *data, "model.hidden=[8]", "trainer.max_epochs=5", "run_dir=r", "seed=1"]) == 0
    out = capfd.readouterr().out
    summary: dict[str, Any] = summary_of(tmp_path / "r")
    figures = summary["metrics"]

    printed = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:-1]]
        for line in out.splitlines()
        if "│" in line
    }
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    shown = cells(page)
    for name in {name for values in figures.values() for name in values} - {"nll_nats", "nll_bits", "nll_se"}:
        expected = [number(figures[split].get(name)) for split in figures]
        assert shown[name] == [expected]
        assert printed.get(name, expected) == expected
    for split in figures:
        position = list(figures).index(split)
        nats = number(figures[split]["nll_nats"])
        assert printed["mlp, nats per row"][position] == nats
        assert shown["mlp, nats per row"][0][position] == nats
        gap = summary["distance"]["gap_nats"].get(split)
        assert printed["minus linear MLE"][position].startswith(number(gap, sign=True))
        assert shown["minus the exact estimate"][0][position] == number(gap, sign=True)
    accuracies = [name for name in printed if name == "accuracy"]
    assert len(accuracies) == (kind in ("bernoulli", "categorical"))

    # Whatever is said of the 90 % interval, in the verdict or above a picture, is the figure of a split.
    words = re.findall(r"90 % intervals? cover (\d+(?:\.\d+)? %)", page + out)
    assert (len(words) >= 2) == (kind in ("gaussian", "poisson"))
    covered = {percent(values["coverage_90"]) for values in figures.values() if "coverage_90" in values}
    assert set(words) <= covered
    titles = [title for title in re.findall(r"<h3>(.*?)</h3>", page) if "intervals" in title]
    assert {re.findall(r"(\d+(?:\.\d+)? %)", title.replace("90 % intervals", ""))[0] for title in titles} <= (
        {percent(figures["validation"]["coverage_90"])} if titles else set()
    )

    for split in ("validation", "test"):
        assert run(["evaluate", "run=r", f"split={split}", "output=e.json", "overwrite=true", f"plots={split}"]) == 0
        again = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
        assert again["metrics"] == pytest.approx(figures[split], rel=1e-6, abs=1e-9)
        lines = dict(line.split() for line in capfd.readouterr().out.splitlines() if re.fullmatch(r"  \w+ +\S+", line))
        assert {name: lines[name] for name in again["metrics"]} == {
            name: number(value) for name, value in again["metrics"].items()
        }
