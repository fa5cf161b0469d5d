"""The exact estimates of a run; one that fails, or would take too long, is left out with its reason."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from mlefw.baseline import distance
from mlefw.baseline.base import Solution
from mlefw.baseline.feature_map import FEW
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.newton import Newton
from mlefw.baseline.ngram.estimate import TEXT_ORDER, ngram_estimates, null_table, takes_tokens
from mlefw.baseline.ngram.keys import check_order as check_keys
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import LeftOutError, TooMuchError
from mlefw.errors import UsageError
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.report.progress_line import progress_line
from mlefw.rows.rows import Rows
from mlefw.run.estimand import Estimand
from mlefw.score.yardstick import ExactEstimates
from mlefw.system.attempt import reason
from mlefw.system.warning import warn

NAMES = {"mle": "linear MLE", "map": "linear MAP", "ridge": "linear ridge MAP"}
"""Names of the estimates for messages."""


def estimates(baseline: LinearBaseline, estimand: Estimand, train: Rows) -> ExactEstimates:
    """The linear MLE; under a prior also the MAP; and a ridge MAP where neither of them can be compared with.

    A MAP of all inputs of arrays that takes too many multiplications is replaced by one of principal components.

    Raises:
        UsageError: there is no exact solver for the head and the prior.
    """
    clock = time.monotonic()
    if takes_tokens(estimand.shape, estimand.objective.head):
        return replace(_tables(baseline, estimand, train), seconds=time.monotonic() - clock)
    left_out: dict[str, str] = {}
    replaced: dict[str, str] = {}

    def once(name: str, problem: Callable[[], Problem], start: Tensor | None = None) -> Solution:
        left = baseline.max_seconds - (time.monotonic() - clock)
        with progress_line(NAMES[name]) as watch:
            return baseline.solve(problem(), watch, start, left)

    def solved(name: str, problem: Callable[[str | None], Problem], start: Tensor | None = None) -> Solution | None:
        try:
            try:
                return once(name, lambda: problem(None), start)
            except TooMuchError as error:
                if estimand.arrays is None or not estimand.arrays.is_whole(estimand.objective.head.eta_dim):
                    raise
                replaced[name] = f"{error}; {FEW} is used"
                return once(name, lambda: problem(FEW))
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a solver may fail in any way; the run goes on without this estimate
            left_out[name] = reason(error)
            return None

    prior = estimand.objective.prior
    priors = {"mle": NoPrior()} if prior.flat else {"mle": NoPrior(), "map": prior}
    # Of arrays the estimate that was asked for comes first, since the other may take all the time.
    order = list(priors) if estimand.arrays is None else list(priors)[::-1]
    found = {name: solved(name, partial(estimand.problem, train, priors[name])) for name in order}
    mle, posterior = found["mle"], found.get("map")
    # The model is trained on all features: an estimate from some of them is not where training leads to.
    optimum = None if estimand.is_subset else mle if prior.flat else posterior
    optimum = None if optimum is not None and _is_reduced(optimum) else optimum
    if optimum is not None and optimum.smoothing is not None and not optimum.smoothing.is_penalised:
        # Training minimises the penalised NLL over what a marginal or restricted likelihood estimates otherwise.
        optimum = Newton().solve_from(optimum.problem, optimum.theta)
    exact = ExactEstimates(estimand.null, mle, posterior, None, optimum)
    if exact.reference is None:
        start = _near(estimand, train, mle)
        ridge = solved("ridge", partial(_ridge, baseline, estimand, train), start)
        exact = replace(exact, ridge=ridge)
    return replace(exact, seconds=time.monotonic() - clock, left_out=left_out, replaced=replaced)


def check_order(baseline: LinearBaseline | None, estimand: Estimand) -> None:
    """Check before a run begins that tables of the next token can be counted.

    Raises:
        UsageError: there are too many contexts of `baseline.order` tokens.
    """
    shape = estimand.shape
    if baseline is not None and shape.is_sequential and shape.num_tokens is not None and shape.picture is None:
        check_keys(shape.num_tokens, baseline.order or TEXT_ORDER)


def _tables(baseline: LinearBaseline, estimand: Estimand, train: Rows) -> ExactEstimates:
    """The tables of the next token by the tokens before it, in closed form."""
    num_labels = estimand.objective.head.eta_dim
    exact = ExactEstimates(estimand.null, null_table=null_table(train, num_labels, estimand.shape))
    try:
        with progress_line("tables of tokens"):
            found = ngram_estimates(train, estimand.shape, num_labels, baseline.order, baseline.smoothing)
    except LeftOutError as error:
        return replace(exact, left_out={"mle": str(error)})
    exact = replace(exact, mle=found.mle, map=found.map, longer=found.longer, further=found.further)
    if not distance.is_linear(estimand.objective):
        return exact
    if estimand.objective.prior.flat:
        return replace(exact, least=found.mle.objective)
    warn(
        f"the MAP over the {estimand.shape.num_tokens} x {num_labels} logits of the linear model under this prior has "
        "no closed form: excess_objective is left out, and the MAP of the tables is under a Dirichlet prior"
    )
    return exact


def _is_reduced(solution: Solution) -> bool:
    """Whether an estimate is of other columns than all inputs of a row of arrays."""
    features = solution.problem.features
    return features is not None and not features.is_whole


def _ridge(baseline: LinearBaseline, estimand: Estimand, train: Rows, setting: str | None) -> Problem:
    """The linear problem with a Gaussian prior on the weights, on standardised features whatever the settings say."""
    mean, scale = estimand.statistics(train)
    return replace(estimand, mean=mean, scale=scale).problem(train, L2Prior(baseline.ridge_scale), setting)


def _near(estimand: Estimand, train: Rows, mle: Solution | None) -> Tensor | None:
    """The last point of a solver that was descending to an MLE that does not exist: a start for the ridge MAP.

    None where there is no such point, or it has other features or another standardisation.
    """
    if mle is None or not mle.matrix_free or _is_reduced(mle):
        return None
    if mle.problem.num_active != len(estimand.baseline_features):
        return None
    return mle.theta if bool((estimand.scale == estimand.statistics(train)[1]).all()) else None
