"""Starting points of the solvers: from the moments of the target; several if optima may be local."""

import math

import torch
from scipy.optimize import linprog
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.derivatives import gram
from mlefw.baseline.mixture_starts import mixture_starts
from mlefw.baseline.moments import moments
from mlefw.baseline.problem import Problem
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.component import ComponentHead
from mlefw.head.location_scale import LocationScaleHead
from mlefw.head.mixture import MixtureHead
from mlefw.rows.rows import Rows

_LOG_NORMAL = 0.6351814227307392
"""Minus the mean of log |u| for a standard normal u: (Euler's constant + log 2) / 2."""

_FAR = 30.0
"""Absolute eta, on a log or logit scale, beyond which gradients vanish, so that a start there would not descend."""


def starts(problem: Problem, shifts: tuple[float, ...] = (-1.0,)) -> list[Tensor]:
    """Starting points, each (size,): the origin; if not unimodal, also with dispersions shifted, and a staged fit."""
    head = problem.head
    if isinstance(head, MixtureHead):
        return mixture_starts(problem)
    first = origin(problem)
    if is_unimodal(problem) or head.eta_dim + head.shared_dim == 1:
        return [first]
    found = [first, *(_shifted(problem, first, shift) for shift in shifts)]
    staged = _staged(problem, first)
    return found if staged is None else [staged, *found]


def is_unimodal(problem: Problem) -> bool:
    """Whether a stationary point is the global optimum, as head and prior claim."""
    unimodal = problem.head.unimodal or _has_one_scale(problem)
    return (problem.head.convex and problem.prior.convex) or (unimodal and problem.prior.flat)


def _has_one_scale(problem: Problem) -> bool:
    """Whether a scale is predicted from an intercept alone, so that it is one value up to the offsets of rows.

    In (loc / scale, 1 / scale) the NLL of a log-concave density is convex (Burridge, 1981).
    """
    head = problem.head
    if not isinstance(head, LocationScaleHead) or head.eta_names != ("loc", "scale"):
        return False
    is_linear = head.first_link is inverse_link.identity
    return is_linear and problem.design_columns(1).tolist() == [problem.num_active]


def is_known(problem: Problem) -> bool:
    """Whether a stationary point is the global optimum, by a claim that can be probed or is of a built-in head.

    Convexity can be probed; that a head is unimodal without being convex is believed of built-in heads only, whose
    source names the proof.
    """
    head = problem.head
    return is_unimodal(problem) and ((head.convex and problem.prior.convex) or _is_built_in(head))


def _is_built_in(head: Head) -> bool:
    parts: tuple[Head, ...] = getattr(head, "parts", ())
    return type(head).__module__.partition(".")[0] == "mlefw" and all(map(_is_built_in, parts))


def origin(problem: Problem) -> Tensor:
    """The theta, (size,), of the intercept-only model with rough parameters from the moments of the target."""
    head, rows = problem.head, problem.rows
    theta = torch.zeros(problem.size, dtype=torch.float64)
    share = rows.weight / rows.weight.sum()
    offset = float(share @ rows.first_offset)
    rough = _rough(head, rows, share)
    if not rough:
        middle = float(head.center[0] + offset)
        if head.reference is None and abs(middle) > _FAR and bool(problem.has_intercept[0]):
            problem.split(theta)[1][0] = -middle / float(head.gain[0])
        return theta
    raw = intercepts(problem, theta)
    for k, name in enumerate(head.eta_names + head.shared_names):
        if name in rough:
            eta = rough[name] - (_mean_offset(rows, share, k) if k or _is_moved(head) else 0.0)
            raw[k] = (eta - head.center[k]) / head.gain[k]
    return feasible(problem, with_intercepts(problem, theta, raw))


def feasible(problem: Problem, theta: Tensor) -> Tensor:
    """Theta with biases raised until the eta of every row is positive, where an inverse link asks for it.

    A column without an intercept gets coefficients with which it is, if there are any.
    """
    theta = theta.clone()
    for k in problem.head.positive_columns:
        column = torch.cat([eta[:, k] for _, _, eta in problem.etas(theta)])
        least = float(column.min())
        if k >= problem.head.eta_dim or least > 0:
            continue
        if bool(problem.has_intercept[k]):
            problem.split(theta)[1][k] += (0.01 * float(problem.head.center[k].abs()) - least) / problem.head.gain[k]
        else:
            _raise_slopes(problem, theta, k)
    return theta


def _raise_slopes(problem: Problem, theta: Tensor, k: int) -> None:
    """Set the coefficients of eta column k, which has no intercept, so that it is positive in every row, if it can be.

    They are those of least mean with every eta above a tenth of its unit, by a linear program.
    """
    at = problem.design_columns(k)
    if not len(at):
        return
    start = k * (problem.num_active + 1)
    theta[start : start + problem.num_active + 1] = 0.0
    blocks = [(rows, design[:, at].clone(), eta[:, k]) for rows, design, eta in problem.designs(theta)]
    design = torch.cat([block[1] for block in blocks]).numpy() * float(problem.head.gain[k])
    rest = torch.cat([block[2] for block in blocks]).numpy()
    bound = 0.1 * (float(problem.head.gain[k]) or 1.0)
    found = linprog(design.mean(0), A_ub=-design, b_ub=rest - bound, bounds=(None, None), method="highs")
    if found.status == 0:
        theta[start + at] = torch.from_numpy(found.x)


