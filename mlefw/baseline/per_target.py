"""Several targets, or levels of quantiles, solved one by one, as their objectives share no parameter."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.problem import Problem
from mlefw.head.base import Head
from mlefw.head.multitask import MultitaskHead
from mlefw.head.quantiles import QuantilesHead


def is_separable(head: Head) -> bool:
    """Whether a linear problem falls into problems without common parameters."""
    # A subclass may have another likelihood.
    return isinstance(head, MultitaskHead) or type(head) is QuantilesHead


def parts(problem: Problem) -> list[Problem]:
    """The problem of each target, on the rows where it is observed, or of each level."""
    head = problem.head
    if isinstance(head, QuantilesHead):
        return [_of_level(problem, head, k) for k in range(len(head.levels))]
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


def _of_level(problem: Problem, head: QuantilesHead, k: int) -> Problem:
    """The problem of one level, whose objective is that of all levels times their number."""
    part = head.part(k).cpu()
    part.floor.zero_()
    used = None if problem.used is None else problem.used[[k]]
    found = replace(problem, head=part, used=used)
    if problem.prior.flat:
        return found
    # Beside a mean of likelihoods the prior counts as if there were so many fewer rows.
    weight = problem.rows.weight / len(head.levels)
    population = problem.population / len(head.levels)
    return replace(found, rows=problem.rows._replace(weight=weight), population=population)


def names_of(head: Head) -> tuple[str, ...]:
    """The names of the targets or levels."""
    return head.targets if isinstance(head, MultitaskHead) else head.eta_names


def together(problem: Problem, solutions: Sequence[Solution]) -> Solution:
    """The solution of the problem of all targets or levels, combined from the solutions of each."""
    head = problem.head
    width = problem.num_active + 1
    if isinstance(head, MultitaskHead):
        share = [solution.problem.population / problem.population for solution in solutions]
    else:
        share = [1 / len(solutions)] * len(solutions)
    nothing = [
        f"{name}: {solution.reason}"
        for name, solution in zip(names_of(head), solutions, strict=True)
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
