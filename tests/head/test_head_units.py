"""Units, start and floor of the scales of every head."""

import math

import mpmath
import numpy as np
import pytest
import torch
from head_examples import (
    EXAMPLES,
    each,
    exact,
    location_scale,
    make,
    tensors,
)

from mlefw.head.component import ComponentHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead


@location_scale
@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1000.0, -3.0), (0.25, 1e3)])
def test_nll_changes_with_the_unit_by_its_jacobian(name, factor, shift):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    moved = torch.stack([factor * eta[:, 0] + shift, eta[:, 1] + math.log(factor)], -1)
    got = head.nll_complete(moved, factor * y + shift) - math.log(factor)
    np.testing.assert_allclose(got, exact(name, EXAMPLES[name].points), rtol=1e-9)


@location_scale
@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1000.0, -3.0)])
def test_set_units_makes_the_raw_output_free_of_units(name, factor, shift):
    generator = torch.Generator().manual_seed(3)
    y = 5 + 2 * torch.randn(50, generator=generator, dtype=torch.float64)

    def nll(target, **units):
        head = make(name)
        head.set_units(**units)
        raw = 0.3 * torch.randn(50, head.eta_dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        return head.nll(head.center[: head.eta_dim] + head.gain[: head.eta_dim] * raw, target)

    plain = nll(y, mean=5.0, spread=2.0)
    moved = nll(factor * y + shift, mean=5.0 * factor + shift, spread=2.0 * factor)
    np.testing.assert_allclose((moved - math.log(factor)).detach().numpy(), plain.detach().numpy(), rtol=1e-8)


@each
def test_a_fresh_head_has_no_units(name):
    head = make(name)
    columns = head.eta_dim + head.shared_dim
    assert head.center.tolist() == [0.0] * columns
    assert head.gain.tolist() == [1.0] * columns
    assert float(head.floor) == 0.0
    assert head.shared.tolist() == [0.0] * head.shared_dim
    assert set(head.state_dict()) >= {"center", "gain", "floor", "shared"}
    assert head.learns or len(head.state_dict()) == 4
    assert {key for key, value in head.state_dict().items() if value.dtype != torch.float64} == set()


@each
def test_set_units(name):
    head = make(name)
    head.set_units(3.0, 2.0)
    center, gain = EXAMPLES[name].set_units
    assert head.center.tolist() == pytest.approx(center, rel=1e-15)
    assert head.gain.tolist() == gain


@location_scale
@pytest.mark.parametrize(
    ("mean", "spread", "unit"), [(3.0, 2.0, 2.0), (-7.0, 0.0, 7.0), (0.0, 0.0, 1.0), (0.0, 1e-200, 1e-200)]
)
def test_the_unit_and_the_floor_are_positive_for_any_target(name, mean, spread, unit):
    head = make(name)
    head.set_units(mean, spread)
    assert head.center.tolist() == pytest.approx([mean, math.log(unit)], rel=1e-15)
    assert head.gain.tolist() == [unit, 1.0]
    assert float(head.floor) == pytest.approx(1e-3 * unit, rel=1e-15)


@each
def test_log_link_is_where_an_exposure_multiplies_the_mean(name):
    head, example = make(name), EXAMPLES[name]
    assert head.log_link == example.log_link
    # An exposure multiplies the mean of a component, not that of what is seen of it.
    if not example.integer and not isinstance(head, ComponentHead):
        eta = torch.full((1, head.eta_dim), 0.3, dtype=torch.float64)
        moved = eta.clone()
        moved[:, 0] += math.log(5.0)
        multiplied = math.isclose(head(moved).mean.item(), 5 * head(eta).mean.item(), rel_tol=1e-12)
        assert multiplied == head.log_link


@each
@pytest.mark.parametrize("kink", [1.0, 1e-3, 1e-10])
def test_what_a_line_search_sees_is_less_than_the_kink_below_the_nll(name, kink):
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)
    predicted = eta[:, : head.eta_dim].clone().requires_grad_()
    if not EXAMPLES[name].integer and head.support is torch.distributions.constraints.real:
        y[0] = predicted[0, 0].item()
    head.kink = kink
    gap = (head.nll(predicted, y) - head.descent_nll(predicted, y)).detach()
    rounding = 1e-14 * head.nll(predicted, y).abs().max().item()
    assert float(gap.min()) >= -rounding
    assert float(gap.max()) <= kink + rounding
    head.descent_nll(predicted, y).sum().backward()
    assert bool(torch.isfinite(predicted.grad).all())
    if EXAMPLES[name].smooth:
        assert bool((gap == 0).all())
    else:
        assert float(gap.max()) > 0
        (slope,) = torch.autograd.grad(head.descent_nll(predicted, y)[0], predicted)
        # At a kink the slope is half way between those on its two sides: for a median it is zero.
        expected = (0.5 - head.levels[0]) / len(head.levels) if name == "quantiles" else 0.0
        assert slope[0, 0].item() == pytest.approx(expected, rel=1e-12, abs=0.0)


