"""Links of means and shares: densities by definition, the rules of a head under each link, and a mean kept positive."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from mlefw import inverse_link
from mlefw.distribution.link import SHARE, log_odds_of
from mlefw.errors import UsageError
from mlefw.head.beta import BetaHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.multitask import MultitaskHead
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.ordinal import OrdinalHead
from mlefw.head.poisson import PoissonHead
from mlefw.testing.head import check_head

POSITIVE: dict[str, Callable[[Any], Any]] = {
    "log": mpmath.exp,
    "identity": lambda e: e,
    "inverse": lambda e: 1 / e,
    "sqrt": lambda e: e**2,
    "inverse_squared": lambda e: 1 / mpmath.sqrt(e),
}
CDF: dict[str, Callable[[Any], Any]] = {
    "logit": lambda x: 1 / (1 + mpmath.exp(-x)),
    "probit": mpmath.ncdf,
    "cloglog": lambda x: -mpmath.expm1(-mpmath.exp(x)),
    "loglog": lambda x: mpmath.exp(-mpmath.exp(-x)),
    "cauchit": lambda x: mpmath.atan2(1, -x) / mpmath.pi,
}
CASES = [
    *((head, link, [1.3, 0.2]) for head in (GammaHead, NegativeBinomialHead) for link in POSITIVE),
    *((PoissonHead, link, [1.3]) for link in POSITIVE),
    *((GaussianHead, link, [0.7, 0.3]) for link in inverse_link.REAL),
    *((BetaHead, link, [0.5, 1.6]) for link in SHARE),
    *((lambda link: OrdinalHead(4, link=link), link, [-0.2, 0.1, -0.4]) for link in SHARE),
]
"""A head, a link and a complete eta; the links that a head has by default are tried with its examples."""


@pytest.mark.parametrize(("kind", "link", "eta"), [case for case in CASES if case[1] not in ("log", "logit")])
def test_the_rules_of_a_head_hold_under_every_link(kind: Any, link: str, eta: list[float]) -> None:
    check_head(kind(link=link).double(), [eta], 1e-10)


@pytest.mark.parametrize("link", POSITIVE)
def test_a_positive_mean_by_definition(link: str) -> None:
    transform = inverse_link.POSITIVE[link]
    eta = torch.tensor([1e-3, 0.2, 1.0, 7.0, 40.0], dtype=torch.float64, requires_grad=True)
    expected = [float(mpmath.log(POSITIVE[link](mpmath.mpf(e)))) for e in eta.tolist()]
    log = inverse_link.log_of(transform, eta)
    np.testing.assert_allclose(log.detach(), expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(transform.inv(transform(eta)).detach(), eta.detach(), rtol=1e-13)
    (slope,) = torch.autograd.grad(log.sum(), eta)
    np.testing.assert_allclose(inverse_link.log_slope(transform, eta).exp().detach(), slope.abs(), rtol=1e-13)


@pytest.mark.parametrize("link", SHARE)
def test_log_odds_and_their_slope_by_definition(link: str) -> None:
    far = 6.5 if link == "cloglog" else 30.0
    low = -6.5 if link == "loglog" else -30.0
    points = [low, -5.0, -0.3, 0.0, 0.4, 5.0, far, *([-1e9, 1e9] if link == "cauchit" else [])]
    eta = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    with mpmath.workdps(800):
        p = [CDF[link](mpmath.mpf(e)) for e in points]
        # Far in the upper tail 1 − F by symmetry or by its own formula.
        upper = {"probit": lambda e: mpmath.ncdf(-e), "cauchit": lambda e: mpmath.atan2(1, e) / mpmath.pi}
        q = [upper[link](mpmath.mpf(e)) if link in upper else 1 - one for e, one in zip(points, p, strict=True)]
        expected = [float(mpmath.log(a) - mpmath.log(b)) for a, b in zip(p, q, strict=True)]
    found = SHARE[link].log_odds(eta)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-12, atol=1e-15)
    (slope,) = torch.autograd.grad(found.sum(), eta)
    np.testing.assert_allclose(SHARE[link].log_slope(eta, found).exp().detach(), slope, rtol=1e-9)
    inner = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64)
    np.testing.assert_allclose(SHARE[link].inv(SHARE[link](inner)), inner, rtol=1e-11)
    np.testing.assert_allclose(log_odds_of(SHARE[link], inner), SHARE[link].log_odds(inner))


@pytest.mark.parametrize("link", SHARE)
def test_an_ordered_class_has_the_mass_between_its_thresholds(link: str) -> None:
    head = OrdinalHead(4, link=link).double()
    for eta in ([0.4, 0.1, -0.5], [6.0, 0.3, 0.2], [-5.5, 0.0, -2.0]):
        below = [0.0, np.exp(eta[1]), np.exp(eta[1]) + np.exp(eta[2])]
        with mpmath.workdps(400):
            cdf = [mpmath.mpf(0), *(CDF[link](mpmath.mpf(t) - mpmath.mpf(eta[0])) for t in below), mpmath.mpf(1)]
            expected = [float(-mpmath.log(b - a)) for a, b in pairwise(cdf)]
        found = head.nll_complete(torch.tensor([eta] * 4, dtype=torch.float64), torch.arange(4))
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("link", [name for name in POSITIVE if name != "log"])
@pytest.mark.parametrize("kind", [PoissonHead, GammaHead, NegativeBinomialHead])
def test_a_mean_that_would_be_negative(kind: Any, link: str) -> None:
    """The exact side sees an infinite NLL; training a millionth of the null model, with a slope that leads back."""
    head = kind(link=link).double()
    head.set_units(3.0, 2.0)
    assert float(inverse_link.POSITIVE[link](head.center[0])) == pytest.approx(3.0, rel=1e-14)
    moved = torch.tensor([[-1.0], [0.5]], dtype=torch.float64) * head.center[0]
    complete = torch.cat([moved, torch.zeros(2, head.shared_dim, dtype=torch.float64)], 1)
    y = torch.tensor([2.0, 2.0], dtype=torch.float64)
    exact = head.nll_complete(complete, y)
    assert exact.isinf().tolist() == [True, False]
    eta = moved.requires_grad_()
    nll = head.nll(eta, y)
    nll.sum().backward()
    assert bool(nll.isfinite().all())
    assert nll[1] == exact[1]
    if link != "inverse_squared":
        # A mean near 0 (or with an inverse link an enormous one) is far from 2: the eta has to rise.
        assert eta.grad[0, 0] < 0
    assert bool((head(eta).mean > 0).all())


def test_several_targets_keep_each_mean_positive() -> None:
    head = MultitaskHead({"a": GaussianHead(), "b": PoissonHead(link="identity")}).double()
    head.set_column_units([0.0, 2.0], [1.0, 1.0])
    eta, y = torch.tensor([[-1.0, -1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.3, 1.0]], dtype=torch.float64)
    assert head.nll_complete(eta, y).isinf().item()
    assert head.nll(eta[:, :2], y).isfinite().item()


@pytest.mark.parametrize(
    "kind", [PoissonHead, GammaHead, BetaHead, GaussianHead, lambda link: OrdinalHead(3, link=link)]
)
def test_an_unknown_link_is_refused(kind: Any) -> None:
    with pytest.raises(UsageError, match=r"head\.link='logg': expected one of"):
        kind(link="logg")


def test_a_start_at_zero_is_no_mean() -> None:
    with pytest.raises(UsageError, match=r"eta = 0 gives no rate under head\.link=identity"):
        PoissonHead(start="zero", link="identity")
