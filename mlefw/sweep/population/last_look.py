"""What the trained members of a population say of all rows, found for all of them at once."""

from collections.abc import Sequence

from mlefw.run.build import build_metrics
from mlefw.run.conclude import Seen
from mlefw.score.figures import completed_figures
from mlefw.sweep.population.fit import table_of
from mlefw.sweep.population.member import Member
from mlefw.sweep.population.stacked import Stack

_MOST = 2**22
"""Rows times members, up to which all that is said of them is held at once."""


def see(members: Sequence[Member]) -> list[Seen | None]:
    """The evaluations and figures of the state that each has kept; None where it has to look itself."""
    found: list[Seen | None] = [None] * len(members)
    ended = [i for i, member in enumerate(members) if member.error is None]
    if not ended:
        return found
    first = members[ended[0]].begun
    if sum(rows.num_rows for rows in first.prepared.data.splits.values()) * len(ended) > _MOST:
        return found
    objectives = [members[i].module.objective.eval() for i in ended]
    stack, metrics = Stack(objectives), build_metrics(first.config, objectives[0].head)
    tables = {split: table_of([members[i] for i in ended], split) for split in first.prepared.data.splits}
    evaluations = {split: stack.evaluate(table) for split, table in tables.items()}
    figures = {split: stack.figures(table, metrics) for split, table in tables.items()}
    for position, (i, objective) in enumerate(zip(ended, objectives, strict=True)):
        splits = members[i].begun.prepared.data.splits
        own = {split: values[position] for split, values in evaluations.items()}
        known = {
            split: completed_figures(values[position], objective, own[split], splits[split], metrics)
            for split, values in figures.items()
        }
        found[i] = Seen(own, known)
    return found
