"""How much too good the least NLL of several candidates looks, because it was chosen on the rows it was measured on."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_REPLICATES = 1000

_MOST_UNITS = 5_000
"""Most units that are drawn; more are gathered at random into as many bags of equal size."""

_PART = 50
"""Replicates at a time, which bounds the memory."""

Floats = NDArray[np.float64]


def optimism(nll: Iterable[Floats], weight: Floats, unit: NDArray[np.int64] | None = None, seed: int = 0) -> float:
    """The expected NLL on new rows of the candidate with the least mean NLL, minus this least mean, in nats.

    In each bootstrap replicate the best candidate is chosen on units drawn with replacement, and measured on those that
    were not drawn (BBC; Tsamardinos, Greasidou & Borboudakis, 2018). The result does not depend on how many candidates
    there are by name, only on how differently they score: copies of a candidate add nothing.

    Args:
        nll: of each row, (n,), in nats and finite, under each candidate; they are read one after the other.
        weight: of each row, (n,).
        unit: the independent unit of each row, (n,), from 0; None where each row is one.
        seed: of the draws.

    Returns:
        The difference; 0 for a single candidate, NaN for fewer than two units.
    """
    random = np.random.default_rng(seed)
    some = weight > 0
    weight = weight[some]
    code = np.arange(len(weight)) if unit is None else np.unique(unit[some], return_inverse=True)[1]
    count = int(code.max(initial=-1)) + 1
    if count < 2:
        return float("nan")
    if count > _MOST_UNITS:
        code, count = (random.permutation(count) % _MOST_UNITS)[code], _MOST_UNITS
    whole = np.bincount(code, weight, count)
    sums = np.stack([np.bincount(code, weight * column[some], count) for column in nll], axis=1)
    if sums.shape[1] < 2:
        return 0.0
    measured, share = [], np.full(count, 1 / count)
    for _ in range(_REPLICATES // _PART):
        drawn = random.multinomial(count, share, _PART).astype(np.float64)
        # Of few units, all may be drawn: such a replicate tells nothing.
        drawn = drawn[(drawn == 0).any(1)]
        left = (drawn == 0).astype(np.float64)
        best = ((drawn @ sums) / (drawn @ whole)[:, None]).argmin(1)
        measured.append(((left @ sums) / (left @ whole)[:, None])[np.arange(len(best)), best])
    return float(np.concatenate(measured).mean() - (sums.sum(0) / whole.sum()).min())
