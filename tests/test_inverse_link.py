"""Inverse links: values, gradients, and the one-sided floor."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import constraints
from torch.func import grad, vmap

from mlefw import inverse_link

FLOOR = torch.tensor(0.5, dtype=torch.float64)


def test_identity_and_exp():
    eta = torch.tensor([-700.0, -1.0, 0.0, 2.5, 700.0], dtype=torch.float64)
    assert torch.equal(inverse_link.identity(eta), eta)
    np.testing.assert_allclose(inverse_link.exp(eta), [math.exp(e) for e in eta.tolist()], rtol=1e-15)


@pytest.mark.parametrize("name", ["identity", "exp", "sigmoid", "above_one"])
def test_a_link_is_a_bijection_from_the_reals_to_its_codomain(name):
    link = getattr(inverse_link, name)
    eta = torch.linspace(-20, 20, 41, dtype=torch.float64)
    assert link.bijective
    assert link.domain is constraints.real
    assert bool(link.codomain.check(link(eta)).all())
    # Near 1 a probability, and one more than a tiny number, has lost digits of the eta that it came from.
    tolerance = 2.0**-52 * math.exp(20) if name in ("sigmoid", "above_one") else 1e-14
    torch.testing.assert_close(link.inv(link(eta)), eta, rtol=1e-14, atol=tolerance)


def test_the_codomains():
    minus = torch.tensor(-1.0)
    assert bool(inverse_link.identity.codomain.check(minus))
    assert not bool(inverse_link.exp.codomain.check(minus))


def test_sigmoid_is_not_clipped():
    eta = torch.tensor([-708.0, -40.0, 0.0, 30.0], dtype=torch.float64)
    expected = [1 / (1 + math.exp(-e)) if e > 0 else math.exp(e) / (1 + math.exp(e)) for e in eta.tolist()]
    np.testing.assert_allclose(inverse_link.sigmoid(eta), expected, rtol=1e-13)
    assert inverse_link.above_one(eta).tolist() == [1 + math.exp(e) for e in eta.tolist()]


def test_links_in_words():
    named = [inverse_link.eta_words(getattr(inverse_link, n), "a") for n in ("identity", "exp", "sigmoid", "above_one")]
    assert named == ["a", "log a", "logit a", "log (a - 1)"]
    assert inverse_link.eta_words(torch.distributions.SoftplusTransform(), "a") == "a before its SoftplusTransform"
    assert inverse_link.codomain_words(inverse_link.above_one) == "a number above 1"


def test_floored_is_the_larger_one():
    value = torch.tensor([1e-300, 0.4999, 0.5, 0.5001, 1e300], dtype=torch.float64)
    assert inverse_link.floored(value, FLOOR).tolist() == [0.5, 0.5, 0.5, 0.5001, 1e300]


def test_a_floor_of_zero_changes_nothing():
    value = torch.tensor([5e-324, 1.0], dtype=torch.float64)
    assert torch.equal(inverse_link.floored(value, torch.zeros((), dtype=torch.float64)), value)


@pytest.mark.parametrize(
    ("value", "slope", "passed"), [(0.6, 3.0, 3.0), (0.6, -3.0, -3.0), (0.4, 3.0, 0.0), (0.4, -3.0, -3.0)]
)
def test_below_the_floor_only_descent_upwards_passes(value, slope, passed):
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    (slope * inverse_link.floored(x, FLOOR)).backward()
    assert x.grad.item() == passed


def test_on_the_floor_exactly_it_may_rise_and_not_fall():
    for slope, passed in ((3.0, 0.0), (-3.0, -3.0)):
        x = FLOOR.clone().requires_grad_()
        (slope * inverse_link.floored(x, FLOOR)).backward()
        assert x.grad.item() == passed


def test_gradients_of_an_interior_value():
    value = torch.tensor([0.6, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: inverse_link.floored(v, FLOOR), value)
    assert torch.autograd.gradgradcheck(lambda v: inverse_link.floored(v, FLOOR).log(), value)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_it_maps_over_rows():
    value = torch.tensor([0.1, 0.6, 2.0], dtype=torch.float64)
    slopes = vmap(grad(lambda v: -2 * inverse_link.floored(v, FLOOR)))(value)
    assert slopes.tolist() == [-2.0, -2.0, -2.0]
    slopes = vmap(grad(lambda v: 2 * inverse_link.floored(v, FLOOR)))(value)
    assert slopes.tolist() == [0.0, 2.0, 2.0]


def test_an_escape_from_the_floor():
    # A scale far below its floor beside a wrong location: plain maximum would leave it there for ever.
    log_scale = torch.tensor(-9.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Rprop([log_scale], lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        scale = inverse_link.floored(log_scale.exp(), torch.tensor(1e-3, dtype=torch.float64))
        (scale.log() + 0.5 * (3.0 / scale) ** 2).backward()
        optimizer.step()
    assert log_scale.exp().item() == pytest.approx(3.0, rel=1e-3)
