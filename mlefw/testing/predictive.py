"""Conformance checks of the moments, quantiles and draws of a head's distribution against its density."""

import math
from collections.abc import Iterator

import torch
from scipy.stats import kstest

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, is_discrete
from mlefw.head.component import ComponentHead
from mlefw.testing.conformance import Check
from mlefw.testing.head_case import HeadCase
from mlefw.testing.likelihood import at


def mean_and_variance_are_those_of_the_density(case: HeadCase) -> Iterator[str]:
    """The stated mean and variance are ∫ y p(y) dy and ∫ (y − mean)² p(y) dy."""
    for nodes in case.whole if case.head.target == "numeric" else []:
        distribution = case.head.distribution(nodes.eta)
        mean = float(nodes.mass @ nodes.y)
        variance = float(nodes.mass @ (nodes.y - mean).square())
        scale = math.sqrt(variance)
        for name, expected, unit in (("mean", mean, max(abs(mean), 1e-1 * scale)), ("variance", variance, variance)):
            found = float(getattr(distribution, name))
            # A moment that does not exist is stated as infinite or NaN.
            if math.isfinite(found) and not abs(found - expected) <= 10 * case.tolerance * unit:
                yield f"{at(nodes)} the stated {name} is {found:.8g}, and that of the density {expected:.8g}"


def cdf_is_that_of_the_density(case: HeadCase) -> Iterator[str]:
    """The distribution function is the mass below y."""
    for nodes in case.whole:
        distribution = case.head.distribution(nodes.eta)
        for level in (0.1, 0.5, 0.9):
            y = nodes.at(level)
            inside = nodes.y <= y if is_discrete(distribution) else nodes.y < y
            found, expected = float(cdf(distribution, y)), float(nodes.mass[inside].sum())
            # For a density, the error is at most the mass of the node at y.
            room = 1e-9 if is_discrete(distribution) else 1.01 * float(nodes.mass[nodes.y == y].sum()) + 1e-9
            if not abs(found - expected) <= room:
                yield f"{at(nodes)} P(Y <= {float(y):.6g}) is stated as {found:.6g}, and is {expected:.6g}"


def quantiles_invert_the_cdf(case: HeadCase) -> Iterator[str]:
    """The quantile at a level is the least y with P(Y <= y) >= level."""
    for nodes in case.whole:
        distribution = case.head.distribution(nodes.eta.unsqueeze(0))
        for level in (1e-6, 0.01, 0.25, 0.5, 0.9, 0.999999):
            q = quantile.quantile(distribution, level)
            reached = float(cdf(distribution, q))
            if is_discrete(distribution):
                if not (reached >= level - 1e-15 and float(cdf(distribution, q - 1)) < level):
                    yield f"{at(nodes)} the quantile at {level} is {float(q)}, where P(Y <= y) is {reached}"
            elif not math.isclose(reached, level, rel_tol=1e-8):
                yield f"{at(nodes)} P(Y <= quantile at {level}) is {reached:.10g}"


def own_draws_have_a_uniform_pit(case: HeadCase) -> Iterator[str]:
    """Draws lie in the support, and their PIT is uniform (a p-value below 1e-4 fails)."""
    for seed, nodes in enumerate(case.whole):
        distribution = case.head.distribution(nodes.eta.expand(20_000, -1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            y, u = distribution.sample(), torch.rand(20_000, dtype=torch.float64)
        if not bool(case.head.support.check(y).all()):
            yield f"{at(nodes)} draws lie outside the support {case.head.support}"
            continue
        lower, upper = quantile.pit_bounds(distribution, y)
        p = float(kstest((lower + (upper - lower) * u).detach().numpy(), "uniform").pvalue)
        if not p > 1e-4:
            yield f"{at(nodes)} the PIT of 20,000 draws is not uniform (p = {p:.2g})"


def log_link_is_true_if_exposure_multiplies_the_mean(case: HeadCase) -> Iterator[str]:
    """`log_link` is True if and only if adding log c to the first eta multiplies the mean by c.

    Of a head around another one it is the mean of the component, without bounds.
    """
    head = case.head
    while isinstance(head, ComponentHead) and not head.event_shape:
        head = head.component
    if head.event_shape or head.target in ("labels", "ordered"):
        return
    eta = torch.full((1, head.eta_dim), 0.3, dtype=torch.float64)
    moved = eta.clone()
    moved[:, 0] += math.log(5.0)
    with torch.no_grad():
        ratio = float(head(moved).mean / head(eta).mean)
    if math.isfinite(ratio) and math.isclose(ratio, 5, rel_tol=1e-12) != head.log_link:
        yield f"log_link is {head.log_link}, and log 5 added to the first eta multiplies the mean by {ratio:.12g}"


def training_descends_the_nll(case: HeadCase) -> Iterator[str]:
    """`descent_nll` is the NLL for `kink` = 0, and otherwise less than `kink` below it."""
    head, predicted, y = case.head, case.predicted, case.rows[1]
    if head.kink != 0.0 or not torch.equal(head.descent_nll(predicted, y), head.nll(predicted, y)):
        yield f"kink is {head.kink} and descent_nll is not nll: expected 0 and the same numbers"
    for width in (1.0, 1e-3, 1e-10):
        head.kink = width
        gap = (head.nll(predicted, y) - head.descent_nll(predicted, y)).detach()
        head.kink = 0.0
        rounding = 1e-14 * float(head.nll(predicted, y).detach().abs().max())
        if not (float(gap.min()) >= -rounding and float(gap.max()) <= width + rounding):
            yield f"with kink={width} descent_nll is {float(gap.min()):.3g} to {float(gap.max()):.3g} below the NLL"


CHECKS: tuple[Check[HeadCase], ...] = (
    mean_and_variance_are_those_of_the_density,
    cdf_is_that_of_the_density,
    quantiles_invert_the_cdf,
    own_draws_have_a_uniform_pit,
    log_link_is_true_if_exposure_multiplies_the_mean,
    training_descends_the_nll,
)
