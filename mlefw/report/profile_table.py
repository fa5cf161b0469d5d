"""Profile likelihood intervals in the tables of coefficients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import directions, table_links, table_titles
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.profile import Profile, not_profiled
from mlefw.baseline.work import LeftOutError, Meter
from mlefw.report.coefficient_table import Labels
from mlefw.system.atomic import Json

PROFILE = "profile likelihood"
"""What `baseline.json` calls intervals of this kind."""


def with_profiles(
    content: Json, solution: Solution, names: Sequence[str], labels: Labels, kind: StandardErrors, max_seconds: float
) -> Json:
    """The part of `baseline.json` of an estimate with profile likelihood intervals in place of Wald's.

    `intervals` says which kind they are: where there are no profiles, or they take longer than `max_seconds`, the
    tables stay as they were. Thresholds keep theirs. Without a finite estimate the intervals stand in tables of their
    own under `profile`. Infinite ends are the texts `inf` and `-inf`, since JSON has no such numbers.

    Args:
        content: the part without them.
        solution: the estimate.
        names: names of the features.
        labels: labels of the target or targets.
        kind: kind of standard errors.
        max_seconds: time limit.
    """
    own = None if isinstance(labels, Mapping) else labels
    try:
        found = _ends(solution, own, kind, max_seconds)
    except LeftOutError as error:
        found = f"they were left out: {error}"
    if isinstance(found, str):
        return content | {"intervals": f"Wald, since there are no profiles: {found}"}
    if solution.may_exist:
        tables = {
            key: [row | _named(*pair) for row, pair in zip(rows, found[key], strict=True)] if key in found else rows
            for key, rows in content["coefficients"].items()
        }
        return content | {"intervals": PROFILE, "coefficients": tables}
    head, terms = solution.problem.head, ["(intercept)", *(names[j] for j in solution.problem.active.tolist())]
    tables = {
        key: [
            {"name": name} | _named(*pair)
            for name, pair in zip(["(shared)"] if key in head.shared_names else terms, pairs, strict=True)
        ]
        for key, pairs in found.items()
    }
    profile = {"titles": table_titles(head, own), "links": table_links(head, own), "coefficients": tables}
    return content | {"intervals": PROFILE, "profile": profile}


def _ends(
    solution: Solution, labels: list[str] | None, kind: StandardErrors, max_seconds: float
) -> dict[str, list[tuple[float, float]]] | str:
    """Both ends of each row of each table, a shared parameter in its own unit; or why there are none."""
    if (reason := not_profiled(solution)) is not None:
        return reason
    errors = covariance(solution, kind)
    timed = replace(solution, problem=replace(solution.problem, meter=Meter(max_seconds)))
    profile, head = Profile(timed), solution.problem.head
    found: dict[str, list[tuple[float, float]]] = {}
    for key, rows in directions(solution, labels).items():
        found[key] = []
        for line, shift in rows:
            variance = float(line @ errors.matrix @ line) if isinstance(errors, Covariance) else 0.0
            low, high = profile.interval(line, math.sqrt(variance) if 0 < variance < math.inf else None)
            ends = [low + shift, high + shift]
            if key in head.shared_names:
                link = head.inverse_link_of(key)
                ends = sorted(float(link(torch.tensor(end, dtype=torch.float64))) for end in ends)
            found[key].append((ends[0], ends[1]))
    return found


def _named(low: float, high: float) -> Json:
    return {name: end if math.isfinite(end) else str(end) for name, end in (("ci_low", low), ("ci_high", high))}
