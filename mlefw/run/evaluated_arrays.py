"""What `mlefw evaluate plots=` shows of rows that are arrays: by class, by position, and the hardest rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from mlefw.objective.objective import evaluate
from mlefw.report.page import Section
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows
from mlefw.run import exhibit_arrays
from mlefw.run.checkpoint import Trained
from mlefw.run.exhibit import Exhibit, as_exhibits
from mlefw.run.stored_estimates import EstimateTally
from mlefw.score.exact_model import ExactModel


def of_new_arrays(
    trained: Trained, blocks: Sequence[Rows], content: Mapping[str, Any], estimates: EstimateTally | None
) -> list[Exhibit]:
    """The pictures of evaluated rows; empty for rows of a table.

    Args:
        trained: the model.
        blocks: all rows that were evaluated.
        content: the content of the output file of the evaluation.
        estimates: the exact estimates of the run, if stored.
    """
    if trained.schema.row_shape.is_table or not blocks:
        return []
    return as_exhibits(of_rows(trained, _joined(blocks), content, estimates))


def of_rows(
    trained: Trained, rows: Rows, content: Mapping[str, Any], estimates: EstimateTally | None = None
) -> dict[str, Figure | Section]:
    """The pictures of evaluated rows that are arrays, and sections of text, by name; arguments as `of_new_arrays`."""
    schema, final, split = trained.schema, trained.objective, content.get("split", "new")
    evaluation = evaluate(final, rows)
    summary: dict[str, Any] = {**content, "model": trained.config.choice("model")}
    for name in ("num_rows", "num_observations", "nll_se_unit", "metrics"):
        summary[name] = {split: content[name]}
    models: dict[str, ExactModel] = {"model": final}
    known = {} if estimates is None else estimates.models
    models |= {name: known[name] for name in ("null", estimates and estimates.reference) if name in known}
    summary |= exhibit_arrays.nll_at_positions(schema, rows, split, models, evaluation.eta)
    return exhibit_arrays.pictures(final, evaluation, rows, schema, split, summary)


def _joined(blocks: Sequence[Rows]) -> Rows:
    """All rows of some blocks, (n, …); the windows of a text share its stream."""
    first = blocks[0]
    if isinstance(first, TokenRows):
        return first.joined([block for block in blocks[1:] if isinstance(block, TokenRows)])
    return Rows(*(torch.cat(column) for column in zip(*blocks, strict=True)))
