"""What a sweep says at its end and `mlefw compare` of it: settings, seeds, the chosen one, pictures, TensorBoard."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, summary_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from mlefw.command import compare
from mlefw.command.candidates import scores_of
from mlefw.errors import UsageError
from mlefw.run import row_scores

GRID = ("model=linear", "optimizer.lr=0.1,0.001", "seed=0,1,2", "trainer.max_epochs=2", "callback=none")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, warm: Any) -> tuple[Path, str]:
    """The directory of a sweep over a learning rate and seeds, and what was printed."""
    import os

    root = tmp_path_factory.mktemp("sweep")
    done = warm.start(("train", "-m", *GRID, "run_dir=s"), root, {**os.environ, "COLUMNS": "200"}).wait()
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "s", done.stdout


def jobs_by_rate(root: Path) -> dict[str, list[Path]]:
    return {rate: sorted(root.glob(f"[0-9]*_optimizer.lr-{rate}_seed-*")) for rate in ("0.1", "0.001")}


def test_runs_that_differ_by_seed_are_one_candidate(swept: tuple[Path, str]) -> None:
    root, _ = swept
    ranked = compare.run([str(root)])
    assert [one["settings"] for one in ranked] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.001}]
    for one, runs in zip(ranked, jobs_by_rate(root).values(), strict=True):
        nll = {run: summary_of(run)["metrics"]["validation"]["nll_nats"] for run in runs}
        values = np.array(list(nll.values()))
        assert one["ranked_by"] == "validation"
        assert one["metrics"]["validation"]["nll_nats"] == pytest.approx(values.mean(), rel=1e-12)
        assert one["seeds"]["nll_se"] == pytest.approx(values.std(ddof=1) / 3**0.5, rel=1e-9)
        assert one["seeds"]["spread"] == pytest.approx(np.ptp(values), rel=1e-9)
        assert Path(one["run_dir"]) == min(nll, key=lambda run: nll[run])
        rows = np.mean([row_scores.read(run, "validation").nll.numpy() for run in runs], axis=0)  # type: ignore[union-attr]
        assert one["metrics"]["validation"]["nll_se"] == pytest.approx(rows.std(ddof=1) / len(rows) ** 0.5, rel=1e-9)
    best, other = (scores_of(one, "validation") for one in ranked)
    assert best is not None
    assert other is not None
    difference = (other.nll - best.nll).numpy()
    assert ranked[1]["behind"] == pytest.approx((difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5))
    assert ranked[0]["selection"]["among"] == 2


def test_it_is_told_with_the_test_rows_of_the_chosen_one_alone(swept: tuple[Path, str]) -> None:
    root, printed = swept
    chosen, other = compare.run([str(root)])
    assert "optimizer.lr" in printed
    assert "± seeds" in printed
    assert "was chosen among 2 by its NLL on validation rows, the mean of 3 runs" in printed
    test, hidden = (f"{one['metrics']['test']['nll_nats']:.4f}" for one in (chosen, other))
    assert f"test rows, which had no part in it, it has {test} ±" in printed
    assert hidden not in printed
    assert re.search(r"its validation NLL is (too low by about|no better)", printed)
    with (root / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"validation"}


def test_it_is_drawn_with_pictures_of_the_best_job(swept: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = swept
    best, _ = compare.run([str(root)])
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "optimizer.lr: the least NLL is at 0.1" in page
    assert f"The best run, {Path(best['run_dir']).name[:3]}" in page
    drawn = {path.parent.parent for path in root.glob("*/plots/*.png")}
    assert drawn == {Path(best["run_dir"])}
    assert page.count("data:image/png") == 2 + len(list(root.glob("*/plots/*.png")))


def test_the_board_has_every_setting(swept: tuple[Path, str]) -> None:
    root, _ = swept
    seen = set()
    for run in root.glob("[0-9]*"):
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
        values = metadata.parse_session_start_info_plugin_data(content).hparams
        seen.add((values["optimizer.lr"].number_value, values["seed"].number_value, values["head"].string_value))
    assert seen == {(rate, seed, "gaussian") for rate in (0.1, 0.001) for seed in (0.0, 1.0, 2.0)}


def test_the_split_can_be_asked_for(swept: tuple[Path, str]) -> None:
    root, _ = swept
    first, *_ = compare.run([str(root)], split="test")
    assert first["ranked_by"] == "test"
    assert "no part" not in " ".join(compare.sentences([first]))
    with pytest.raises(UsageError, match="expected validation, out_of_fold, test or train"):
        compare.run([str(root)], split="tset")


def test_splits_and_lone_runs_of_other_settings(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    few = ("data=csv", f"data.path={table()}", "data.target=y", "model=linear", "trainer.max_epochs=1", "logger=none")
    more = ("report=false", "plots=false", "callback=none")
    done = mlefw("train", "-m", *few, *more, "data.seed=0,1", "prior=l2", "prior.scale=1,0.1", "run_dir=s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "s" / "report.html").exists()
    ranked = compare.run([str(tmp_path / "s")])
    assert [one["seeds"].keys() for one in ranked] == [{"runs", "spread", "nll_se"}] * 2
    # Other rows are not paired with these.
    assert "behind" not in ranked[1]
    assert "selection" not in ranked[0]
    assert {str(one["settings"]) for one in ranked} == {"{'prior.scale': 1}", "{'prior.scale': 0.1}"}
