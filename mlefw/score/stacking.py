"""Stacking: weights of a mixture of models by maximum likelihood on rows that none of them was trained on."""

import math
from typing import NamedTuple

from torch import Tensor

from mlefw.rows.rows import weighted_sum

_TOLERANCE = 1e-9
"""Nats per row, to which the least NLL is found."""
_MAX_STEPS = 20_000


class Stacked(NamedTuple):
    """Weights of models.

    Attributes:
        weight: of each model, not negative, with the sum 1, (K,).
        nll: mean NLL of the mixture on the rows, in nats per row.
        gap: bound on how far that is above the least over all weights, in nats per row.
    """

    weight: Tensor
    nll: float
    gap: float


def stacked(nll: Tensor, weight: Tensor) -> Stacked:
    """The weights of a mixture of densities that minimise its mean NLL.

    The problem is convex, and expectation maximisation goes down to its minimum: a model's new weight is the mean share
    that it has in the density of a row. With shares relative to the weights, r_k = mean(p_k / p), the NLL is at most
    max_k r_k − 1 above the least, since it is convex in the weights; that bound is what the iteration stops by.

    Source: Smyth & Wolpert (1999); Yao et al. (2018), stacking of predictive distributions by the logarithmic score.

    Args:
        nll: of each row under each model, in nats, (n, K); infinite where a model gives a row no density.
        weight: of the rows, as frequencies, (n,).
    """
    # A common factor of a row's densities changes no weight, and keeps the largest of them at one.
    least = nll.amin(1, keepdim=True)
    # Where no model gives a row any density, no weight would.
    density, share = (least - nll).nan_to_num(nan=0.0, neginf=-math.inf).exp(), weight / weight.sum()
    found = density.new_full((nll.shape[1],), 1 / nll.shape[1])
    gap = float("inf")
    for _ in range(_MAX_STEPS):
        ratio = share @ (density / (density @ found).unsqueeze(1))
        gap = max(float(ratio.max()) - 1, 0.0)
        if gap <= _TOLERANCE:
            break
        found = found * ratio
    found = found / found.sum()
    mixed = least.squeeze(1) - (density @ found).log()
    return Stacked(found, float(weighted_sum(weight, mixed) / weight.sum()), gap)
