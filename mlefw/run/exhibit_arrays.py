"""What a run on arrays shows beside the pictures that every run has: by class, by position, and the hardest rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

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
from mlefw.schema.kinds import RowSchema
from mlefw.schema.tokens import TokenSchema
from mlefw.score.breakdown import class_counts, nll_by_position
from mlefw.score.exact_model import ExactModel
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
    """`nll_by_position` of `summary.json`, of the rows that are shown (see `nll_at_positions`).

    Args:
        final: the model that forecasts.
        evaluations: the model on each split.
        data: the rows.
        yardstick: the exact estimates.
    """
    split, reference = shown_split(data.splits), yardstick.exact.reference
    models: dict[str, ExactModel] = {"model": final, "null": yardstick.null}
    if reference is not None and yardstick.reference is not None:
        models[reference[0]] = yardstick.reference
    return nll_at_positions(data.schema, data.splits[split], split, models, evaluations[split].eta)


def nll_at_positions(
    schema: RowSchema, rows: Rows, split: str, models: Mapping[str, ExactModel], eta: Tensor | None = None
) -> Json:
    """The NLL at each position of rows, as `nll_by_position`; empty where rows have no or too many positions.

    Lists of the mean NLL in nats of each model, with null where no row observes the position.

    Args:
        schema: what rows are.
        rows: the rows.
        split: name of their split.
        models: by name `model`, `null` and the exact estimate that gaps are measured from.
        eta: eta of the rows under `model`, if known.
    """
    positions = schema.row_shape.positions
    if len(positions) != 1 or not 1 < positions[0] <= MOST_POSITIONS:
        return {}
    found = {name: nll_by_position(one, rows, eta if name == "model" else None) for name, one in models.items()}
    listed = {name: [v if np.isfinite(v) else None for v in values.tolist()] for name, values in found.items()}
    return {"nll_by_position": {"split": split, **listed}}


def pictures(
    final: Objective, evaluation: Evaluation, rows: Rows, schema: RowSchema, split: str, summary: Mapping[str, Any]
) -> dict[str, Figure | Section]:
    """Pictures, and sections of text, by name.

    Args:
        final: the model that forecasts.
        evaluation: the model on the rows.
        rows: the rows.
        schema: what rows are.
        split: name of their split.
        summary: as the content of `summary.json`.
    """
    found: dict[str, Figure | Section] = {}
    what = f"{'training' if split == 'train' else split}: {', '.join(sizes(summary, split))}"
    if schema.labels is not None and len(schema.labels) <= MAX_CLASSES:
        count = class_counts(final, rows, len(schema.labels), evaluation.eta)
        if count is not None:
            found["confusion"] = confusion(count, schema.labels, what)
    if "nll_by_position" in summary:
        found["nll_by_position"] = _lines(summary, split, what)
    view = next((view for view in VIEWS if view.suits(schema)), None)
    hard = None if view is None else hardest(final, evaluation.nll, rows, split, view.most)
    if view is not None and hard is not None:
        shown = view.show(hard, schema)
        found[view.name] = Section(view.title, text=shown, open=True) if isinstance(shown, str) else shown
    return found


def sample(final: Objective, schema: RowSchema, seed: int) -> dict[str, Section | Figure]:
    """A text, or images, that the model draws, by name; empty where it forecasts neither.

    Of a large model of text there are fewer tokens, so that it takes some seconds at most.
    """
    # A plugin may take whole rows alone, and drawing gives it the beginning of a row.
    images = attempt(
        "images drawn from the model", lambda: shown_sample(final, schema, generator(seed, "sample")), None
    )
    if images is not None:
        return {"sample": images}
    if not isinstance(schema, TokenSchema) or schema.tokens == "ids":
        return {}
    size = sum(weight.numel() for weight in final.model.parameters()) * schema.length
    length = max(50, min(SAMPLE_TOKENS, SAMPLE_WORK // max(1, size)))
    drawn = text_sample(final, schema, length, seed=seed)
    text = drawn if isinstance(drawn, str) else bytes(drawn).decode("utf-8", "replace")
    word = "characters" if schema.tokens == "chars" else "bytes"
    note = f"{length} {word} that the model draws one after another, seed {seed}, without a prompt"
    return {"sample": Section("A sample of text", text=escaped(text), note=note, open=True)}


def _lines(summary: Mapping[str, Any], split: str, what: str) -> Figure:
    """The picture of the NLL by position."""
    known = summary["nll_by_position"]
    names = exact_names(summary)
    words = {"model": model_name(summary, split)} | {name: names[key] for name, key in KEYS.items() if name in known}
    lines = {text: np.array(known[name], dtype=float) for name, text in words.items()}
    mean = float(summary["metrics"][split].get("nll_nats", np.nan))
    return picture_by_position(lines, mean, what, observation(summary))
