"""Coefficients in original feature and target units, with standard errors."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance
from mlefw.distribution.link import SHARE
from mlefw.distribution.reference import normal_quantile, t_quantile, t_tail
from mlefw.head.base import Head
from mlefw.system.atomic import Json

THRESHOLDS = "thresholds"
"""The key of the table of an ordinal head's thresholds."""

_SHOWN = 7
"""Most labels in a heading."""


def coefficient_tables(
    solution: Solution, names: list[str], labels: list[str] | None, errors: Covariance | None
) -> dict[str, list[Json]]:
    """The coefficients of each distribution parameter (or non-reference class), as in `baseline.json`.

    Args:
        solution: the estimate.
        names: names of the features.
        labels: class labels of a categorical target, the first one being the reference.
        errors: the covariance of theta; None for estimates without standard errors.
    """
    problem = solution.problem
    active = ["(intercept)", *(names[j] for j in problem.active.tolist())]
    tables: dict[str, list[Json]] = {}
    for k, title in _columns(problem.head, labels):
        estimates, variances = _original(solution, k, errors)
        # The intercept comes first in a table, and last in a design.
        there = {(j + 1) % (problem.num_active + 1) for j in problem.plain_columns(k)}
        tables[title] = [
            _row(name, float(estimate), variance, errors)
            for j, (name, estimate, variance) in enumerate(zip(active, estimates, variances, strict=True))
            if j in there
        ]
    if problem.head.target == "ordered":
        tables[THRESHOLDS] = _thresholds(solution, labels, errors)
    for s, name in enumerate(problem.head.shared_names):
        tables[name] = [_shared_row(solution, s, name, errors)]
    return tables


def shown(coefficients: Mapping[str, Any]) -> Json:
    """The tables for a reader: gaps between thresholds are left out, since the table of thresholds contains them."""
    is_ordered = THRESHOLDS in coefficients
    return {key: rows for key, rows in coefficients.items() if not (is_ordered and key.startswith("gap_"))}


def table_titles(head: Head, labels: list[str] | None) -> dict[str, str]:
    """The name of each table: the parameter whose link the coefficients add up to, or `log-odds of yes against no`."""
    titles = {key: _title(head, k, labels) for k, key in _columns(head, labels)}
    shared = {name: name for name in head.shared_names}
    if labels is not None and head.target == "ordered":
        between = zip(head.shared_names, labels[1:], labels[2:], strict=False)
        shared = {name: f"{name}, the width of {low} on that scale" for name, low, _ in between}
    if head.target == "ordered":
        what = _words(link_of(head, head.eta_names[0]))
        titles[THRESHOLDS] = f"thresholds: {what} of a label up to the first of the two, every feature at zero"
    return titles | shared


def table_links(head: Head, labels: list[str] | None) -> dict[str, str]:
    """The link of each table whose title does not name it, as that of a label does: `log` for `rate`."""
    if labels is not None and head.target != "numeric":
        return {}
    names = {key: head.eta_names[k] for k, key in _columns(head, labels)} | {name: name for name in head.shared_names}
    return {key: link_of(head, name) for key, name in names.items()}


def link_of(head: Head, name: str) -> str:
    """The name of the link of a distribution parameter: `identity`, `log`, `logit`."""
    stated = getattr(head, "link_name", None)
    if stated and name == head.eta_names[0]:
        return str(stated)
    link = head.inverse_link_of(name)
    share = next((known for known, one in SHARE.items() if one is link), None)
    return share or ("logit" if name in ("logit", "logits") else inverse_link.link_words(link))


def _words(link: str) -> str:
    """What a link makes of a probability, in words."""
    if link == "logit":
        return "log-odds"
    return SHARE[link].words.replace("{}", "").strip() if link in SHARE else link


def _title(head: Head, k: int, labels: list[str] | None) -> str:
    if labels is not None and head.reference is not None:
        return f"log-odds of {labels[k]} against {labels[head.reference]}"
    if labels is not None and head.target == "binary":
        return f"{_words(link_of(head, head.eta_names[0]))} of {labels[1]} against {labels[0]}"
    if labels is not None and head.target == "ordered":
        order = labels if len(labels) <= _SHOWN else [*labels[:2], "…", labels[-1]]
        return f"{_words(link_of(head, head.eta_names[0]))} of a higher label ({' < '.join(order)})"
    return head.eta_names[k]


def _columns(head: Head, labels: list[str] | None) -> list[tuple[int, str]]:
    """Each eta column with a table of its own, and the key of the table."""
    by_label = labels is not None and head.reference is not None
    return [(k, labels[k] if by_label and labels else n) for k, n in enumerate(head.eta_names) if k != head.reference]


def _original(solution: Solution, k: int, errors: Covariance | None) -> tuple[Tensor, list[float | None]]:
    """Estimates of eta column k (minus the reference column) in original units, intercept first, and variances."""
    problem, head = solution.problem, solution.problem.head
    width = problem.num_active + 1
    signs = {k: float(head.gain[k])}
    shift = head.center[k]
    if head.reference is not None:
        signs[head.reference] = -float(head.gain[head.reference])
        shift = shift - head.center[head.reference]
    parts = {i: slice(i * width, (i + 1) * width) for i in signs}
    inner = sum((a * solution.theta[parts[i]] for i, a in signs.items()), torch.zeros(width, dtype=torch.float64))
    mean, scale = problem.mean[problem.active], problem.scale[problem.active]
    first = torch.cat([-mean / scale, scale.new_ones(1)])
    estimates = torch.cat([(first @ inner + shift).reshape(1), inner[:-1] / scale])
    if errors is None:
        return estimates, [None] * width
    block = torch.zeros(width, width, dtype=torch.float64)
    for i, a in signs.items():
        for j, b in signs.items():
            block += a * b * errors.matrix[parts[i], parts[j]]
    variances = torch.cat([(first @ block @ first).reshape(1), block.diagonal()[:-1] / scale.square()])
    return estimates, [float(v) for v in variances]


