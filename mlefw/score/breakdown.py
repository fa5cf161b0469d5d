"""The NLL of a model by position, and its forecasts by class: what a mean over all observations does not show."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from mlefw.objective.objective import Objective, etas
from mlefw.rows.rows import Rows
from mlefw.score.exact_model import ExactModel, position_nll


@torch.no_grad()
def nll_by_position(model: ExactModel, rows: Rows, eta: Tensor | None = None) -> np.ndarray:
    """The mean NLL over rows at each position, (*positions,) in nats; NaN at one that no row observes.

    Args:
        model: a network, or a table of the next token.
        rows: rows with positions.
        eta: theirs under a network, (n, *positions, eta_dim), if known.
    """
    total = whole = torch.zeros((), dtype=torch.float64)
    for nll, weight in position_nll(model, rows, eta):
        total = total + torch.where(weight > 0, weight * nll, 0.0).sum(0).cpu()
        whole = whole + weight.sum(0).cpu()
    return np.asarray((total / whole).numpy())


@torch.no_grad()
def class_counts(objective: Objective, rows: Rows, num_classes: int, eta: Tensor | None = None) -> np.ndarray | None:
    """Σ w of observations by observed class and by the likeliest forecast class, (K, K).

    None if forecasts are no probabilities of classes. Of classes that are equally likely the first one counts.

    Args:
        objective: the model.
        rows: the rows.
        num_classes: number of classes K.
        eta: eta of the rows, (n, *positions, eta_dim), if known.
    """
    count = torch.zeros(num_classes * num_classes, dtype=torch.float64)
    for part, one in etas(objective, rows, eta):
        flat, y, weight = objective.observations(part, one)
        distribution = objective.head(flat)
        if isinstance(distribution, Categorical):
            forecast = distribution.logits.argmax(-1)
        elif isinstance(distribution, Bernoulli):
            forecast = (distribution.probs > 0.5).long()
        else:
            return None
        cell = y.long() * num_classes + forecast
        seen = weight > 0
        count.index_add_(0, cell[seen].cpu(), weight[seen].double().cpu())
    return np.asarray(count.view(num_classes, num_classes).numpy())
