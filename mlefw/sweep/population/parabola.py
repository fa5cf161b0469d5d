"""The smooth part of a penalty, which is a parabola in each weight: what it is at zero, and how it bends."""

import torch

from mlefw.objective.objective import Objective


def constant(objective: Objective) -> float:
    """The smooth part of the penalty per observation where all weights are zero."""
    parts = (objective.prior.smooth_part(torch.zeros_like(w)).detach().cpu() for w in objective.weights())
    return float(sum(parts, start=torch.zeros(()))) / objective.population


def curvature(objective: Objective) -> float:
    """The second derivative of the smooth part of the penalty per observation, which is a parabola in each weight."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    part = objective.prior.smooth_part(w)
    if not part.requires_grad:
        return 0.0
    return float(torch.autograd.grad(part, w)[0]) / objective.population
