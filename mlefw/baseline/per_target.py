"""Several targets that are independent given x, solved one by one, as their objectives share no parameter."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.problem import Problem
from mlefw.head.multitask import MultitaskHead


def parts(problem: Problem) -> list[Problem]:
    """The problem of each target, on the rows where it is observed."""
    head = problem.head
    assert isinstance(head, MultitaskHead)
    found = []
    for index, part in enumerate(head.parts):
        own, at = deepcopy(part).double().cpu(), head.columns(index)
        own.center.copy_(head.center[at])
        own.gain.copy_(head.gain[at])
        own.floor = torch.zeros_like(head.floor[index])
        torch.nn.init.zeros_(own.shared)
        y, observed = head.of_target(problem.rows.y, index)
        rows = problem.rows._replace(y=y)
        rows = rows if bool(observed.all()) else rows.take(observed)
        used = None if problem.used is None else problem.used[list(head.spans[index][0])]
        found.append(replace(problem, head=own, rows=rows, population=rows.population, used=used))
    return found


def together(problem: Problem, solutions: Sequence[Solution]) -> Solution:
    """The solution of the problem of all targets, combined from the solutions of each."""
    head = problem.head
    assert isinstance(head, MultitaskHead)
    width = problem.num_active + 1
    share = [solution.problem.population / problem.population for solution in solutions]
    nothing = [
        f"{name}: {solution.reason}"
        for name, solution in zip(head.targets, solutions, strict=True)
        if solution.reason is not None
    ]
    least = [s.objective if s.may_exist else s.infimum for s in solutions]
    infimum = sum(s * value for s, value in zip(share, least, strict=True) if value is not None)
    exists = _all([solution.exists for solution in solutions])
    return Solution(
        problem=problem,
        theta=torch.cat([*(_predicted(s, problem, width) for s in solutions), *(_shared(s) for s in solutions)]),
        objective=sum(s * solution.objective for s, solution in zip(share, solutions, strict=True)),
        residual=max(s * solution.residual for s, solution in zip(share, solutions, strict=True)),
        solver=", ".join(dict.fromkeys(solution.solver for solution in solutions)),
        num_steps=sum(solution.num_steps for solution in solutions),
        converged=all(solution.converged for solution in solutions),
        is_global=_all([solution.is_global for solution in solutions]),
        exists=exists,
        reason="; ".join(nothing) or None,
        infimum=infimum if exists is False and None not in least else None,
        shown_by=", ".join(dict.fromkeys(s.shown_by for s in solutions if s.shown_by)) or None,
        parts=tuple(solutions),
    )


def _all(shown: Sequence[bool | None]) -> bool | None:
    """Whether all statements hold, None being unknown: False if one does not hold, else None if one is unknown."""
    return False if False in shown else None if None in shown else True


def _predicted(solution: Solution, whole: Problem, width: int) -> Tensor:
    """The weights and biases of one target over the active features of all, zero for features it leaves out."""
    weight, bias, _ = solution.problem.split(solution.theta)
    table = weight.new_zeros(len(bias), width)
    at = torch.searchsorted(whole.active, solution.problem.active)
    table[:, at], table[:, -1] = weight, bias
    return table.reshape(-1)


def _shared(solution: Solution) -> Tensor:
    return solution.problem.split(solution.theta)[2]
