"""Smooth terms and effects of groups as figures: degrees of freedom, scales, and the effects themselves."""

import torch
from torch import Tensor

from mlefw.baseline.base import Solution
from mlefw.baseline.covariance import Covariance
from mlefw.baseline.quadratic import RandomBlock
from mlefw.system.atomic import Json


def random_tables(solution: Solution, names: list[str], errors: Covariance | None) -> list[Json]:
    """The penalised terms of an estimate, as in `baseline.json`; empty without any.

    `edf` are effective degrees of freedom; for a smooth term with those of its straight line. `precision` is that of
    the coefficients of a smooth term, in nats. For groups `sd` has the standard deviation of each effect,
    `correlations` those of pairs of effects, and `effects` the predicted effects with standard deviations under the
    posterior. `at_limit` says that the term is its limit: a straight line, or no effect.

    Args:
        solution: the estimate.
        names: names of the features.
        errors: the covariance of theta; None for effects without standard deviations.
    """
    problem, smoothing = solution.problem, solution.smoothing
    if smoothing is None or problem.rho is None:
        return []
    found: list[Json] = []
    start = 0
    for block, place, edf in zip(problem.blocks_of_terms, problem.places(), smoothing.edf, strict=True):
        rho = problem.rho[start : start + block.num_scales]
        limits = smoothing.at_limit[start : start + block.num_scales]
        start += block.num_scales
        line: Json = {"parameter": block.parameter, "term": block.label, "at_limit": any(limits)}
        if block.effects:
            line |= {"edf": edf, "num_groups": block.num_groups, **_spread(block, rho)}
        else:
            straight = sum(block.label == names[j].rpartition(".line")[0] for j in problem.active.tolist())
            line |= {"edf": edf + straight, "precision": float(rho.exp())}
        unit = problem.head.gain[block.column]
        variances = None if errors is None else errors.matrix.diagonal()[place] * unit.square()
        line["effects"] = [
            {"name": names[j], "estimate": float(value)}
            | ({} if variances is None else {"std_error": float(variances[k].clamp(min=0).sqrt())})
            for k, (j, value) in enumerate(zip(block.features, solution.theta[place] * unit, strict=True))
        ]
        found.append(line)
    return found


def _spread(block: RandomBlock, rho: Tensor) -> Json:
    """Standard deviations of the effects of a group, and their correlations."""
    covariance = torch.linalg.inv(block.precision(rho))
    sd = covariance.diagonal().sqrt()
    found: Json = {"sd": dict(zip(block.effects, sd.tolist(), strict=True))}
    if block.num_effects > 1:
        pairs = torch.tril_indices(block.num_effects, block.num_effects, -1).T.tolist()
        found["correlations"] = {
            f"{block.effects[j]}, {block.effects[i]}": float(covariance[i, j] / sd[i] / sd[j]) for i, j in pairs
        }
    return found
