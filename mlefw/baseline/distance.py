"""How far a trained model is from the exact estimate, in nats and in parameters."""

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
from mlefw.objective.objective import Evaluation, Objective, etas
from mlefw.rows.rows import Rows, total
from mlefw.rows.standardize import Standardized

_NOTHING = 1e-6
"""Nats of one row that decide nothing, whatever the others have."""

_ENDLESS = 1e300
"""What stands for nats without end, so that their sum is finite."""

_PIECE = 2**18
"""Rows that are looked at together: their number may be beyond memory."""


def differences(model: Evaluation, exact: Evaluation, rows: Rows) -> Tensor:
    """NLL of the model minus that of the exact estimate, (n,)."""
    return torch.sub(model.nll, exact.nll, out=rows.room((), torch.promote_types(model.nll.dtype, exact.nll.dtype)))


def gap(model: Evaluation, exact: Evaluation, rows: Rows) -> tuple[float, float]:
    """Mean NLL of the model minus that of the exact estimate, and the paired standard error of that mean."""
    return paired(differences(model, exact, rows), rows.weight)


def paired(difference: Tensor, weight: Tensor) -> tuple[float, float]:
    """The weighted mean of differences (n,) between two models on the same rows, and its standard error."""
    count = float(weight.sum())
    mean = float(total(weight, difference)) / count
    parts = zip(weight.split(_PIECE), difference.split(_PIECE), strict=True)
    variance = sum(float(total(share, (part - mean).square())) for share, part in parts) / count
    return mean, (variance / (count - 1)) ** 0.5 if count > 1 else float("nan")


class Decisive(NamedTuple):
    """A few rows that carry nearly all of a difference between two models, and what is left of it without them.

    Attributes:
        num_rows: how many.
        of: of how many rows.
        mean: of the others.
        error: its standard error.
    """

    num_rows: int
    of: int
    mean: float
    error: float


def decisive(difference: Tensor, weight: Tensor) -> Decisive | None:
    """The fewest rows that carry 90 % of Σ w |difference|, (n,), where they are a handful; None where no few do.

    A handful are a twentieth of the rows, and 100 at most. Of fewer than ten rows each one decides.
    """
    counted = int((weight > 0).sum())
    if counted < 10:
        return None
    # What is not a finite number says least of all which model is better.
    size = (weight * difference.abs()).double().nan_to_num(nan=_ENDLESS, posinf=_ENDLESS).clamp(max=_ENDLESS)
    top = size.topk(min(max(1, counted // 20), 100))
    is_enough = top.values.cumsum(0) >= 0.9 * size.sum()
    if not bool(is_enough[-1]) or not float(top.values[0]) > _NOTHING:
        return None
    count = max(int(is_enough.int().argmax()) + 1, int((top.values == _ENDLESS).sum()))
    chosen = top.indices[:count]
    rest = torch.ones_like(weight, dtype=torch.bool)
    rest[chosen] = False
    return Decisive(len(chosen), counted, *paired(difference[rest], weight[rest]))


def skill(model: float, exact: float, null: float, null_error: float) -> float | None:
    """(null − model) / (null − exact): 0 for the null model, 1 for the exact estimate, above 1 beyond it.

    None where the exact estimate is not clearly better than the null model (by twice the standard error of that gain).
    """
    gained = null - exact
    return (null - model) / gained if gained > max(1e-6, 2 * null_error) else None


Seen = tuple[Objective, Tensor | None]
"""A model and its eta on some rows, where that is known."""


def predictive_kl(model: Seen, exact: Seen, rows: Rows) -> float | None:
    """Mean KL divergence of the model's distributions from the exact estimate's, in nats; None without a formula."""
    value, population = 0.0, rows.weight.sum()
    blocks = zip(etas(exact[0], rows, exact[1]), etas(model[0], rows, model[1]), strict=True)
    for (part, one), (_, other) in blocks:
        try:
            divergence = kl_divergence(exact[0].head(one), model[0].head(other.double()))
        except NotImplementedError:
            return None
        value += float(total(part.weight, divergence) / population)
    return value if value < float("inf") else None


def parameters(objective: Objective, problem: Problem) -> Tensor | None:
    """Theta of a linear model of the features in the layout of a problem over all features; None otherwise."""
    model = objective.model
    # On other inputs the weights are no coefficients of the features.
    linear = model.model if isinstance(model, Standardized) and model.inputs is None else None
    if not isinstance(linear, Linear):
        return None
    layer = linear.layer
    table = torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1)
    return torch.cat([table.reshape(-1), objective.head.shared]).detach().double().cpu()


Measure = Callable[[Objective], dict[str, float]]


def parameter_measure(objective: Objective, solution: Solution) -> Measure | None:
    """What gives the `euclidean` and `mahalanobis` (in the total information at the estimate) distance of theta.

    None for any model but a linear one on the features of the estimate. The information is computed once, here,
    or, of very many coefficients, its product with a difference each time.

    Where a shift of all eta columns changes nothing (softmax), both thetas are centred over the columns first. The
    Mahalanobis distance squared is to be read against the number of parameters: the truth lies about that far.
    """
    whole = solution.problem.restricted(torch.arange(solution.problem.rows.x.shape[1]))
    if solution.exists is False or solution.problem.num_active != whole.num_active:
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
    """The same of one state."""
    measure = parameter_measure(objective, solution)
    return None if measure is None else measure(objective)


def _identified(difference: Tensor, problem: Problem) -> Tensor:
    """A difference of thetas without what changes no distribution."""
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
        # Where the observed information is degenerate (least absolute deviations) the expected one measures.
        if not problem.head.shifts and float(torch.linalg.eigvalsh(hessian).min()) <= 0:
            hessian = problem.derivatives(exact, expected=True).hessian
    except NotImplementedError:
        pass
    return hessian


def inside_95_region(solution: Solution, gap: float) -> bool:
    """Whether a theta this gap (nats per row) above the MLE lies in its 95 % likelihood-ratio region (Wilks, 1938)."""
    problem = solution.problem
    return 2 * problem.population * gap <= chi2_quantile(0.95, int(problem.free.sum()))
