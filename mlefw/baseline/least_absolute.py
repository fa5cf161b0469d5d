"""The linear Laplace model: least absolute deviations, under any built-in prior."""

from typing import ClassVar

import numpy as np

from mlefw.baseline import nonexistence
from mlefw.baseline.base import Solution, Solver
from mlefw.baseline.globbing import spread
from mlefw.baseline.laplace_scale import LaplaceFit, Penalised, widening
from mlefw.baseline.problem import Problem
from mlefw.head.laplace import LaplaceHead
from mlefw.head.quantile import QuantileHead
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior


class LeastAbsolute(Solver):
    """Interior point method on the rows near the plane, certified on all rows (Portnoy & Koenker, 1997).

    A learnt scale is the weighted mean absolute residual. Under a prior it is found by a search with an exact convex
    fit for each scale; a Laplace prior is one more absolute deviation for each weight. The reported residual is the
    duality gap, in nats per observation.
    """

    takes_terms: ClassVar = True

    def supports(self, problem: Problem) -> bool:
        """Whether the head is Laplace or a quantile with a constant scale, and the prior a built-in one."""
        head = problem.head
        # A subclass may have another density.
        constant = type(head) in (LaplaceHead, QuantileHead) and head.eta_names == ("loc",)
        return constant and type(problem.prior) in (NoPrior, L2Prior, L1Prior, ElasticNetPrior)

    def solve(self, problem: Problem) -> Solution:
        """The estimate, with its duality gap."""
        head = problem.head
        assert isinstance(head, LaplaceHead | QuantileHead)
        weight, wider = problem.rows.weight.numpy(), widening(head)
        fixed = wider * head.fixed["scale"] / float(head.gain[0]) if "scale" in head.fixed else None
        penalised = Penalised(problem, weight)
        found = penalised.best(fixed)
        y = penalised.globbing.y
        smallest = 1e-12 * float(weight @ np.abs(y - np.median(y[weight > 0])) / problem.population)
        if fixed is None and found.scale <= smallest:
            return _perfect_fit(problem, found)
        theta = problem.with_scale(spread(problem, found.beta), found.scale / wider)
        residual = found.gap / (found.scale * problem.population)
        if fixed is None:
            residual = max(residual, abs(1 - found.loss / (found.scale * problem.population)))
        return Solution(
            problem=problem,
            theta=theta,
            objective=problem.value(theta),
            residual=residual,
            solver="interior point",
            num_steps=found.num_steps,
            converged=residual < 1e-8,
            is_global=(residual < 1e-8 and found.is_global) or None,
            # The absolute deviations have a minimum, and so has the scale unless the fit is perfect.
            exists=True,
            gap=residual,
        )


def _perfect_fit(problem: Problem, found: LaplaceFit) -> Solution:
    theta = problem.with_scale(spread(problem, found.beta), 1e-3)
    y = (problem.rows.y - problem.rows.first_offset)[problem.rows.weight > 0]
    return Solution(
        problem=problem,
        theta=theta,
        objective=problem.value(theta),
        residual=found.loss / problem.population,
        solver="interior point",
        num_steps=found.num_steps,
        exists=False,
        determined=problem.prior.flat,
        reason=nonexistence.perfect_fit(bool((y == y[0]).all())),
    )
