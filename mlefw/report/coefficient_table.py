"""The content of `baseline.json`: an exact estimate as tables of coefficients, with its certificate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlefw.baseline.base import Solution
from mlefw.baseline.certificate import excess_bound
from mlefw.baseline.coefficients import coefficient_tables, table_links, table_titles
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.fit_statistics import fit_statistics
from mlefw.baseline.hypothesis_tests import Statistic, term_tests
from mlefw.baseline.linear import StandardErrors
from mlefw.baseline.nonexistence import remedy
from mlefw.baseline.per_target import names_of
from mlefw.baseline.random_effects import random_tables
from mlefw.head.base import FactorizedHead
from mlefw.head.component import ComponentHead
from mlefw.head.multitask import MultitaskHead
from mlefw.rows.dependence import Dependence
from mlefw.system.atomic import Json

Labels = list[str] | None | Mapping[str, list[str] | None]
"""The labels of a target in the order of their codes, None for a number; for several targets, by name."""


def baseline_content(
    solution: Solution,
    names: list[str],
    labels: Labels,
    kind: StandardErrors,
    null: Solution | None = None,
    asked: Sequence[int] | None = None,
    terms: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    dependence: Dependence | None = None,
) -> Json:
    """The content of `baseline.json` for one estimate; what is not defined is absent.

    Args:
        solution: the estimate.
        names: names of the features.
        labels: labels of the target or targets.
        kind: kind of standard errors.
        null: the intercept-only estimate, the reference of the likelihood ratio test and of R².
        asked: positions of the features that the user asked for; by default all.
        terms: positions of the features of each term, whose coefficients are tested together, by distribution
            parameter; under "" those of every parameter that is not named.
        dependence: clusters and times of the rows, for the kinds that take them.
    """
    problem = solution.problem
    content: Json = {
        "num_rows": problem.rows.num_rows,
        "population": problem.population,
        "exists": solution.exists,
        "solver": solution.solver,
        "num_steps": solution.num_steps,
        "dropped": dropped(solution, names, asked),
    }
    if solution.reason is not None:
        content["reason"] = solution.reason
    if not solution.may_exist:
        content["remedy"] = remedy(solution)
        if solution.infimum is not None:
            content["nll_infimum"] = solution.infimum
        is_shown = solution.determined and not solution.parts
        return content | (_location(solution, names, labels) if is_shown else {})
    content |= _certificate(solution)
    if not problem.prior.flat:
        content["objective"] = solution.objective
    content |= fit_statistics(solution, null)
    known: Json = _finite(content | _tables(solution, names, labels, kind, terms or {}, dependence))
    return known


def _tables(
    solution: Solution,
    names: list[str],
    labels: Labels,
    kind: StandardErrors,
    terms: Mapping[str, Mapping[str, Sequence[int]]],
    dependence: Dependence | None,
) -> Json:
    """Tables of coefficients with standard errors, and their titles; for several targets prefixed by their names."""
    if solution.parts:
        names_of_parts = labels if isinstance(labels, Mapping) else dict.fromkeys(names_of(solution.problem.head))
        of_parts = [None] * len(solution.parts) if dependence is None else _of_parts(solution, dependence)
        tables = {
            target: _tables(part, names, own, kind, {}, of_rows)
            for (target, own), part, of_rows in zip(names_of_parts.items(), solution.parts, of_parts, strict=True)
        }
        content: Json = {
            group: {f"{t}.{key}": value for t, table in tables.items() for key, value in table[group].items()}
            for group in ("titles", "links", "coefficients")
        }
        titles = [f"{target}: {title}" for target, table in tables.items() for title in table["titles"].values()]
        content["titles"] = dict(zip(content["titles"], titles, strict=True))
        kinds = dict.fromkeys(table["standard_errors"] for table in tables.values())
        return {"standard_errors": "; ".join(kinds), **content}
    own = None if isinstance(labels, Mapping) else labels
    errors = covariance(solution, kind, dependence)
    stated = errors if isinstance(errors, Covariance) else None
    tested = [] if stated is None or not solution.problem.prior.flat else term_tests(solution, stated, terms)
    return {
        **({"terms": [_named(*test) for test in tested]} if tested else {}),
        **_random(solution, names, stated),
        "standard_errors": errors.kind if isinstance(errors, Covariance) else f"none: {errors}",
        "titles": table_titles(solution.problem.head, own),
        "links": table_links(solution.problem.head, own),
        "coefficients": coefficient_tables(solution, names, own, stated),
    }


def _random(solution: Solution, names: list[str], errors: Covariance | None) -> Json:
    """Smooth terms and effects of groups, and how their scales were found; empty without any."""
    found = random_tables(solution, names, errors)
    if not found or solution.smoothing is None:
        return {}
    how = asdict(solution.smoothing)
    return {
        "random": found,
        "scales": {key: how[key] for key in ("criterion", "value", "gradient", "num_optima", "exact")},
    }


def _named(parameter: str, term: str, test: Statistic) -> Json:
    """The joint test of a term."""
    known = {name: value for name, value in test._asdict().items() if value is not None}
    return {"parameter": parameter, "term": term, **known}


def _of_parts(solution: Solution, dependence: Dependence) -> list[Dependence]:
    """The dependence of the rows of each of several targets, which are those where it is observed."""
    head, y = solution.problem.head, solution.problem.rows.y
    if not isinstance(head, MultitaskHead):
        return [dependence] * len(solution.parts)
    return [dependence.take(head.of_target(y, index)[1]) for index in range(len(solution.parts))]


def _finite(node: Any) -> Any:
    """A JSON value without infinite numbers, such as ends of the interval of a nearly undetermined scale."""
    if isinstance(node, dict):
        parts = {key: _finite(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if not isinstance(value, float) or math.isfinite(value)}
    return [_finite(value) for value in node] if isinstance(node, list) else node


def _location(solution: Solution, names: list[str], labels: Labels) -> Json:
    """The coefficients of a perfect fit, without those of its scale and without standard errors."""
    head = solution.problem.head
    of_one = head.component if isinstance(head, ComponentHead) else head
    scales = of_one.collapsible | of_one.sharpening if isinstance(of_one, FactorizedHead) else frozenset()
    own = None if isinstance(labels, Mapping) else labels
    tables = coefficient_tables(solution, names, own, None)
    return {
        "titles": table_titles(head, own),
        "links": table_links(head, own),
        "coefficients": {key: rows for key, rows in tables.items() if key not in scales},
    }


def dropped(solution: Solution, names: Sequence[str], asked: Sequence[int] | None = None) -> list[str]:
    """Names of the features that were left out of an estimate because they are constant or collinear."""
    kept = set(solution.problem.active.tolist())
    return [names[j] for j in (range(len(names)) if asked is None else asked) if j not in kept]


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _certificate(solution: Solution) -> Json:
    """The certificate of an estimate: convergence, globality, residual and excess bound."""
    values = {name: getattr(solution, name) for name in ("converged", "is_global", "residual")}
    values |= {} if solution.shown_by is None else {"shown_by": solution.shown_by}
    bound = excess_bound(solution)
    values |= {"matrix_free": True} if solution.matrix_free else {}
    return values if bound is None else values | {"excess_bound": bound}
