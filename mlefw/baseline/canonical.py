"""Certificates for linear models of the logits of classes that need no Hessian: separation, and a dual bound."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlefw.baseline.problem import Problem
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.rows.rows import Rows

_MARGIN = 1e-9
"""Least margin of a correctly classified row, as a share of the largest logit."""


def is_separating(problem: Problem, theta: Tensor) -> bool:
    """Whether theta classifies every row correctly, so that the NLL of its multiples goes to its infimum, zero.

    Offsets of the data are ignored, because a multiple of theta outgrows them.
    """
    if not isinstance(problem.head, CategoricalHead | BernoulliHead):
        return False
    least, largest = float("inf"), 0.0
    for rows, logits in _logits(problem, theta, problem.head.center):
        counted = rows.weight > 0
        if not bool(counted.any()):
            continue
        logits, chosen = logits[counted], rows.y[counted].long().unsqueeze(1)
        right = logits.gather(1, chosen)
        margin = right - logits.scatter(1, chosen, -torch.inf).amax(1, keepdim=True)
        least, largest = min(least, float(margin.min())), max(largest, float(logits.abs().max()))
        if not least > 0:
            return False
    return _MARGIN * largest < least < float("inf")


def dual_gap(problem: Problem, theta: Tensor, step: Tensor, left: Tensor) -> float | None:
    """A bound on the excess of the NLL at theta over its minimum, in nats per row, by duality; None if none is found.

    For any class probabilities q with Σ z_i (q_i − y_i)' = 0, the mean entropy of q is a lower bound of the minimum,
    and the NLL at theta exceeds that bound by the mean divergence KL(q, p) from its own probabilities p. The Newton
    step gives such a q: q = p (1 + m − Σ p m) for the movement m of the logits.

    Args:
        problem: a problem without a prior.
        theta: the point, (size,).
        step: approximately −H⁻¹ gradient, (size,).
        left: gradient + H · step, the error of the step, for which 2 |left|' |theta| is added to the bound.
    """
    head = problem.head
    if not isinstance(head, CategoricalHead | BernoulliHead) or getattr(head, "link_name", "logit") != "logit":
        return None
    total = 0.0
    zero = torch.zeros_like(head.center)
    pairs = zip(_logits(problem, theta, head.center, True), _logits(problem, step, zero), strict=True)
    for (rows, logits), (_, movement) in pairs:
        p = logits.softmax(1)
        share = movement - (p * movement).sum(1, keepdim=True)
        if not bool((share > -1).all()):
            return None
        total += float(rows.weight @ (p * (1 + share) * share.log1p()).sum(1))
    return total / problem.population + 2 * float(left.abs() @ theta.abs())


def _logits(problem: Problem, theta: Tensor, origin: Tensor, offset: bool = False) -> Iterator[tuple[Rows, Tensor]]:
    """Blocks of rows with the logits of all classes, (n, K); for two classes the first logit is zero."""
    for rows, _, eta in problem.columns(theta, origin):
        if offset and problem.has_offset:
            eta[:, 0] += rows.offset
        yield rows, eta if eta.shape[1] > 1 else torch.cat([torch.zeros_like(eta), eta], 1)
