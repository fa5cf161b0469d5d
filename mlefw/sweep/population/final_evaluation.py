"""The evaluation of the trained members of a group on the rows of every split, for all of them at once."""

from collections.abc import Sequence

from mlefw.run.build import build_metrics
from mlefw.run.conclude import FinalState
from mlefw.score.figures import completed_figures
from mlefw.sweep.population.fit import stack_rows
from mlefw.sweep.population.member import Member
from mlefw.sweep.population.stacked import Stack

_MAX_SIZE = 2**22
"""Observations times members, up to which the evaluations of all members are held in memory at once."""


def evaluate_members(members: Sequence[Member]) -> list[FinalState | None]:
    """Evaluations and figures of the kept state of each member; None for one that has to be evaluated alone."""
    found: list[FinalState | None] = [None] * len(members)
    ended = [i for i, member in enumerate(members) if member.error is None]
    if not ended:
        return found
    first = members[ended[0]].begun
    if sum(rows.weight.numel() for rows in first.prepared.data.splits.values()) * len(ended) > _MAX_SIZE:
        return found
    objectives = [members[i].module.objective.eval() for i in ended]
    metrics = build_metrics(first.config, objectives[0].head, first.prepared.estimand.token_bytes)
    stack = Stack(objectives)
    stacked = {split: stack_rows([members[i] for i in ended], split) for split in first.prepared.data.splits}
    evaluations = {split: stack.evaluate(rows) for split, rows in stacked.items()}
    figures = {split: stack.figures(rows, metrics) for split, rows in stacked.items()}
    for position, (i, objective) in enumerate(zip(ended, objectives, strict=True)):
        splits = members[i].begun.prepared.data.splits
        own = {split: values[position] for split, values in evaluations.items()}
        known = {
            split: completed_figures(values[position], objective, own[split], splits[split], metrics)
            for split, values in figures.items()
        }
        found[i] = FinalState(own, known)
    return found
