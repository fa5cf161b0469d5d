"""Goodness of fit of an exact estimate: deviance, R², and the likelihood ratio against the null model."""

import math
from typing import NamedTuple

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import is_least_squares, num_coefficients
from mlefw.baseline.pearson import pearson_squares
from mlefw.distribution.reference import chi2_tail
from mlefw.head.gaussian import GaussianHead


def fit_statistics(solution: Solution, null: Solution | None) -> dict[str, float]:
    """Statistics by name, as far as they are defined for the estimate; weights are frequencies.

    `mcfadden_r2` (discrete targets) is 1 − ll / ll₀, `cox_snell_r2` is 1 − exp(2 (ll₀ − ll) / n), which equals R² for
    least squares, whose `sigma` is the residual standard error sqrt(RSS / (n − p)). Under a prior there is no AIC, BIC
    or likelihood ratio test, which assume maximum likelihood; nor for a composite likelihood. With scales by maximum
    likelihood `log_likelihood` is the marginal one, with the scales and coefficients without a prior as parameters,
    `conditional_log_likelihood` that of the rows given all coefficients, from which `nll_nats` and R² come; with scales
    found otherwise all are of the latter, and a penalised term has its effective degrees of freedom.

    Args:
        solution: the MLE or MAP estimate.
        null: the intercept-only estimate on the rows and offsets of `solution`.
    """
    problem, head = solution.problem, solution.problem.head
    n, count = problem.population, float(num_coefficients(problem) + head.shared_dim)
    if solution.smoothing is not None:
        # Of a penalised term its effective degrees of freedom count.
        count += sum(solution.smoothing.edf) - sum(len(block.features) for block in problem.blocks_of_terms)
    left = n - count + head.shared_dim
    log_likelihood = -n * problem.mean_nll(solution.theta)
    if not math.isfinite(log_likelihood):
        return {}
    # A count and its number of trials are one observation.
    is_single = not head.event_shape or head.takes_trials
    content = {"log_likelihood": log_likelihood, "nll_nats": -log_likelihood / n}
    marginal = marginal_likelihood(solution)
    if problem.prior.flat and head.composite:
        # The chances of a composite likelihood are not those that these criteria take for granted.
        content["num_parameters"] = count
    elif marginal is not None:
        content = {**content, "log_likelihood": marginal.value, "conditional_log_likelihood": log_likelihood}
        content |= _criteria(*marginal, n) | ({"df_resid": n - marginal.num_parameters} if is_single else {})
    elif problem.prior.flat:
        content |= _criteria(log_likelihood, count, n) | ({"df_resid": left} if is_single else {})
        if solution.smoothing is not None:
            del content["bic"]
    deviance = _deviance(solution)
    if deviance is not None:
        content["deviance"] = deviance
        if isinstance(head, GaussianHead) and is_least_squares(problem) and problem.prior.flat and left > 0:
            content["sigma"] = math.sqrt(deviance / left)
    if head.support.is_discrete and head.target == "numeric" and is_single:
        content |= _pearson(solution)
    if null is not None:
        content |= _against_null(solution, null, {**content, "log_likelihood": log_likelihood}, count)
    return content


class Marginal(NamedTuple):
    """A log-likelihood without the coefficients that have a prior, and the number of parameters that maximise it."""

    value: float
    num_parameters: int


def marginal_likelihood(solution: Solution) -> Marginal | None:
    """The marginal likelihood of an estimate that maximises it (`baseline.scales=ml`); None for any other."""
    problem = solution.problem
    if solution.smoothing is None or solution.smoothing.criterion != "ml" or not problem.prior.flat:
        return None
    count = int(problem.free.sum()) + sum(block.num_scales - len(block.features) for block in problem.blocks_of_terms)
    return Marginal(-solution.smoothing.value, count)


def _criteria(log_likelihood: float, count: float, n: float) -> dict[str, float]:
    """The number of parameters, and the criteria of Akaike and Schwarz."""
    known = {"num_parameters": count, "aic": 2 * (count - log_likelihood)}
    return known | {"bic": count * math.log(n) - 2 * log_likelihood}


def _against_null(solution: Solution, null: Solution, known: dict[str, float], count: float) -> dict[str, float]:
    """Statistics that compare an estimate of `count` parameters with the intercept-only one, by name."""
    problem, head, n, content = solution.problem, solution.problem.head, solution.problem.population, dict[str, float]()
    log_likelihood, deviance = known["log_likelihood"], known.get("deviance")
    if any(not end.may_exist or not end.converged for end in (solution, null)):
        return content
    lowest = -n * null.problem.mean_nll(null.theta)
    if not math.isfinite(lowest):
        # Without an intercept the null model may have a mean of zero.
        return content
    content["null_log_likelihood"] = lowest
    null_deviance = _deviance(null)
    if deviance is not None and null_deviance is not None:
        content["null_deviance"] = null_deviance
        if isinstance(head, GaussianHead) and head.is_linear and null_deviance > 0:
            content["r_squared"] = 1 - deviance / null_deviance
    if head.support.is_discrete and lowest < 0:
        content["mcfadden_r2"] = 1 - log_likelihood / lowest
    content["cox_snell_r2"] = -math.expm1(2 * (lowest - log_likelihood) / n)
    df = count - int(null.problem.free.sum())
    if head.composite:
        return {"null_log_likelihood": lowest}
    if problem.prior.flat and df > 0 and solution.smoothing is None:
        ratio = max(2 * (log_likelihood - lowest), 0.0)
        content |= {"lr_chi2": ratio, "lr_df": int(df), "lr_p_value": chi2_tail(ratio, int(df))}
    return content


@torch.no_grad()
def _deviance(solution: Solution) -> float | None:
    total = 0.0
    for rows, _, eta in solution.problem.etas(solution.theta):
        unit = solution.problem.head.unit_deviance(eta, rows.y)
        if unit is None:
            return None
        total += float(rows.weight @ unit)
    return total


@torch.no_grad()
def _pearson(solution: Solution) -> dict[str, float]:
    """Pearson's Σ w (y − mean)² / variance; divided by n − p it is the dispersion, 1 if the variance is right."""
    problem, total = solution.problem, 0.0
    try:
        for rows, _, eta in problem.etas(solution.theta):
            total += float(rows.weight @ pearson_squares(problem.head.distribution(eta), rows.y))
    except NotImplementedError:
        return {}
    if not math.isfinite(total):
        return {}
    left = problem.population - num_coefficients(problem)
    return {"pearson_chi2": total} | ({"dispersion": total / left} if left > 0 and problem.prior.flat else {})
