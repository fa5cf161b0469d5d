"""`baseline.json`: the exact estimate as a table of coefficients."""

import math
from typing import Any

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import coefficient_tables, covariance
from mlefw.baseline.linear import StandardErrors


def baseline_content(
    solution: Solution, names: list[str], labels: list[str] | None, kind: StandardErrors
) -> dict[str, Any]:
    """Everything `baseline.json` says about one estimate; what is not defined is absent."""
    problem = solution.problem
    content: dict[str, Any] = {
        "num_rows": problem.rows.num_rows,
        "population": problem.population,
        "exists": solution.exists,
        "solver": solution.solver,
        "num_steps": solution.num_steps,
    }
    kept = set(problem.active.tolist())
    content["dropped"] = [name for j, name in enumerate(names) if j not in kept]
    if solution.reason is not None:
        content["reason"] = solution.reason
    if not solution.exists:
        if solution.infimum is not None:
            content["nll_infimum"] = solution.infimum
        return content
    content |= {name: getattr(solution, name) for name in ("converged", "is_global", "residual")}
    nll = problem.mean_nll(solution.theta)
    content |= {"log_likelihood": -nll * problem.population, "nll_nats": nll}
    if problem.prior.flat:
        count = int(problem.free.sum())
        content |= {"num_parameters": count, "aic": 2 * (nll * problem.population + count)}
        content["bic"] = 2 * nll * problem.population + count * math.log(problem.population)
    else:
        content["objective"] = solution.objective
    errors = covariance(solution, kind)
    content["standard_errors"] = errors.kind if errors is not None else _reason(solution)
    content["coefficients"] = coefficient_tables(solution, names, labels, errors)
    return content


def _reason(solution: Solution) -> str:
    """Why there are no standard errors."""
    if not solution.converged:
        return "none: the estimate is not certified"
    if not solution.problem.prior.smooth:
        return "none: the prior has a kink at zero"
    return "none: the information is singular"
