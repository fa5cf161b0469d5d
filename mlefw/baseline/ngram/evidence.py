"""The evidence of counts under a Dirichlet prior, and the concentration that maximises it."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, psi

from mlefw.baseline.ngram.counts import Counts

LEAST_LOG, MOST_LOG = -12.0, 10.0
"""Bounds of the logarithm of the concentration."""

_STEP = 2.0


class Evidence(NamedTuple):
    """The most probable concentration.

    Attributes:
        concentration: β.
        code_length: minus the logarithm of the evidence, in nats per counted token.
        is_bound: whether β is a bound of the search, because the evidence has no maximum between.
    """

    concentration: float
    code_length: float
    is_bound: bool


def log_evidence(counts: Counts, center: np.ndarray, concentration: float) -> float:
    """The logarithm of the probability of the counted tokens, in nats, where each context has a Dirichlet prior.

    It is Σ_a [lnΓ(β) − lnΓ(n_a + β) + Σ_b (lnΓ(c_ab + β u_b) − lnΓ(β u_b))] (Polya; MacKay & Peto, 1995), and minus it
    is the length of a code that learns while it goes: the b-th token after context a costs −ln (c_ab + β u_b)/(n_a + β)
    with the counts so far.

    Args:
        counts: c_ab and n_a.
        center: u_b of each key of `counts`, (m,), positive.
        concentration: β.
    """
    seen = gammaln(counts.count + concentration * center) - gammaln(concentration * center)
    contexts = gammaln(counts.context_count + concentration) - gammaln(concentration)
    return float(seen.sum() - contexts.sum())


def maximise_evidence(counts: Counts, center: np.ndarray) -> Evidence:
    """The concentration β of largest evidence with ln β in [−12, 10]; arguments as for `log_evidence`.

    A grid finds the hill, and the root of the slope its top to rounding: near a maximum the values themselves tell
    points apart to the square root of rounding only.
    """

    def code_length(log: float) -> float:
        return -log_evidence(counts, center, float(np.exp(log))) / max(counts.total, 1)

    grid = np.arange(LEAST_LOG, MOST_LOG + _STEP / 2, _STEP)
    best = int(np.argmin([code_length(point) for point in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    rises, falls = _slope(low, counts, center) > 0, _slope(high, counts, center) < 0
    is_bound = (best == 0 and not rises) or (best == len(grid) - 1 and not falls)
    if is_bound:
        log = float(grid[best])
    elif rises and falls:
        log = float(brentq(_slope, low, high, (counts, center), xtol=1e-14, rtol=1e-14))
    else:
        log = float(minimize_scalar(code_length, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x)
    return Evidence(float(np.exp(log)), code_length(log), is_bound)


def _slope(log: float, counts: Counts, center: np.ndarray) -> float:
    """The derivative of the logarithm of the evidence with respect to β, at ln β = `log`."""
    beta = float(np.exp(log))
    seen = center * (psi(counts.count + beta * center) - psi(beta * center))
    return float(seen.sum() - (psi(counts.context_count + beta) - psi(beta)).sum())