def _mean_offset(rows: Rows, share: Tensor, k: int) -> float:
    """The weighted mean of the offset of eta column k."""
    if rows.offset.ndim == 1:
        return float(share @ rows.offset) if k == 0 else 0.0
    return float(share @ rows.offset[:, k]) if k < rows.offset.shape[1] else 0.0


def intercepts(problem: Problem, theta: Tensor) -> Tensor:
    """Biases and shared raw values, one for each eta column: (eta_dim + shared_dim,)."""
    return torch.cat(problem.split(theta)[1:])


def with_intercepts(problem: Problem, theta: Tensor, raw: Tensor) -> Tensor:
    """Theta with its biases, where there are any, and shared raw values replaced by `raw` (eta_dim + shared_dim,)."""
    moved = theta.clone()
    _, bias, shared = problem.split(moved)
    has = problem.has_intercept[: problem.head.eta_dim]
    bias.copy_(torch.where(has, raw[: problem.head.eta_dim], bias))
    shared.copy_(raw[problem.head.eta_dim :])
    return moved


def sharpened(problem: Problem, theta: Tensor, share: float) -> Tensor:
    """Theta with every dispersion multiplied by `share`, and every shape or precision divided by it."""
    head = problem.head.component if isinstance(problem.head, ComponentHead) else problem.head
    raw = intercepts(problem, theta)
    for k, name in enumerate(problem.head.eta_names + problem.head.shared_names):
        if isinstance(head, FactorizedHead) and name in head.collapsible | head.sharpening:
            raw[k] += math.log(share) * (1 if name in head.collapsible else -1) / problem.head.gain[k]
    return with_intercepts(problem, theta, raw)


def _is_moved(head: Head) -> bool:
    """Whether an offset moves the first eta rather than the target itself: under a log or power link."""
    return head.log_link or 0 in head.positive_columns


def _rough(head: Head, rows: Rows, share: Tensor) -> dict[str, float]:
    """The eta of the head's rough parameters for the moments of the target, by parameter name."""
    y = head.points(rows.y.double())
    if not isinstance(head, FactorizedHead | ComponentHead):
        return {}
    y = y - (0.0 if _is_moved(head) else rows.first_offset)
    mean = float(share @ y)
    rough = head.rough(mean, float(share @ (y - mean).square()) ** 0.5)
    at = {name: torch.tensor(value, dtype=torch.float64) for name, value in rough.items()}
    return {name: float(head.inverse_link_of(name).inv(value)) for name, value in at.items()}


def _shifted(problem: Problem, theta: Tensor, shift: float) -> Tensor:
    """Theta with the eta of all parameters but the first moved by `shift`."""
    moved = theta.clone()
    _, bias, shared = problem.split(moved)
    head = problem.head
    bias[1:] += shift / head.gain[1 : head.eta_dim] * problem.has_intercept[1 : head.eta_dim]
    shared += shift / head.gain[head.eta_dim :]
    return moved


def _staged(problem: Problem, first: Tensor) -> Tensor | None:
    """Least squares, then a regression of the logarithm of its residuals (Harvey, 1976), for a predicted log scale."""
    head = problem.head
    if not isinstance(head, FactorizedHead) or head.eta_dim != 2 or head.eta_names[1] not in head.collapsible:
        return None
    if head.first_link is not inverse_link.identity or not problem.num_active:
        return None
    if not problem.is_plain:
        return _staged_terms(problem, first)
    fit = moments(problem)
    if fit.is_perfect:
        return None
    theta = first.clone()
    weight, bias, _ = problem.split(theta)
    weight[0], bias[0] = fit.weight, fit.mean_y - float(fit.weight @ fit.mean_z)
    width = problem.num_active + 1
    products, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    least = 1e-6 * math.sqrt(fit.total_square / problem.population) * float(head.gain[0])
    for rows, design, eta in problem.designs(theta):
        response = (rows.y - eta[:, 0]).abs().clamp(min=least).log() + _LOG_NORMAL
        products += gram(design, rows.weight, torch.empty_like(design))
        cross += (rows.weight * (response - head.center[1]) / head.gain[1]) @ design
    ridge = 1e-8 * products.diagonal().max() * torch.eye(width, dtype=torch.float64)
    theta[width : 2 * width] = torch.linalg.solve(products + ridge, cross)
    return theta


def _staged_terms(problem: Problem, first: Tensor) -> Tensor | None:
    """The fit of `_staged` where location and log scale have their own features, intercepts or offsets."""
    head, theta = problem.head, first.clone()
    width, gain = problem.num_active + 1, head.gain
    table = theta[: 2 * width].view(2, width)
    share = problem.rows.weight / problem.population
    least = float(share @ (problem.rows.y - problem.rows.first_offset).square()) ** 0.5 * 1e-6
    for k in (0, 1):
        at = problem.design_columns(k)
        if not len(at):
            continue
        table[k] = 0.0
        products, cross = torch.zeros(len(at), len(at), dtype=torch.float64), torch.zeros(len(at), dtype=torch.float64)
        for rows, design, eta in problem.designs(theta):
            z = design[:, at]
            response = rows.y - eta[:, 0]
            if k == 1:
                response = response.abs().clamp(min=least).log() + _LOG_NORMAL - eta[:, 1]
            products += z.T @ (rows.weight.unsqueeze(1) * z)
            cross += (rows.weight * response / gain[k]) @ z
        ridge = 1e-8 * products.diagonal().max() * torch.eye(len(at), dtype=torch.float64)
        table[k, at] = torch.linalg.solve(products + ridge, cross)
    return theta if bool(torch.isfinite(theta).all()) and least > 0 else None
