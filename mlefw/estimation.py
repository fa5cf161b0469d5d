"""The exact estimates of a run, solved one after the other; one that is left out or fails costs the run nothing."""

import time
from collections.abc import Callable
from dataclasses import replace

from mlefw.attempt import reason
from mlefw.baseline.base import Solution
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.work import Watch
from mlefw.build import Estimand
from mlefw.errors import UsageError
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.progress_line import progress_line
from mlefw.rows import Rows
from mlefw.standardize import feature_statistics
from mlefw.yardstick import Exact

NAMES = {"mle": "linear MLE", "map": "linear MAP", "ridge": "linear ridge MAP"}
"""What the estimates are called."""


def estimates(baseline: LinearBaseline, estimand: Estimand, train: Rows) -> Exact:
    """The linear MLE, under a prior the MAP, and where neither can be compared with a ridge MAP.

    Raises:
        UsageError: there is no exact solver for the head and the prior.
    """
    clock = time.monotonic()
    left_out: dict[str, str] = {}

    def solved(name: str, solve: Callable[[Watch], Solution]) -> Solution | None:
        try:
            with progress_line(NAMES[name]) as watch:
                return solve(watch)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever ails an estimate, the run does not depend on it
            left_out[name] = reason(error)
            return None

    mle = solved("mle", lambda watch: baseline.solve(estimand.problem(train, NoPrior()), watch))
    prior = estimand.objective.prior
    posterior = None
    if not prior.flat:
        posterior = solved("map", lambda watch: baseline.solve(estimand.problem(train, prior), watch))
    # Training has all features: an estimate on some of them is not what it descends to.
    optimum = None if estimand.is_subset else mle if prior.flat else posterior
    exact = Exact(estimand.null, mle, posterior, None, optimum)
    if exact.reference is None:
        ridge = solved("ridge", lambda watch: _ridge(baseline, estimand, train, mle, watch))
        exact = replace(exact, ridge=ridge)
    return replace(exact, seconds=time.monotonic() - clock, left_out=left_out)


def _ridge(baseline: LinearBaseline, estimand: Estimand, train: Rows, mle: Solution | None, watch: Watch) -> Solution:
    """The MAP under a Gaussian prior on the weights of standardised features, from near an MLE that is not there."""
    mean, scale = feature_statistics(train, True)
    problem = replace(estimand, mean=mean, scale=scale).problem(train, L2Prior(baseline.ridge_scale))
    known = mle is not None and mle.matrix_free and mle.problem.size == problem.size
    start = mle.theta if mle is not None and known and bool((estimand.scale == scale).all()) else None
    return baseline.solve(problem, watch, start)
