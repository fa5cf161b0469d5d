"""Distances between a trained model and the exact estimate, in nats and in parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.baseline.problem import Problem
from mlefw.distribution.reference import chi2_quantile
from mlefw.model.linear import Linear
from mlefw.objective.linear_terms import TermsModel
from mlefw.objective.objective import Evaluation, Objective, etas
from mlefw.rows.clustered import clustered_mean
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.rows.standardize import Standardized
from mlefw.rows.tensor_inputs import StandardizedChannels

_NEGLIGIBLE = 1e-6
"""Difference of one row, in nats, below which the row is never decisive."""

_INFINITE = 1e300
"""Replaces an infinite difference, so that sums are finite."""

_PIECE = 2**18
"""Rows worked on at a time; all rows may exceed the memory."""


def differences(model: Evaluation, exact: Evaluation, rows: Rows) -> Tensor:
    """NLL of the model minus that of the exact estimate, (n,); means over the observations of each row."""
    return torch.sub(
        model.nll, exact.nll, out=rows.new_empty((), torch.promote_types(model.nll.dtype, exact.nll.dtype))
    )


def gap(model: Evaluation, exact: Evaluation, rows: Rows, unit: Tensor | None = None) -> tuple[float, float]:
    """Mean NLL of the model minus that of the exact estimate, in nats, and its paired standard error.

    `unit`: as for `paired`.
    """
    return paired(differences(model, exact, rows), rows.row_weight, bool(rows.positions), unit)


def paired(
    difference: Tensor, weight: Tensor, clustered: bool = False, unit: Tensor | None = None
) -> tuple[float, float]:
    """The weighted mean of differences (n,) between two models on the same rows, and its standard error.

    Weights are frequencies, and each counts as that many independent observations. With `clustered` a row is one
    independent unit of that many observations, whose mean difference is given (see `clustered_mean`).

    Args:
        difference: of each row, (n,).
        weight: of each row, (n,).
        clustered: whether a row is one unit, whatever its weight.
        unit: the independent unit of each row, (n,) int64, where units have several rows.
    """
    if clustered or unit is not None:
        mean, error, _ = clustered_mean(weight * difference, weight, unit)
        return mean, error
    count = float(weight.sum())
    mean = float(weighted_sum(weight, difference)) / count
    parts = zip(weight.split(_PIECE), difference.split(_PIECE), strict=True)
    variance = sum(float(weighted_sum(share, (part - mean).square())) for share, part in parts) / count
    return mean, (variance / (count - 1)) ** 0.5 if count > 1 else float("nan")


class Decisive(NamedTuple):
    """A few rows that account for most of the difference between two models.

    Attributes:
        num_rows: number of decisive rows.
        of: number of all rows.
        mean: mean difference over the other rows, in nats.
        error: standard error of that mean.
    """

    num_rows: int
    of: int
    mean: float
    error: float


def decisive(
    difference: Tensor, weight: Tensor, clustered: bool = False, unit: Tensor | None = None
) -> Decisive | None:
    """The fewest rows that account for 90 % of Σ w |difference|; None if those are not few.

    Few means at most a twentieth of the rows and at most 100. None also for fewer than ten rows.

    Args:
        difference: differences of the NLL of two models, (n,).
        weight: row weights, (n,).
        clustered: as for `paired`.
        unit: as for `paired`.
    """
    counted = int((weight > 0).sum())
    if counted < 10:
        return None
    # Rows whose difference is not finite are always decisive.
    size = (weight * difference.abs()).double().nan_to_num(nan=_INFINITE, posinf=_INFINITE).clamp(max=_INFINITE)
    top = size.topk(min(max(1, counted // 20), 100))
    is_enough = top.values.cumsum(0) >= 0.9 * size.sum()
    if not bool(is_enough[-1]) or not float(top.values[0]) > _NEGLIGIBLE:
        return None
    count = max(int(is_enough.int().argmax()) + 1, int((top.values == _INFINITE).sum()))
    chosen = top.indices[:count]
    rest = torch.ones_like(weight, dtype=torch.bool)
    rest[chosen] = False
    kept = None if unit is None else unit[rest]
    return Decisive(len(chosen), counted, *paired(difference[rest], weight[rest], clustered, kept))


def skill(model: float, exact: float, null: float, null_error: float) -> float | None:
    """(null − model) / (null − exact): 0 for the null model, 1 for the exact estimate, above 1 beyond it.

    None unless the exact estimate is better than the null model by twice the standard error of their difference.
    """
    gained = null - exact
    return (null - model) / gained if gained > max(1e-6, 2 * null_error) else None


ModelEta = tuple[Objective, Tensor | None]
"""A model, and its eta on some rows (n, eta_dim) if known."""


def predictive_kl(model: ModelEta, exact: ModelEta, rows: Rows) -> float | None:
    """Mean divergence KL(exact, model) of the predictive distributions, in nats; None without a formula for it."""
    value, population = 0.0, rows.weight.sum()
    blocks = zip(etas(exact[0], rows, exact[1]), etas(model[0], rows, model[1]), strict=True)
    for (part, one), (_, other) in blocks:
        try:
            divergence = kl_divergence(exact[0].head(one), model[0].head(other.double()))
        except NotImplementedError:
            return None
        value += float(weighted_sum(part.weight, divergence) / population)
    return value if value < float("inf") else None


def is_linear(objective: Objective) -> bool:
    """Whether the model of a run on arrays or tokens is linear in them, or a table of logits by token."""
    return isinstance(getattr(objective.model, "model", None), Linear)


def parameters(objective: Objective, problem: Problem) -> Tensor | None:
    """Theta of a linear model of the features in the layout of a problem over all features; None otherwise."""
    model = objective.model
    # On other inputs the weights are no coefficients of the features.
    is_known = isinstance(model, Standardized | StandardizedChannels) and model.inputs is None
    linear = model.model if is_known else None
    if isinstance(linear, TermsModel) and linear.network is None:
        table = linear.table()
    elif isinstance(linear, Linear):
        table = torch.cat([linear.layer.weight, linear.layer.bias.unsqueeze(1)], 1)
    else:
        return None
    return torch.cat([table.reshape(-1), objective.head.shared]).detach().double().cpu()


Measure = Callable[[Objective], dict[str, float]]
"""Maps a trained linear model to its distances from the exact estimate, by name."""


def parameter_measure(objective: Objective, solution: Solution) -> Measure | None:
    """A function that gives the `euclidean` and `mahalanobis` distance of a model's theta from the exact estimate.

    The Mahalanobis distance is in the metric of the total information at the estimate; its square is about the number
    of parameters for the true theta. The information is computed once, or for very many coefficients its product with
    a difference in each call. Where a common shift of all eta columns changes nothing (softmax), thetas are centred
    over the columns first.

    None unless the model is linear in all features of the estimate.
    """
    whole = solution.problem.restricted(torch.arange(solution.problem.rows.x.shape[1]))
    if not solution.may_exist or solution.problem.num_active != whole.num_active:
        return None
    if parameters(objective, whole) is None:
        return None
    weight, bias, shared = full_weight(solution)
    exact = torch.cat([torch.cat([weight, bias.unsqueeze(1)], 1).reshape(-1), shared])
    information = None if solution.matrix_free else _information(whole, exact)

    def measure(objective: Objective) -> dict[str, float]:
        theta = parameters(objective, whole)
        assert theta is not None
        difference = _identified(theta - exact, whole)
        pulled = whole.curvature_times(exact, difference) if information is None else information @ difference
        squared = float(difference @ pulled) * whole.population
        return {"euclidean": float(difference.norm()), "mahalanobis": max(squared, 0.0) ** 0.5}

    return measure


def parameter_distance(objective: Objective, solution: Solution) -> dict[str, Any] | None:
    """The distances of one model's theta from the exact estimate, by name; None unless the model is linear."""
    measure = parameter_measure(objective, solution)
    return None if measure is None else measure(objective)


