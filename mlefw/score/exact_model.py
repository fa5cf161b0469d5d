"""Exact estimates as models that can be evaluated on rows."""

import numpy as np
import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.baseline.ngram.ngram import Ngram
from mlefw.baseline.ngram.scores import score
from mlefw.baseline.predictor import as_objective
from mlefw.objective.objective import Evaluation, Objective, evaluate
from mlefw.rows.rows import Rows
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


def unseen(solution: Solution | NgramEstimate | None, rows: Rows) -> Json | None:
    """Number and share of the tokens of rows that a table gives no probability, so that its NLL is infinite."""
    if not isinstance(solution, NgramEstimate) or solution.exists:
        return None
    found = score(solution.ngram, rows).figures().get("unseen")
    return dict(found) if isinstance(found, dict) else None
