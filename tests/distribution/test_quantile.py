"""Cdf, quantiles, intervals and PIT of any distribution."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Exponential,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    Weibull,
)

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf, is_discrete, survival

LEVELS = (1e-4, 0.05, 0.25, 0.5, 0.75, 0.95, 0.9999)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PROBS = [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 1.0, 0.0, 0.0]]

CONTINUOUS = {
    "normal": (
        Normal(t(0, 5, -1e6), t(1, 1e-3, 1e3)),
        [scipy.stats.norm(*p) for p in ((0, 1), (5, 1e-3), (-1e6, 1e3))],
    ),
    "laplace": (
        Laplace(t(0, 5, -1e6), t(1, 1e-3, 1e3)),
        [scipy.stats.laplace(*p) for p in ((0, 1), (5, 1e-3), (-1e6, 1e3))],
    ),
    "gamma": (
        Gamma(t(5, 1, 80), t(0.5, 1, 1e3), validate_args=False),
        [scipy.stats.gamma(a, scale=1 / b) for a, b in ((5, 0.5), (1, 1), (80, 1e3))],
    ),
}

DISCRETE = {
    "poisson": (
        Poisson(t(1e-3, 0.7, 3, 150, 1e6), validate_args=False),
        [scipy.stats.poisson(r) for r in (1e-3, 0.7, 3, 150, 1e6)],
    ),
    "bernoulli": (Bernoulli(t(0.02, 0.5, 0.97)), [scipy.stats.bernoulli(p) for p in (0.02, 0.5, 0.97)]),
    "categorical": (
        Categorical(torch.tensor(PROBS, dtype=torch.float64)),
        [scipy.stats.rv_discrete(values=(range(4), p)) for p in PROBS],
    ),
}

ALL = CONTINUOUS | DISCRETE

each = pytest.mark.parametrize("name", sorted(ALL))
continuous = pytest.mark.parametrize("name", sorted(CONTINUOUS))
discrete = pytest.mark.parametrize("name", sorted(DISCRETE))


@each
def test_which_is_discrete(name):
    assert is_discrete(ALL[name][0]) == (name in DISCRETE)


@each
@pytest.mark.parametrize("level", LEVELS)
def test_quantile_against_scipy(name, level):
    distribution, frozen = ALL[name]
    got = quantile.quantile(distribution, level)
    assert got.shape == (len(frozen),)
    if name in DISCRETE:
        assert got.tolist() == [f.ppf(level) for f in frozen]
    else:
        np.testing.assert_allclose(got, [f.ppf(level) for f in frozen], rtol=1e-7)


@continuous
@pytest.mark.parametrize("level", LEVELS)
def test_cdf_undoes_the_quantile(name, level):
    distribution, _ = CONTINUOUS[name]
    np.testing.assert_allclose(cdf(distribution, quantile.quantile(distribution, level)), level, rtol=1e-9)


@discrete
@pytest.mark.parametrize("level", LEVELS)
def test_a_discrete_quantile_is_the_first_value_that_reaches_the_level(name, level):
    distribution, _ = DISCRETE[name]
    q = quantile.quantile(distribution, level)
    assert bool((cdf(distribution, q) >= level).all())
    assert bool((cdf(distribution, q - 1) < level).all())


@each
def test_cdf_against_scipy(name):
    distribution, frozen = ALL[name]
    for level in LEVELS:
        y = [f.ppf(level) for f in frozen]
        expected = [f.cdf(v) for f, v in zip(frozen, y, strict=True)]
        got = cdf(distribution, t(*y))
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-14)


@discrete
@pytest.mark.parametrize(("y", "where"), [(-1.0, -1), (-0.5, -1), (0.0, 0), (0.5, 0), (1.0, 1), (1.999, 1), (2.0, 2)])
def test_a_discrete_cdf_is_a_staircase_from_zero(name, y, where):
    distribution, frozen = DISCRETE[name]
    got = cdf(distribution, torch.full((len(frozen),), y, dtype=torch.float64))
    np.testing.assert_allclose(got, [f.cdf(where) for f in frozen], rtol=1e-9, atol=1e-13)


@discrete
def test_a_discrete_cdf_ends_at_one(name):
    distribution, frozen = DISCRETE[name]
    got = cdf(distribution, torch.full((len(frozen),), 1e9, dtype=torch.float64))
    np.testing.assert_allclose(got, 1.0, rtol=1e-15)


@each
def test_intervals_are_central(name):
    distribution, frozen = ALL[name]
    for level in (0.5, 0.9):
        low, high = quantile.interval(distribution, level)
        np.testing.assert_allclose(low, [f.ppf((1 - level) / 2) for f in frozen], rtol=1e-7)
        np.testing.assert_allclose(high, [f.ppf((1 + level) / 2) for f in frozen], rtol=1e-7)


@each
def test_the_pit_lies_between_the_mass_below_and_the_mass_up_to_y(name):
    distribution, frozen = ALL[name]
    y = [f.ppf(0.6) for f in frozen]
    lower, upper = quantile.pit_bounds(distribution, t(*y))
    atol = 1e-14
    np.testing.assert_allclose(upper, [f.cdf(v) for f, v in zip(frozen, y, strict=True)], rtol=1e-9, atol=atol)
    if name in CONTINUOUS:
        assert torch.equal(lower, upper)
    else:
        mass = [f.pmf(v) for f, v in zip(frozen, y, strict=True)]
        np.testing.assert_allclose(upper - lower, mass, rtol=1e-6, atol=2 * atol)


def test_whole_number_labels_are_taken_as_they_come():
    distribution, frozen = DISCRETE["categorical"]
    y = torch.tensor([0, 3, 1])
    lower, upper = quantile.pit_bounds(distribution, y)
    np.testing.assert_allclose(lower, [0.0, 0.9, 0.0], atol=1e-15)
    np.testing.assert_allclose(upper, [0.1, 1.0, 1.0], rtol=1e-15)
    assert len(frozen) == 3


@each
def test_no_rows_give_no_quantiles(name):
    empty = {
        "normal": lambda: Normal(t(), t()),
        "laplace": lambda: Laplace(t(), t()),
        "gamma": lambda: Gamma(t(), t(), validate_args=False),
        "poisson": lambda: Poisson(t()),
        "bernoulli": lambda: Bernoulli(t()),
        "categorical": lambda: Categorical(logits=torch.zeros(0, 3), validate_args=False),
    }[name]()
    assert quantile.quantile(empty, 0.3).shape == (0,)


def test_rows_of_very_different_size_do_not_disturb_each_other():
    rates = t(1e-6, 1.0, 1e9)
    for level in (0.05, 0.5, 0.95):
        expected = scipy.stats.poisson(rates.numpy()).ppf(level)
        got = quantile.quantile(Poisson(rates), level)
        assert got[:2].tolist() == expected[:2].tolist()
        assert got[2].item() == pytest.approx(expected[2], abs=1)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.5, 0.99])
def test_bisection_on_a_half_line_with_validation_switched_on(level):
    # Cantelli's bracket reaches below zero here, where a validating distribution refuses to be asked.
    got = quantile.quantile(Gamma(t(0.5, 2.0), t(1.0, 3.0)), level)
    expected = [scipy.stats.gamma(a, scale=1 / b).ppf(level) for a, b in ((0.5, 1.0), (2.0, 3.0))]
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_a_distribution_without_a_cdf_says_so():
    with pytest.raises(NotImplementedError):
        cdf(torch.distributions.VonMises(t(0.0), t(1.0)), t(0.0))


def test_the_median_of_a_laplace_is_its_location():
    assert quantile.quantile(Laplace(t(3.0), t(2.0)), 0.5).item() == 3.0
    assert cdf(Laplace(t(3.0), t(2.0)), t(3.0)).item() == 0.5
    assert math.isclose(quantile.quantile(Laplace(t(0.0), t(1.0)), 0.25).item(), -math.log(2), rel_tol=1e-14)


WIDE = {
    "student": [(StudentT(t(v), t(3.0), t(2.0)), scipy.stats.t(v, 3, 2)) for v in (0.7, 2.5, 30.0, 1e4)],
    "beta": [(Beta(t(a), t(b)), scipy.stats.beta(a, b)) for a, b in ((5.0, 70.0), (1e4, 3e4), (0.5, 30.0))],
    "gamma": [(Gamma(t(a), t(2.0)), scipy.stats.gamma(a, scale=0.5)) for a in (0.1, 1.0, 30.0, 1e5)],
    "lognormal": [(LogNormal(t(m), t(s)), scipy.stats.lognorm(s, scale=math.exp(m))) for m, s in ((0, 1), (-2, 3))],
    "weibull": [(Weibull(t(2.0), t(k)), scipy.stats.weibull_min(k, scale=2)) for k in (0.5, 3.0)],
    "exponential": [(Exponential(t(r)), scipy.stats.expon(scale=1 / r)) for r in (1e-3, 50.0)],
    "normal": [(Normal(t(1.0), t(2.0)), scipy.stats.norm(1, 2))],
    "laplace": [(Laplace(t(1.0), t(2.0)), scipy.stats.laplace(1, 2))],
}
COUNTS = {
    "negative_binomial": [
        (NegativeBinomial(t(r), probs=t(p)), scipy.stats.nbinom(r, 1 - p))
        for r, p in ((0.3, 0.5), (5.0, 0.9), (1e3, 0.1))
    ],
    "binomial": [(Binomial(t(n), probs=t(p)), scipy.stats.binom(n, p)) for n, p in ((5.0, 0.3), (100.0, 0.9))],
    "geometric": [(Geometric(probs=t(p)), scipy.stats.geom(p, loc=-1)) for p in (0.01, 0.7)],
    "poisson": [(Poisson(t(r)), scipy.stats.poisson(r)) for r in (1e-3, 3.0, 1900.0, 5e3)],
}
TAILS = (1e-10, 1e-4, 0.05, 0.3, 0.5, 0.7, 0.95, 1 - 1e-4, 1 - 1e-10)


@pytest.mark.parametrize("name", sorted(WIDE))
def test_quantile_and_cdf_are_inverse_and_exact_in_both_tails(name):
    for distribution, frozen in WIDE[name]:
        for level in TAILS:
            q = frozen.ppf(level)
            assert quantile.quantile(distribution, level).item() == pytest.approx(q, rel=1e-9)
            assert cdf(distribution, quantile.quantile(distribution, level)).item() == pytest.approx(level, rel=1e-9)
            assert cdf(distribution, t(q)).item() == pytest.approx(frozen.cdf(q), rel=1e-10)
            assert survival(distribution, t(q)).item() == pytest.approx(frozen.sf(q), rel=1e-10)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_counts_in_both_tails(name):
    for distribution, frozen in COUNTS[name]:
        for level in TAILS:
            q = frozen.ppf(level)
            assert quantile.quantile(distribution, level).item() == q
            assert cdf(distribution, t(q)).item() == pytest.approx(frozen.cdf(q), rel=1e-10)
            assert survival(distribution, t(q)).item() == pytest.approx(frozen.sf(q), rel=1e-9, abs=1e-300)


def test_a_mixture():
    share = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    parts = StudentT(t(3.0, 8.0).reshape(1, 2), t(-4.0, 5.0).reshape(1, 2), t(1.0, 0.5).reshape(1, 2))
    mixture = MixtureSameFamily(Categorical(probs=share), parts)
    first, second = scipy.stats.t(3, -4, 1), scipy.stats.t(8, 5, 0.5)
    for y in (-40.0, -4.0, 0.0, 5.2, 30.0):
        expected = 0.3 * first.cdf(y) + 0.7 * second.cdf(y)
        assert cdf(mixture, t(y)).item() == pytest.approx(expected, rel=1e-12)
    for level in TAILS[1:-1]:
        q = quantile.quantile(mixture, level)
        assert cdf(mixture, q).item() == pytest.approx(level, rel=1e-12)


def test_one_event_dimension():
    distribution = Independent(Normal(t(0.0, 1.0).unsqueeze(-1), t(1.0, 2.0).unsqueeze(-1)), 1)
    y = t(0.5, -1.0).unsqueeze(-1)
    np.testing.assert_allclose(cdf(distribution, y), scipy.stats.norm([0, 1], [1, 2]).cdf([0.5, -1.0]))
    assert quantile.median(distribution).tolist() == [[0.0], [1.0]]
    with pytest.raises(NotImplementedError, match="2 dimensions"):
        cdf(Independent(Normal(t(0.0, 1.0), 1.0), 1), t(0.0, 1.0))


@pytest.mark.parametrize("name", ["normal", "student", "poisson", "negative_binomial"])
def test_samples_follow_the_distribution_and_the_generator(name):
    distribution, frozen = (WIDE | COUNTS)[name][1 if name != "normal" else 0]
    many = type(distribution)(
        **{
            key: getattr(distribution, key).expand(4000).contiguous()
            for key in {"normal": ("loc", "scale"), "student": ("df", "loc", "scale"), "poisson": ("rate",)}.get(
                name, ("total_count", "logits")
            )
        }
    )
    draws = [quantile.sample(many, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    # Five standard errors of a share: fails with probability 6e-7.
    for level in (0.1, 0.5, 0.9):
        q = frozen.ppf(level)
        share = (draws[0] <= q).double().mean().item()
        assert abs(share - frozen.cdf(q)) < 5 * math.sqrt(frozen.cdf(q) * frozen.sf(q) / 4000)
