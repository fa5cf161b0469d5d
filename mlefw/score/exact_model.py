"""Exact estimates as models that can be evaluated on rows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.baseline.ngram.ngram import Ngram
from mlefw.baseline.ngram.scores import pair_nll, score, token_nll
from mlefw.baseline.predictor import as_objective
from mlefw.objective.objective import Evaluation, Objective, etas, evaluate
from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows
from mlefw.system.atomic import Json

ExactModel = Objective | Ngram
"""A linear model with the head of the run, or a table of the next token."""


def model_of(solution: Solution | NgramEstimate, objective: Objective) -> ExactModel:
    """The model of an estimate, for the run with this objective."""
    return solution.ngram if isinstance(solution, NgramEstimate) else as_objective(solution, objective)


def evaluate_exact(model: ExactModel, rows: Rows) -> Evaluation:
    """The NLL of every row; of a linear model also eta."""
    if isinstance(model, Objective):
        return evaluate(model, rows)
    found = score(model, rows)
    # A row without an observation has NLL 0, as for a network.
    nll = np.divide(found.nll, found.weight, out=np.zeros(len(found.nll)), where=found.weight > 0)
    return Evaluation(None, torch.from_numpy(nll))


def position_nll(model: ExactModel, rows: Rows, eta: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The NLL of each position in nats, and its weight, both (b, *positions), for consecutive blocks of rows.

    Args:
        model: the model.
        rows: rows with positions.
        eta: theirs under a linear model or network, (n, *positions, eta_dim), if known.
    """
    if isinstance(model, Objective):
        for part, one in etas(model, rows, eta):
            yield model.head.nll(one, part.y).double(), part.weight
    else:
        blocks = token_nll(model, rows) if isinstance(rows, TokenRows) else pair_nll(model, rows)
        for nll, weight in blocks:
            yield torch.from_numpy(nll), torch.from_numpy(weight)


def of_absent(solution: Solution | NgramEstimate | None, rows: Rows) -> Json:
    """The figures on rows of a table whose logits are not finite; empty for any other estimate.

    They are `nll_nats`; or `unseen`, number and share of tokens of probability zero, for which it is infinite.
    """
    if not isinstance(solution, NgramEstimate) or solution.exists:
        return {}
    return dict(score(solution.ngram, rows).figures())
