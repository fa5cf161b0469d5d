"""What every head must do: the public checks over all of them, and oracles at ordinary and extreme values."""

import pkgutil

import hydra.utils
import numpy as np
import pytest
import scipy.stats
import torch
from head_examples import (
    EDGES,
    EXAMPLES,
    MEMBERS,
    SEVERAL,
    distinct_etas,
    each,
    exact,
    make,
    node,
    tensors,
)

import mlefw.head
from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf as cumulative
from mlefw.head.base import Head
from mlefw.head.categorical import CategoricalHead
from mlefw.head.censored import CensoredHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.mixture import MixtureHead
from mlefw.head.multitask import MultitaskHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.student_t import StudentTHead
from mlefw.objective.tape import Tape
from mlefw.testing.head import check_head


def test_every_yaml_has_an_example_and_every_example_a_yaml():
    assert set(EXAMPLES) == set(MEMBERS)


def test_every_member_module_has_a_yaml():
    modules = {f"mlefw.head.{info.name}" for info in pkgutil.iter_modules(mlefw.head.__path__)}
    modules -= {"mlefw.head.base", "mlefw.head.head", "mlefw.head.location_scale", "mlefw.head.trials"}
    modules -= {"mlefw.head.component"}
    targets = {node(name)["_target_"].rpartition(".")[0] for name in (*MEMBERS, *SEVERAL)}
    assert modules == targets
    assert all(issubclass(hydra.utils.get_class(node(name)["_target_"]), Head) for name in (*MEMBERS, *SEVERAL))


KNOTS = {
    "huber": lambda eta: eta[0] + eta[1].exp() * torch.tensor([-1.345, 1.345], dtype=torch.float64),
    "histogram": lambda eta: torch.tensor(EDGES[1:-1], dtype=torch.float64),
    "transformation": lambda eta: torch.tensor([-1.0, 3.0], dtype=torch.float64),
}
"""Where the density of a head is not smooth, for a complete eta."""


@pytest.mark.parametrize(
    "head",
    [
        MultivariateGaussianHead(("a", "b", "c")),
        MultitaskHead({"a": GaussianHead(), "k": CategoricalHead(3)}),
        MultitaskHead({"a": StudentTHead(), "g": GammaHead()}),
        MixtureHead(GaussianHead(), 2),
        MixtureHead(PoissonHead(), 2),
        CensoredHead(GaussianHead()),
    ],
    ids=["multivariate", "with_classes", "numbers", "mixture", "mixture_of_counts", "censored"],
)
def test_the_public_checks_on_heads_of_several(head):
    check_head(head)


@each
def test_an_eta_without_columns_is_refused(name):
    with pytest.raises(ValueError, match="eta has shape"):
        make(name)(torch.tensor(0.0))


@each
def test_the_public_checks(name):
    check_head(make(name), distinct_etas(name), 1e-12, KNOTS.get(name))


@each
def test_the_public_checks_where_a_head_starts(name):
    check_head(make(name), knots=KNOTS.get(name))


@each
def test_a_step_can_be_recorded(name):
    """Nothing reads values, torch's checks of arguments included: a recorded step takes a third of the time."""
    head = make(name)
    eta, y = tensors(name, EXAMPLES[name].points)

    def descend(eta, y):
        with torch.enable_grad():
            leaf = eta.detach().requires_grad_()
            loss = head.nll_complete(leaf, y).sum()
            return [loss.detach(), *torch.autograd.grad(loss, leaf)]

    tape = Tape(descend, [eta, y])
    torch.testing.assert_close(tape(eta, y), descend(eta, y), rtol=0, atol=0, equal_nan=True)


@each
def test_gradients_stay_finite_at_extremes(name):
    head, example = make(name), EXAMPLES[name]
    # The square root of the largest float bounds the density's argument, so that its derivative has room.
    eta, y = tensors(name, [point for point in example.extremes if exact(name, [point])[0] < 1e150])
    eta.requires_grad_()
    head.nll_complete(eta, y).sum().backward()
    assert len(eta) > 1
    assert bool(torch.isfinite(eta.grad).all())


@each
def test_density_against_scipy(name):
    example = EXAMPLES[name]
    eta, y = tensors(name, example.points)
    got = make(name).nll_complete(eta, y).numpy()
    frozen = [example.frozen(row) for row, _ in example.points]
    log = [f.logpmf if discrete(f) else f.logpdf for f in frozen]
    expected = [-float(f(y)) for f, (_, y) in zip(log, example.points, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def discrete(frozen) -> bool:
    return isinstance(getattr(frozen, "dist", frozen), scipy.stats.rv_discrete)


@each
def test_density_against_the_definition(name):
    eta, y = tensors(name, EXAMPLES[name].points)
    got = make(name).nll_complete(eta, y).numpy()
    np.testing.assert_allclose(got, exact(name, EXAMPLES[name].points), rtol=1e-12)


@each
def test_density_against_the_definition_at_extremes(name):
    points = EXAMPLES[name].extremes
    eta, y = tensors(name, points)
    got, expected = make(name).nll_complete(eta, y).numpy(), exact(name, points)
    wrong = ~(np.abs(got - expected) <= 1e-9 * np.abs(expected) + 1e-300)
    assert [(points[i], got[i], expected[i]) for i in np.flatnonzero(wrong)] == []


@each
def test_quantiles_against_scipy(name):
    distribution = make(name).distribution(torch.tensor(distinct_etas(name), dtype=torch.float64))
    for level in (1e-6, 0.01, 0.25, 0.5, 0.9, 0.999999):
        expected = [EXAMPLES[name].frozen(row).ppf(level) for row in distinct_etas(name)]
        np.testing.assert_allclose(quantile.quantile(distribution, level), expected, rtol=1e-7, atol=1e-9)


@each
def test_cdf_against_scipy(name):
    distribution = make(name).distribution(tensors(name, EXAMPLES[name].points)[0])
    y = tensors(name, EXAMPLES[name].points)[1]
    expected = [EXAMPLES[name].frozen(eta).cdf(y) for eta, y in EXAMPLES[name].points]
    # torch.special.gammaincc is right to 4e-10 only, from an argument of 20 on.
    atol = 4e-10 if name == "poisson" else 1e-14
    np.testing.assert_allclose(cumulative(distribution, y), expected, rtol=1e-11, atol=atol)


@each
def test_support_takes_what_has_mass_and_nothing_else(name):
    head, example = make(name), EXAMPLES[name]
    assert bool(head.support.check(tensors(name, example.points)[1]).all())
    dtype = torch.int64 if example.integer else torch.float64
    assert not bool(head.support.check(torch.tensor(example.outside, dtype=dtype)).any())
