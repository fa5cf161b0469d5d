"""What a person can do where an estimate is not finite."""

from mlefw.baseline.base import Solution


def remedy(solution: Solution) -> str:
    """What makes it finite: a prior on the weights holds weights alone, neither intercepts nor scales."""
    head = solution.problem.head
    if not head.support.is_discrete:
        return "A given scale (head=gaussian_fixed, head.scale=…) bounds it; check the target, too"
    y = solution.problem.rows.y[solution.problem.rows.weight > 0]
    one_value = bool((y == y[0]).all())
    if one_value or not solution.problem.prior.flat:
        return "The target takes one value only, or lacks a class: there is nothing to tell apart"
    return "A prior on the weights (prior=l2) makes it finite"
