"""Conformance checks of a prior."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from scipy.integrate import quad
from torch import Tensor

from mlefw.prior.base import Prior
from mlefw.testing.conformance import Check, hold

_WEIGHTS = (-4.0, -0.5, 0.0, 1e-4, 0.6, 3.0)
"""Values of a weight to try."""
_STEPS = (1e-3, 0.3, 5.0)
"""Step lengths of the proximal map to try."""


@dataclass(frozen=True)
class PriorCase:
    """A prior in float64, and the tolerance of the integral of its density."""

    prior: Prior
    tolerance: float

    def weights(self, *shape: int) -> Tensor:
        """Standard normal numbers of this shape."""
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def value(self, w: float) -> float:
        """−log p of one weight."""
        return float(self.prior(torch.tensor([[w]], dtype=torch.float64)))

    @torch.no_grad()
    def nonsmooth(self, w: Tensor) -> Tensor:
        """The nonsmooth part of −log p, whose proximal map is `prox`, up to a constant, for each weight of w (k,)."""
        return torch.stack([self.prior(v.reshape(1, 1)) - self.prior.smooth_part(v.reshape(1, 1)) for v in w])


def check_prior(prior: Prior, tolerance: float = 1e-9) -> None:
    """Check a prior against all rules of its kind.

    Args:
        prior: the prior, which is not changed.
        tolerance: tolerance of the integral of the density of a weight.

    Raises:
        ConformanceError: the prior breaks rules; the message names them, and what was found and expected.
    """
    with torch.no_grad():
        hold(prior, PriorCase(deepcopy(prior).double().cpu(), tolerance), CHECKS)


def penalty_is_a_scalar(case: PriorCase) -> Iterator[str]:
    """The penalty, −log p, of a weight tensor of any shape is a scalar; `prox` returns a tensor of that shape."""
    for shape in ((3, 4), (2, 3, 4), (0, 4), (1, 1)):
        w = case.weights(*shape)
        for name, value in (("forward", case.prior(w)), ("smooth_part", case.prior.smooth_part(w))):
            if value.shape != ():
                yield f"{name} of a weight {shape} has shape {tuple(value.shape)}, expected ()"
        for step in (0.1, torch.full_like(w, 0.1)):
            if (moved := case.prior.prox(w, step)).shape != shape:
                yield f"prox of a weight {shape} has shape {tuple(moved.shape)}"


def penalty_is_a_sum_over_entries(case: PriorCase) -> Iterator[str]:
    """The density is a product over entries, and the normalising constant is counted for each entry."""
    w = case.weights(3, 4)
    whole, apart = float(case.prior(w)), math.fsum(case.value(entry) for entry in w.flatten().tolist())
    if not math.isclose(whole, apart, rel_tol=1e-13, abs_tol=1e-13):
        yield f"of 12 entries together it is {whole:.10g}, and the sum over them {apart:.10g}"


def density_integrates_to_one(case: PriorCase) -> Iterator[str]:
    """The density of a weight integrates to one; −log p of a flat prior is zero everywhere."""
    if case.prior.flat:
        if any(case.value(w) != 0 for w in _WEIGHTS):
            yield f"it says that it is flat, and is {case.value(3.0):.4g} at a weight of 3: expected 0"
        return
    ends = ((-math.inf, -1.0), (-1.0, 0.0), (0.0, 1.0), (1.0, math.inf))
    total = sum(quad(lambda w: math.exp(-case.value(w)), *pair, epsabs=1e-13, epsrel=1e-11)[0] for pair in ends)
    if not abs(total - 1) <= case.tolerance:
        yield f"the integral over a weight is {total:.8g}, expected 1 ± {case.tolerance:.0e}"


def smooth_and_nonsmooth_parts_add_up(case: PriorCase) -> Iterator[str]:
    """−log p(w) is smooth_part(w) + rate · Σ|w| up to a constant."""
    first, second = case.weights(5, 4), 2 * case.weights(5, 4).flip(0) + 0.3
    whole = float(case.prior(first) - case.prior(second))
    smooth = float(case.prior.smooth_part(first) - case.prior.smooth_part(second))
    rough = case.prior.rate * float(first.abs().sum() - second.abs().sum())
    if not math.isclose(whole, smooth + rough, rel_tol=1e-11, abs_tol=1e-12):
        parts = f"its smooth part by {smooth:.8g} and rate·|w| by {rough:.8g}"
        yield f"from one weight to another it rises by {whole:.8g}, {parts}"


def gradient_agrees_with_finite_differences(case: PriorCase) -> Iterator[str]:
    """Autograd agrees with finite differences, for −log p away from zero and for its smooth part."""
    w = case.weights(3, 4).requires_grad_()
    for name, function in (("forward", case.prior), ("smooth_part", case.prior.smooth_part)):
        with torch.enable_grad():
            if function(w).requires_grad and not torch.autograd.gradcheck(function, w, raise_exception=False):
                yield f"the gradient of {name} does not agree with finite differences"


def prox_is_the_minimiser(case: PriorCase) -> Iterator[str]:
    """prox(w, step) minimises ½ (v − w)² / step plus the nonsmooth part of −log p(v) over v."""
    for step in _STEPS:
        for w in _WEIGHTS:
            found = case.prior.prox(torch.tensor([[w]], dtype=torch.float64), step).reshape(1)

            def goal(v: Tensor, w: float = w, step: float = step) -> Tensor:
                return (v - w).square() / (2 * step) + case.nonsmooth(v)

            reach = max(abs(w), abs(float(found)), 1e-3)
            tried = torch.cat([torch.linspace(-1.5, 1.5, 61).double() * reach, found * (1 + 1e-3), found * (1 - 1e-3)])
            here, best = float(goal(found)), goal(tried)
            if not here <= float(best.min()) + 1e-12 * max(1.0, abs(here)):
                better = float(tried[best.argmin()])
                gain = here - float(best.min())
                yield f"prox({w}, step={step}) is {float(found):.6g}, and {better:.6g} is better by {gain:.3g}"


def prox_acts_on_each_entry(case: PriorCase) -> Iterator[str]:
    """Prox with a step shaped like the weight equals prox of each entry, and a step of zero changes nothing."""
    prior, w, step = case.prior, case.weights(3, 4), case.weights(3, 4).abs()
    pairs = zip(w.flatten(), step.flatten(), strict=True)
    apart = torch.stack([prior.prox(entry.reshape(1, 1), float(length)).reshape(()) for entry, length in pairs])
    if not torch.equal(prior.prox(w, step).flatten(), apart):
        yield "prox with a step for each entry differs from prox entry by entry"
    if not torch.equal(prior.prox(w, 0.0), w):
        yield "prox with step=0 moves a weight"


def claimed_convexity_holds(case: PriorCase) -> Iterator[str]:
    """`convex = True`: −log p at the midpoint of two weights is at most the mean of −log p at both."""
    if not case.prior.convex:
        return
    size = torch.logspace(-3, 3, 25, dtype=torch.float64)
    w = torch.cat([-size.flip(0), torch.zeros(1, dtype=torch.float64), size]).tolist()
    value = {v: case.value(v) for v in w}
    for one in w[::3]:
        for other in w[1::3]:
            mean, middle = (value[one] + value[other]) / 2, case.value((one + other) / 2)
            if not middle <= mean + 1e-12 * max(1.0, abs(mean)):
                yield f"between the weights {one:.3g} and {other:.3g} −log p is {middle:.6g}, above the mean {mean:.6g}"
                return


CHECKS: tuple[Check[PriorCase], ...] = (
    penalty_is_a_scalar,
    penalty_is_a_sum_over_entries,
    density_integrates_to_one,
    smooth_and_nonsmooth_parts_add_up,
    gradient_agrees_with_finite_differences,
    prox_is_the_minimiser,
    prox_acts_on_each_entry,
    claimed_convexity_holds,
)