@location_scale
def test_the_scale_is_the_larger_of_exp_eta_and_the_floor(name):
    head = make(name)
    head.floor.fill_(0.1)
    log_scale = torch.tensor([-900.0, -5.0, math.log(0.1) - 1e-9, math.log(0.1) + 1e-9, 0.0, 3.0], dtype=torch.float64)
    eta = torch.stack([torch.zeros(6, dtype=torch.float64), log_scale], -1)
    scale = head.distribution(eta).scale
    expected = np.maximum(np.exp(log_scale.numpy()), 0.1)
    np.testing.assert_allclose(scale, expected, rtol=1e-15)
    assert scale[:3].tolist() == [float(head.floor)] * 3


@location_scale
def test_an_interior_value_is_untouched_by_the_floor(name):
    free, floored = make(name), make(name)
    floored.floor.fill_(1e-3)
    eta, y = tensors(name, EXAMPLES[name].points)
    eta = eta.requires_grad_()
    results = []
    for head in (free, floored):
        nll = head.nll_complete(eta, y)
        (first,) = torch.autograd.grad(nll.sum(), eta, create_graph=True)
        results.append((nll, first))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@location_scale
def test_below_the_floor_only_a_gradient_that_raises_the_scale_passes(name):
    head = make(name)
    head.floor.fill_(0.1)
    eta = torch.tensor([[0.0, -4.0], [0.0, -4.0]], dtype=torch.float64, requires_grad=True)
    far, near = 50.0, 0.001
    head.nll_complete(eta, torch.tensor([far, near], dtype=torch.float64)).sum().backward()
    raises, lowers = eta.grad[:, 1].tolist()
    # At the scale floor 0.1, d nll / d scale times d exp(eta) / d eta = exp(-4).
    with mpmath.workdps(60):
        slope = mpmath.diff(lambda s: EXAMPLES[name].nll([mpmath.mpf(0), mpmath.log(s)], far), mpmath.mpf(0.1))
    assert raises == pytest.approx(float(slope) * math.exp(-4), rel=1e-12)
    assert raises < 0
    assert lowers == 0.0


@location_scale
def test_density_on_the_floor_is_that_of_the_floor(name):
    head = make(name)
    head.floor.fill_(0.1)
    eta = torch.tensor([[0.5, -20.0]], dtype=torch.float64)
    expected = -EXAMPLES[name].frozen([0.5, math.log(0.1)]).logpdf(0.7)
    assert float(head.nll_complete(eta, torch.tensor([0.7], dtype=torch.float64))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
def test_a_fixed_scale_knows_no_floor(kind):
    head = kind(scale=0.5)
    head.set_units(0.0, 1e6)
    assert head(torch.zeros(3, 1)).scale.tolist() == [0.5] * 3
