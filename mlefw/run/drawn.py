"""The pictures of a trained model as figures: drawn anew, of its own rows or others, or as its run has stored them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from mlefw.callback.figures import read_history
from mlefw.configuration.settings import TableSettings
from mlefw.errors import UsageError
from mlefw.objective.objective import evaluate, whole_eta
from mlefw.plot.style import Sheet
from mlefw.report.forecast import Sample, forecast
from mlefw.report.page import Section
from mlefw.report.pictures import predictive_shapes
from mlefw.report.references import REFERENCES
from mlefw.rows.clustered import Units
from mlefw.rows.fingerprint import fingerprint
from mlefw.rows.rows import Rows
from mlefw.run import archive, exhibit, exhibit_arrays
from mlefw.run.checkpoint import Trained
from mlefw.run.evaluated_arrays import of_rows
from mlefw.run.new_data import read_table
from mlefw.run.unit_scores import UnitScores
from mlefw.score import recalibration
from mlefw.score.figures import figures_on
from mlefw.system.atomic import Json

CALIBRATION = ("reliability", "pit")
"""The pictures that `calibration` stands for: of classes, and of numbers."""
PREDICTIVE = (*CALIBRATION, "coverage", "predictions", "residuals")
"""Pictures of a sample of rows."""
OF_ARRAYS = ("confusion", "nll_by_position", "hardest", "sample")
"""Pictures of all rows of a split, where rows are arrays."""
TRAINING = ("learning_curves", "gap")
"""Pictures of the figures in `metrics.csv`."""


FROM_PYTHON = ("frame", "arrays", "strings")
"""Sources whose rows a program hands over, so that no file has them."""

Found = Mapping[str, Figure | Section]
"""Figures by name, and sections of text, which are no figures."""


def picture(trained: Trained, folder: Path, name: str, summary: Json, is_offered: bool) -> Figure:
    """A picture of a run: drawn anew where its files and rows are there, else as the run has stored it.

    Args:
        trained: the model.
        folder: the directory of the run.
        name: the picture, or `calibration`.
        summary: the content of `summary.json`; empty where there is none.
        is_offered: whether the program offers the rows of the run.

    Raises:
        UsageError: there is no such picture, or the rows cannot be read or are not those of the run.
    """
    found: Found = {}
    is_of_rows = name in (*PREDICTIVE, *OF_ARRAYS, "calibration")
    has_rows = is_offered or trained.config.choice("data") not in FROM_PYTHON
    if name in TRAINING and "num_epochs" in summary:
        found = of_training(folder, summary)
    elif is_of_rows and summary and has_rows:
        found = of_own_rows(trained, name, summary)
    names = CALIBRATION if name == "calibration" else (name,)
    chosen = _chosen(found, name) or next((one for one in (stored(folder, known) for known in names) if one), None)
    if chosen is None:
        known = sorted({"calibration", *found, *names_of(folder)} - {name})
        if is_of_rows and not has_rows:
            raise UsageError(
                f"there is no picture {name!r} of this run, which has stored none, and whose rows came from Python"
                "\n  expected the rows: plot(name, data)"
            )
        raise UsageError(f"there is no picture {name!r} of this run\n  expected one of: {', '.join(known)}")
    return chosen


def of_new_rows(trained: Trained, name: str, rows: Rows) -> Figure:
    """A picture of the predictions on other rows than those of the run.

    Raises:
        UsageError: there is no such picture of rows.
    """
    known = ("calibration", *PREDICTIVE, *(() if trained.schema.row_shape.is_table else OF_ARRAYS[:-1]))
    found = _of_new_rows(trained, name, rows) if name in known else {}
    chosen = _chosen(found, name)
    if chosen is None:
        drawn = ["calibration", *found] if found else known
        raise UsageError(f"there is no picture {name!r} of such rows\n  expected one of: {', '.join(drawn)}")
    return chosen


def _chosen(found: Found, name: str) -> Figure | None:
    names = CALIBRATION if name == "calibration" else (name,)
    return next((figure for one in names if isinstance(figure := found.get(one), Figure)), None)


def of_training(folder: Path, summary: Json) -> dict[str, Figure]:
    """The pictures of a training over epochs, by name, from the files of its run; none where there are no such files.

    Args:
        folder: the directory of the run.
        summary: the content of its `summary.json`.
    """
    history = read_history(folder / "metrics.csv")
    first = history[0] if history else {}
    lines = {
        name: {split: first[key] for split in summary["metrics"] if (key := f"{name}/{split}/nll_nats") in first}
        for name in ("null", *REFERENCES)
    }
    distance = summary.get("distance", {})
    # As in a run: errors are of the model after a recalibration, and the curves of the one before it.
    errors = {} if "calibration" in summary else distance.get("gap_se", {})
    known = {name: nats for name, nats in lines.items() if nats}
    return exhibit.curves(history, known, distance.get("reference"), summary["best_epoch"], errors, summary)


def of_own_rows(trained: Trained, name: str, summary: Json) -> dict[str, Figure | Section]:
    """The pictures of predictions on the rows of the run, as the run has drawn them, by name.

    Args:
        trained: the model; its rows are read from their source again, or are offered by the program.
        name: the picture that is wanted, which decides on the split.
        summary: the content of `summary.json`.

    Raises:
        UsageError: the rows cannot be read, or are not those of the run.
    """
    schema = trained.schema
    if name == "sample":
        return {**exhibit_arrays.sample(trained.objective, schema, int(summary["seed"]))}
    splits = [split for split, number in summary["num_rows"].items() if number]
    is_of_arrays = name in OF_ARRAYS
    held = "test" if is_of_arrays else recalibration.FITTED_ON
    if "calibration" in summary and "test" in splits:
        held = "test"
    split = next(one for one in (held, "validation" if is_of_arrays else "test", "train") if one in splits)
    table, index = read_table(trained, TableSettings(), split)
    table = table.take(index)
    rows, scores = trained.rows(table), UnitScores(trained)
    stated = archive.read(trained.path)["mlefw"].get("fingerprint", {}) if trained.path.is_file() else {}
    if split in stated and stated[split] != fingerprint(rows):
        raise UsageError(f"the {split} rows have changed since the run\n  expected: its rows, or others as data")
    if is_of_arrays:
        evaluation = evaluate(trained.objective, rows)
        return exhibit_arrays.pictures(trained.objective, evaluation, rows, schema, split, summary)
    code = scores.codes(table)
    units = {} if code is None else {split: scores.tally.units(code, rows.row_weight)}
    sample = _sample(trained, {split: rows}, units)
    if "calibration" in summary and split == recalibration.FITTED_ON:
        sample = replace(sample, description=sample.description.replace(")", ", recalibrated on them)"))
    return _of_sample(trained, sample, summary["metrics"][split])


def _of_new_rows(trained: Trained, name: str, rows: Rows) -> dict[str, Figure | Section]:
    """The pictures of predictions on rows that are given, by name; `name` is the one that is wanted."""
    figures = figures_on(trained.objective, evaluate(trained.objective, rows), rows, trained.metrics())
    if name in OF_ARRAYS:
        content = {"num_rows": rows.num_rows, "num_observations": rows.population, "nll_se_unit": "rows"}
        shape = {"observation": trained.schema.row_shape.observation, "metrics": figures}
        return of_rows(trained, rows, content | shape)
    sample = _sample(trained, {"test": rows}, {})
    sample = replace(sample, description=sample.description.removeprefix("test "))
    return _of_sample(trained, sample, figures)


def stored(folder: Path, name: str) -> Figure | None:
    """A picture that a run has written, in a figure of its size; None where there is none of this name."""
    file = folder / "plots" / f"{name}.png"
    if name not in names_of(folder):
        return None
    pixels = imread(file)
    figure = Sheet(figsize=(pixels.shape[1] / 100, pixels.shape[0] / 100), dpi=100)
    figure.figimage(pixels)
    return figure


def names_of(folder: Path) -> list[str]:
    """The names of the pictures that a run has written."""
    return sorted(file.stem for file in (folder / "plots").glob("*.png"))


def _sample(trained: Trained, splits: Mapping[str, Rows], units: Mapping[str, Units]) -> Sample:
    schema = trained.schema
    return Sample.of(splits, schema.target, schema.labels, schema.row_shape, units)


@torch.no_grad()
def _of_sample(trained: Trained, sample: Sample, figures: Mapping[str, Any]) -> dict[str, Figure | Section]:
    seen = forecast(trained.objective, whole_eta(trained.objective, sample.rows), sample.rows)
    return {} if seen is None else {**predictive_shapes(sample, seen, figures)}
