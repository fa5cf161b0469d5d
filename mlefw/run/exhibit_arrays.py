"""What a run on arrays shows beside the pictures that every run has: by class, by position, and the hardest rows."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlefw.objective.objective import Evaluation, Objective
from mlefw.plot.by_position import nll_by_position as picture_by_position
from mlefw.plot.confusion import MAX_CLASSES, confusion
from mlefw.report.hardest import View, hardest
from mlefw.report.hardest_images import VIEW as IMAGES
from mlefw.report.hardest_text import VIEW as PASSAGES
from mlefw.report.observation import observation, sizes
from mlefw.report.page import Section
from mlefw.report.references import KEYS, exact_names
from mlefw.report.sentences import model_name
from mlefw.rows.rows import Rows
from mlefw.run.build import Data
from mlefw.run.sample_pixels import shown_sample
from mlefw.run.text_sample import text_sample
from mlefw.schema.tokens import TokenSchema
from mlefw.score.breakdown import class_counts, nll_by_position
from mlefw.score.yardstick import Yardstick
from mlefw.system.atomic import Json
from mlefw.system.attempt import attempt
from mlefw.system.inert_text import escaped
from mlefw.system.random_state import generator

VIEWS: tuple[View, ...] = (IMAGES, PASSAGES)
"""The ways to show the hardest rows; the first one that suits the rows is taken."""

SAMPLE_TOKENS = 500
"""Most tokens of the sample in a report."""

SAMPLE_WORK = 10**11
"""Most products of parameters, positions and tokens of the sample in a report: some ten seconds of a processor."""

MOST_POSITIONS = 4096
"""Most positions whose NLL is kept one by one."""


def shown_split(splits: Mapping[str, Rows]) -> str:
    """The split that is shown: test rows, else validation rows, else training rows."""
    return next(split for split in ("test", "validation", "train") if split in splits)


def by_position(final: Objective, evaluations: Mapping[str, Evaluation], data: Data, yardstick: Yardstick) -> Json:
    """`nll_by_position` of `summary.json`: the NLL at each position of the rows that are shown; else empty.

    Lists of the mean NLL in nats of the `model`, the `null` model and the exact estimate that gaps are measured from,
    with null where no row observes the position.

    Args:
        final: the model that forecasts.
        evaluations: the model on each split.
        data: the rows.
        yardstick: the exact estimates.
    """
    positions = data.schema.row_shape.positions
    if len(positions) != 1 or not 1 < positions[0] <= MOST_POSITIONS:
        return {}
    split = shown_split(data.splits)
    rows, reference = data.splits[split], yardstick.exact.reference
    found = {"model": nll_by_position(final, rows, evaluations[split].eta)}
    found["null"] = nll_by_position(yardstick.null, rows)
    if reference is not None and yardstick.reference is not None:
        found[reference[0]] = nll_by_position(yardstick.reference, rows)
    listed = {name: [v if np.isfinite(v) else None for v in values.tolist()] for name, values in found.items()}
    return {"nll_by_position": {"split": split, **listed}}


def pictures(
    final: Objective, evaluations: Mapping[str, Evaluation], data: Data, summary: Mapping[str, Any]
) -> dict[str, Figure | Section]:
    """Pictures, and sections of text, by name.

    Args:
        final: the model that forecasts.
        evaluations: the model on each split.
        data: the rows.
        summary: the content of `summary.json`.
    """
    split = shown_split(data.splits)
    rows, evaluation = data.splits[split], evaluations[split]
    found: dict[str, Figure | Section] = {}
    what = f"{'training' if split == 'train' else split}: {', '.join(sizes(summary, split))}"
    if data.schema.labels is not None and len(data.schema.labels) <= MAX_CLASSES:
        count = class_counts(final, rows, len(data.schema.labels), evaluation.eta)
        if count is not None:
            found["confusion"] = confusion(count, data.schema.labels, what)
    if "nll_by_position" in summary:
        found["nll_by_position"] = _lines(summary, split, what)
    draw = partial(shown_sample, final, data.schema, generator(int(summary["seed"]), "sample"))
    # A plugin may take whole rows alone, and drawing gives it the beginning of a row.
    sample = attempt("images drawn from the model", draw, None)
    if sample is not None:
        found["sample"] = sample
    view = next((view for view in VIEWS if view.suits(data.schema)), None)
    hard = None if view is None else hardest(final, evaluation.nll, rows, split, view.most)
    if view is not None and hard is not None:
        shown = view.show(hard, data.schema)
        found[view.name] = Section(view.title, text=shown, open=True) if isinstance(shown, str) else shown
    if isinstance(data.schema, TokenSchema) and data.schema.tokens != "ids":
        found["sample"] = _sample(final, data.schema, int(summary["seed"]))
    return found


def _sample(final: Objective, schema: TokenSchema, seed: int) -> Section:
    """A text that the model draws: fewer tokens of a large model, so that it takes some seconds at most."""
    size = sum(weight.numel() for weight in final.model.parameters()) * schema.length
    length = max(50, min(SAMPLE_TOKENS, SAMPLE_WORK // max(1, size)))
    drawn = text_sample(final, schema, length, seed=seed)
    text = drawn if isinstance(drawn, str) else bytes(drawn).decode("utf-8", "replace")
    word = "characters" if schema.tokens == "chars" else "bytes"
    note = f"{length} {word} that the model draws one after another, seed {seed}, without a prompt"
    return Section("A sample of text", text=escaped(text), note=note, open=True)


def _lines(summary: Mapping[str, Any], split: str, what: str) -> Figure:
    """The picture of the NLL by position."""
    known = summary["nll_by_position"]
    names = exact_names(summary)
    words = {"model": model_name(summary, split)} | {name: names[key] for name, key in KEYS.items() if name in known}
    lines = {text: np.array(known[name], dtype=float) for name, text in words.items()}
    mean = float(summary["metrics"][split].get("nll_nats", np.nan))
    return picture_by_position(lines, mean, what, observation(summary))