def _identified(difference: Tensor, problem: Problem) -> Tensor:
    """A difference of thetas, centred over eta columns whose common shift changes no distribution."""
    if not problem.head.shifts:
        return difference
    table = difference[: problem.size - problem.head.shared_dim].view(problem.head.eta_dim, -1).clone()
    for _, columns in problem.head.shifts:
        group = table[columns]
        start = 0 if problem.prior.flat else -1
        table[columns, start:] = group[:, start:] - group[:, start:].mean(0)
    return torch.cat([table.reshape(-1), difference[table.numel() :]])


def _information(problem: Problem, exact: Tensor) -> Tensor:
    hessian = problem.derivatives(exact).hessian
    try:
        # Absolute deviations have no observed curvature: use the expected information.
        if not problem.head.shifts and float(torch.linalg.eigvalsh(hessian).min()) <= 0:
            hessian = problem.derivatives(exact, expected=True).hessian
    except NotImplementedError:
        pass
    return hessian


def inside_95_region(solution: Solution, gap: float) -> bool:
    """Whether a theta whose NLL exceeds the minimum by `gap`, in nats per row, lies in the 95 % confidence region.

    The region is that of the likelihood-ratio test (Wilks, 1938).
    """
    problem = solution.problem
    return 2 * problem.population * gap <= chi2_quantile(0.95, int(problem.free.sum()))
