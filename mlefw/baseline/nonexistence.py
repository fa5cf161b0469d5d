"""Reasons why an estimate is not finite, in words, and what the user can do."""

from mlefw.baseline.base import Solution
from mlefw.baseline.feature_map import FEW, num_components
from mlefw.baseline.problem import Problem
from mlefw.head.base import FactorizedHead
from mlefw.head.gaussian import GaussianHead


def perfect_fit(is_constant: bool) -> str:
    """Why a learnt scale has no estimate: the target is constant, or fitted exactly."""
    what = "the target is constant" if is_constant else "the linear model fits every row exactly"
    return f"{what}: the likelihood is unbounded as scale goes to 0"


def one_value(problem: Problem) -> str | None:
    """What the intercept does if a discrete target takes one value only; None if it takes several."""
    y = problem.head.points(problem.rows.y[problem.rows.weight > 0])
    if not bool((y == y[0]).all()):
        return None
    if problem.head.takes_trials and float(y[0]) in (0.0, 1.0):
        every, where = ("no", "minus infinity") if y[0] == 0 else ("every", "infinity")
        return f"{every} trial is a success: the intercept goes to {where}"
    if problem.head.target == "numeric" and not problem.head.support.is_discrete:
        return None
    if problem.head.target == "numeric":
        return f"every count is {float(y[0]):g}: the intercept goes to minus infinity"
    return "the target takes one value only: the intercept goes to infinity"


def empty_class(problem: Problem) -> str | None:
    """What an intercept or threshold does if a class has no rows; None if each class has some."""
    if problem.head.target not in ("labels", "ordered"):
        return None
    y = problem.rows.y[problem.rows.weight > 0]
    if len(y.unique()) == getattr(problem.head, "num_classes", 0):
        return None
    if problem.head.target == "ordered":
        return "a class has no rows: its thresholds meet, or one of them goes to infinity"
    return "a class has no rows: its intercept goes to minus infinity"


def separation(problem: Problem, num_perfect: int) -> str:
    """Why the likelihood has no maximum along a direction that predicts `num_perfect` rows without error."""
    one = one_value(problem) or empty_class(problem)
    if one is not None:
        return one
    if problem.head.target == "numeric" and not num_perfect:
        return "a parameter goes to infinity, along a direction in which no row's NLL ever rises"
    if problem.head.target == "numeric" and not problem.head.support.is_discrete:
        return (
            f"{num_perfect} of {problem.rows.num_rows} rows become certain in the limit: an intercept or a combination "
            "of the features, which no other row holds, goes to infinity"
        )
    if problem.head.takes_trials:
        return (
            "some coefficients go to infinity: a combination of the features (or their intercept) tells rows without "
            "successes, or without failures, from the rest"
        )
    if problem.head.target == "numeric":
        return (
            "some coefficients go to infinity: a combination of the features (or their intercept) "
            "tells rows with a count of zero from the rest"
        )
    if num_perfect == problem.rows.num_rows:
        return "the classes are completely separated by a linear combination of the features"
    if not num_perfect:
        return (
            "a linear combination of the features rules some classes out for some rows, though it tells no row without "
            "error (quasi-complete separation)"
        )
    return (
        f"{num_perfect} of {problem.rows.num_rows} rows are predicted without error in the limit: a linear combination "
        f"of the features separates some classes (quasi-complete separation)"
    )


def remedy(solution: Solution) -> str:
    """A sentence on how to get a finite estimate; a prior on the weights bounds neither intercepts nor scales."""
    if solution.parts:
        return remedy(next(part for part in solution.parts if not part.may_exist))
    head = solution.problem.head
    if not head.support.is_discrete and head.reference is None:
        if not isinstance(head, FactorizedHead) or not head.collapsible:
            return "Check the target and the features"
        name = min(head.collapsible)
        setting = f"head.{name}=…"
        setting = f"head=gaussian_fixed {setting}" if isinstance(head, GaussianHead) else setting
        return f"A given {name} ({setting}) bounds it; check the target, too"
    if one_value(solution.problem) is not None or not solution.problem.prior.flat:
        return "Only rows with other values of the target can tell: a prior on the weights leaves intercepts free"
    features = solution.problem.features
    has_many = features is not None and features.is_whole and features.num_columns > (num_components(FEW) or 0)
    fewer = f", and fewer features (baseline.features={FEW}) may" if has_many else ""
    return f"A prior on the weights (prior=l2) makes it finite{fewer}"
