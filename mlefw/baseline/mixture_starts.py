"""Starting points for a mixture: several partitions of the rows, each part fitted separately."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mlefw import inverse_link
from mlefw.baseline.problem import Problem
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.mixture import MixtureHead

_NUM_RANDOM = 12
"""Random partitions."""
_NUM_TURNS = 5
"""Refinements of a random partition."""
_MOST_ROWS = 4096
"""Most rows that are used."""
_RATIOS = (0.4, 2.0)
"""Narrowest and widest scale of components with a common location, in units of their single-component scale."""


class _Group(NamedTuple):
    """A fitted group of rows: coefficients (width,) of the design, standard deviation, and share of the rows."""

    coefficients: Tensor
    spread: float
    share: float


def mixture_starts(problem: Problem) -> list[Tensor]:
    """Starting points, each (size,): rows grouped by residual, one location with several scales, random groups."""
    head, rows = problem.head, problem.rows
    assert isinstance(head, MixtureHead)
    rows = rows.take(rows.weight > 0)
    rows = rows.take(slice(0, None, 1 + rows.num_rows // _MOST_ROWS))
    count, y = head.num_components, rows.y.double()
    design = problem.design(rows) if _is_located(head.component) else torch.ones(len(y), 1, dtype=torch.float64)
    single = _fit(design, y)
    residual = y - design @ single.coefficients
    order = residual.argsort().argsort() * count // len(y)
    found = [[_fit(design, y, order == k, single) for k in range(count)]]
    for k, group in enumerate(found[0]):
        # Slopes from the fit of all rows, intercept from the residuals of the group.
        moved = single.coefficients.clone()
        moved[-1] += residual[order == k].mean()
        found[0][k] = group._replace(coefficients=moved)
    narrowest, widest = map(math.log, _RATIOS)
    ratios = torch.linspace(narrowest, widest, count, dtype=torch.float64).exp().tolist()
    found.append([single._replace(spread=ratio * single.spread, share=1 / count) for ratio in ratios])
    generator = torch.Generator().manual_seed(0)
    found += [_by_lines(design, y, count, single, generator) for _ in range(_NUM_RANDOM)]
    return [_theta(problem, groups) for groups in found]


def _by_lines(design: Tensor, y: Tensor, count: int, single: _Group, generator: torch.Generator) -> list[_Group]:
    """Groups from fits to a few random rows each: rows are assigned to the nearest fit, which is then refitted."""
    few = min(len(y), design.shape[1] + 1)
    chosen = [torch.randperm(len(y), generator=generator)[:few] for _ in range(count)]
    groups = [_fit(design[rows], y[rows]) for rows in chosen]
    for _ in range(_NUM_TURNS):
        distance = torch.stack([(y - design @ group.coefficients).abs() for group in groups])
        nearest = distance.argmin(0)
        groups = [_fit(design, y, nearest == k, single) for k in range(count)]
    return groups


def _fit(design: Tensor, y: Tensor, taken: Tensor | None = None, instead: _Group | None = None) -> _Group:
    """Least squares on the rows where `taken` is True; `instead` if they are too few."""
    count = len(y)
    if taken is not None:
        design, y = design[taken], y[taken]
    if instead is not None and len(y) <= design.shape[1] + 1:
        return instead._replace(share=1 / count)
    # The driver gelsd gives the solution of minimum norm for rank-deficient columns.
    coefficients = torch.linalg.lstsq(design, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    spread = float((y - design @ coefficients).square().mean().sqrt())
    least = 0.05 * instead.spread if instead is not None else 0.0
    return _Group(coefficients, max(spread, least), len(y) / count)


def _theta(problem: Problem, groups: list[_Group]) -> Tensor:
    """The theta of a mixture of groups; parameters that groups do not determine stay at the head's center."""
    head = problem.head
    assert isinstance(head, MixtureHead)
    theta = torch.zeros(problem.size, dtype=torch.float64)
    weight, bias, shared = problem.split(theta)
    raws = torch.zeros_like(head.center)
    part = head.component
    names = part.eta_names + part.shared_names
    for k, group in enumerate(groups):
        columns, middle = head.columns(k), float(group.coefficients[-1])
        known = part.rough(middle, group.spread) if isinstance(part, FactorizedHead) else {}
        known.setdefault(names[0], middle)
        for name, column in zip(names, columns, strict=True):
            if name in known:
                eta = float(part.inverse_link_of(name).inv(torch.tensor(known[name], dtype=torch.float64)))
                raw = (eta - float(head.center[column])) / float(head.gain[column])
                raw = raw if math.isfinite(raw) else 0.0
                raws[column] = raw
        if len(group.coefficients) == problem.num_active + 1:
            weight[columns[0]] = group.coefficients[:-1] / head.gain[columns[0]]
        if k:
            column = range(head.eta_dim + head.shared_dim)[head.logits][k - 1]
            logit = math.log(group.share / groups[0].share)
            raws[column] = logit - float(head.center[column])
    bias.copy_(raws[: head.eta_dim])
    shared.copy_(raws[head.eta_dim :])
    return theta


def _is_located(component: Head) -> bool:
    return component.inverse_link_of(component.eta_names[0]) is inverse_link.identity