def directions(solution: Solution, labels: list[str] | None) -> dict[str, list[tuple[Tensor, float]]]:
    """For each row of the tables of coefficients, without thresholds, c (size,) and the rest: estimate − c'theta.

    Of a parameter that all rows share it is the estimate of its eta.
    """
    problem, head = solution.problem, solution.problem.head
    width, count = problem.num_active + 1, problem.num_active
    mean, scale = problem.mean[problem.active], problem.scale[problem.active]
    unit = torch.diag(1 / scale)
    # The intercept in original units, then each slope, in the columns of a standardised design.
    rows = torch.cat(
        [torch.cat([-mean / scale, mean.new_ones(1)])[None], torch.cat([unit, unit.new_zeros(count, 1)], 1)]
    )
    found: dict[str, list[tuple[Tensor, float]]] = {}
    for k, title in _columns(head, labels):
        whole = torch.zeros(width, problem.size, dtype=torch.float64)
        whole[:, k * width : (k + 1) * width] = head.gain[k] * rows
        shift = head.center[k] - (0.0 if head.reference is None else head.center[head.reference])
        found[title] = [(line, float(shift) if i == 0 else 0.0) for i, line in enumerate(whole)]
    for s, name in enumerate(head.shared_names):
        line = torch.zeros(problem.size, dtype=torch.float64)
        line[problem.size - head.shared_dim + s] = head.gain[head.eta_dim + s]
        found[name] = [(line, float(head.center[head.eta_dim + s]))]
    return found


def _thresholds(solution: Solution, labels: list[str] | None, errors: Covariance | None) -> list[Json]:
    """Thresholds with the intercept absorbed, as other programs state them (McCullagh, 1980), errors by delta method.

    The threshold above class k is −intercept + Σ of the gaps below it; a gap is the exponential of its eta.
    """
    problem, head = solution.problem, solution.problem.head
    width = problem.num_active + 1
    first = torch.cat([-problem.mean[problem.active] / problem.scale[problem.active], problem.scale.new_ones(1)])
    gaps = (head.center[1:] + head.gain[1:] * solution.theta[problem.size - head.shared_dim :]).exp()
    slopes = torch.zeros(head.shared_dim + 1, problem.size, dtype=torch.float64)
    slopes[:, :width] = -head.gain[0] * first
    slopes[1:, problem.size - head.shared_dim :] = (gaps * head.gain[1:]).expand(head.shared_dim, -1).tril()
    intercept = first @ (head.gain[0] * solution.theta[:width]) + head.center[0]
    estimates = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)]) - intercept
    variances = None if errors is None else ((slopes @ errors.matrix) * slopes).sum(1)
    names = labels or [str(k) for k in range(head.shared_dim + 2)]
    return [
        _row(f"{low} | {high}", float(estimates[k]), None if variances is None else float(variances[k]), errors)
        for k, (low, high) in enumerate(pairwise(names))
    ]


def _row(name: str, estimate: float, variance: float | None, errors: Covariance | None) -> Json:
    row: Json = {"name": name, "estimate": estimate}
    if errors is None or variance is None or not 0 < variance < float("inf"):
        return row
    error = variance**0.5
    z = estimate / error
    row |= {"std_error": error, "z": z, "p_value": float(2 * t_tail(abs(z), errors.df))}
    row |= {} if errors.df is None else {"df": errors.df}
    half = float(t_quantile(0.975, errors.df)) * error
    return row | {"ci_low": estimate - half, "ci_high": estimate + half}


def _shared_row(solution: Solution, s: int, name: str, errors: Covariance | None) -> Json:
    """A shared parameter in its own units, its error by the delta method, its interval mapped from that of eta.

    There is no test, because a scale of zero is not a sensible hypothesis.
    """
    problem, head = solution.problem, solution.problem.head
    column, index = head.eta_dim + s, problem.size - head.shared_dim + s
    link = head.inverse_link_of(name)
    eta = (head.center[column] + head.gain[column] * solution.theta[index]).detach().requires_grad_()
    with torch.enable_grad():
        value = link(eta)
        (slope,) = torch.autograd.grad(value, eta) if value.requires_grad else (torch.ones_like(eta),)
    row: Json = {"name": "(shared)", "estimate": float(value.detach())}
    variance = 0.0 if errors is None else float(errors.matrix[index, index])
    if not 0 < variance < float("inf"):
        return row
    error = float(head.gain[column].abs()) * variance**0.5
    row["std_error"] = float(slope.abs()) * error
    half = float(normal_quantile(0.975)) * error
    ends = sorted(float(link(eta.detach() + side)) for side in (-half, half))
    return row | {"ci_low": ends[0], "ci_high": ends[1]}
