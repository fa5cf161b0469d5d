"""How far a trained model is from the exact estimate, in nats and in parameters."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.baseline.problem import Problem
from mlefw.model.linear import Linear
from mlefw.objective import Evaluation, Objective
from mlefw.rows import Rows
from mlefw.standardize import Standardized


def gap(model: Evaluation, exact: Evaluation, rows: Rows) -> tuple[float, float]:
    """Mean NLL of the model minus that of the exact estimate, and the paired standard error of that mean."""
    share = rows.weight / rows.weight.sum()
    difference = model.nll - exact.nll
    mean = float(share @ difference)
    count = rows.population
    variance = float(share @ (difference - mean).square())
    return mean, (variance / (count - 1)) ** 0.5 if count > 1 else float("nan")


def skill(model: float, exact: float, null: float, null_error: float) -> float | None:
    """(null − model) / (null − exact): 0 for the null model, 1 for the exact estimate, above 1 beyond it.

    None where the exact estimate is not clearly better than the null model (by twice the standard error of that gain).
    """
    gained = null - exact
    return (null - model) / gained if gained > max(1e-6, 2 * null_error) else None


def predictive_kl(
    model: Objective, exact: Objective, at_model: Tensor, at_exact: Tensor, weight: Tensor
) -> float | None:
    """Mean KL divergence of the model's distributions from the exact estimate's, in nats; None without a formula."""
    try:
        divergence = kl_divergence(exact.head(at_exact), model.head(at_model))
    except NotImplementedError:
        return None
    value = float((weight / weight.sum()) @ divergence)
    return value if value < float("inf") else None


def parameters(objective: Objective, problem: Problem) -> Tensor | None:
    """Theta of a linear model in the layout of a problem over all features; None for any other model."""
    model = objective.model
    linear = model.model if isinstance(model, Standardized) else None
    if not isinstance(linear, Linear):
        return None
    layer = linear.layer
    table = torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1)
    return torch.cat([table.reshape(-1), objective.head.shared]).detach().double().cpu()


def parameter_distance(objective: Objective, solution: Solution) -> dict[str, Any] | None:
    """`euclidean` and `mahalanobis` (in the total information at the estimate) distance of a linear model's theta.

    Where a shift of all eta columns changes nothing (softmax), both thetas are centred over the columns first. The
    Mahalanobis distance squared is to be read against the number of parameters: the truth lies about that far.
    """
    whole = solution.problem.restricted(torch.arange(solution.problem.rows.x.shape[1]))
    theta = parameters(objective, whole)
    if theta is None or not solution.exists or solution.problem.num_active != whole.num_active:
        return None
    weight, bias, shared = full_weight(solution)
    exact = torch.cat([torch.cat([weight, bias.unsqueeze(1)], 1).reshape(-1), shared])
    difference = theta - exact
    if whole.head.reference is not None:
        table = difference[: whole.size - whole.head.shared_dim].view(whole.head.eta_dim, -1)
        shifted = table - table.mean(0) if whole.prior.flat else table
        shifted[:, -1] = table[:, -1] - table[:, -1].mean()
        difference = torch.cat([shifted.reshape(-1), difference[table.numel() :]])
    hessian = whole.derivatives(exact).hessian
    try:
        # Where the observed information is degenerate (least absolute deviations) the expected one measures.
        if float(torch.linalg.eigvalsh(hessian).min()) <= 0 and whole.head.reference is None:
            hessian = whole.derivatives(exact, expected=True).hessian
    except NotImplementedError:
        pass
    squared = float(difference @ hessian @ difference) * whole.population
    return {"euclidean": float(difference.norm()), "mahalanobis": max(squared, 0.0) ** 0.5}
