"""Permutation importance and accumulated effects against scikit-learn, closed forms, and plain loops."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import permutation_importance

from mlefw.score import accumulated, permutation
from mlefw.score.permutation import NEIGHBOURS, Others, importance

RANDOM = np.random.default_rng(11)
N = 300
X = RANDOM.normal(size=(N, 3)) @ np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 1.0]])
BETA, SIGMA = np.array([1.0, -0.7, 0.3]), 0.5
Y = X @ BETA + SIGMA * RANDOM.normal(size=N)


def nll(x, y=Y):
    return 0.5 * np.log(2 * np.pi * SIGMA**2) + (y - x @ BETA) ** 2 / (2 * SIGMA**2)


def exchanged(column, x=X, y=Y):
    def nll_with(donor):
        changed = x.copy()
        changed[:, column] = x[donor, column]
        return nll(changed, y)

    return nll_with


class Line(RegressorMixin, BaseEstimator):
    def fit(self, x, y):
        self.fitted_ = True
        return self

    def predict(self, x):
        return x @ BETA


def test_it_is_that_of_scikit_learn_with_its_permutations():
    score = lambda model, x, y: -nll(x, y).mean()  # noqa: E731
    found = permutation_importance(Line().fit(X, Y), X, Y, scoring=score, n_repeats=4, random_state=5)
    seed = np.random.RandomState(5).randint(np.iinfo(np.int32).max + 1)
    for column in range(3):
        # scikit-learn goes on shuffling positions, by which it exchanges the values that were exchanged before, and
        # does so from one seed for every column.
        random, places, donor, donors = np.random.RandomState(seed), np.arange(N), np.arange(N), []
        for _ in range(4):
            random.shuffle(places)
            donor = donor[places]
            donors.append(donor)
        one = importance(exchanged(column), nll(X), np.ones(N), donors)
        assert one.nats == pytest.approx(found.importances_mean[column], rel=1e-12)
        assert one.se_permutations == pytest.approx(found.importances[column].std(ddof=1) / 2, rel=1e-9)


@pytest.mark.parametrize("column", range(3))
def test_its_expectation_is_the_mean_over_all_pairs_of_rows(column):
    """Of a linear Gaussian: the mean over pairs of ((r + β (xᵢ − xₖ))² − r²) / 2σ²."""
    residual, x, beta = Y - X @ BETA, X[:, column], BETA[column]
    pairs = (residual[:, None] + beta * (x[:, None] - x)) ** 2 - residual[:, None] ** 2
    random = np.random.default_rng(2)
    donors = [permutation.marginal(np.ones(N), random) for _ in range(400)]
    found = importance(exchanged(column), nll(X), np.ones(N), donors)
    assert abs(found.nats - pairs.mean() / (2 * SIGMA**2)) < 4 * found.se_permutations


def test_the_error_over_rows_is_the_spread_over_samples():
    random, nats, errors = np.random.default_rng(4), [], []
    for _ in range(300):
        x = random.normal(size=(200, 3))
        y = x @ BETA + SIGMA * random.normal(size=200)
        donors = [random.permutation(200) for _ in range(20)]
        found = importance(exchanged(0, x, y), nll(x, y), np.ones(200), donors)
        nats.append(found.nats)
        errors.append(found.se)
    # The donors' values have a part in the spread, too, which the error of the scored rows does not cover.
    assert 0.6 < np.mean(errors) / np.std(nats) < 1.1


def test_given_the_others_only_what_they_leave_counts():
    """Of jointly normal features and a linear model the conditional nats are β² Var(x | others) / σ²."""
    random, size, rho = np.random.default_rng(6), 6000, 0.95
    a = random.normal(size=size)
    b = rho * a + np.sqrt(1 - rho**2) * random.normal(size=size)
    x = np.column_stack([a, b, random.normal(size=size)])
    y = x @ BETA + SIGMA * random.normal(size=size)
    others = Others(x, np.ones(size))
    for column, left in ((0, 1 - rho**2), (1, 1 - rho**2), (2, 1.0)):
        order, explained = others.order([column])
        assert explained == pytest.approx(1 - left, abs=0.03)
        donors = [permutation.conditional(order, random) for _ in range(10)]
        found = importance(exchanged(column, x, y), nll(x, y), np.ones(size), donors)
        assert abs(found.nats - BETA[column] ** 2 * left / SIGMA**2) < 5 * found.se + 0.02 * found.nats


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 57, 300])
def test_rows_exchange_with_neighbours_alone(size):
    random = np.random.default_rng(size)
    order = random.permutation(size)
    rank = np.argsort(order)
    for _ in range(20):
        donor = permutation.conditional(order, random)
        assert sorted(donor) == list(range(size))
        assert np.abs(rank - rank[donor]).max(initial=0) < NEIGHBOURS
        # At most the two rows at either end may be alone in their strata.
        assert (donor == np.arange(size)).sum() <= 2


def test_a_weight_is_a_frequency():
    weight = RANDOM.integers(0, 4, N).astype(float)
    often = np.repeat(np.arange(N), weight.astype(int))
    away = RANDOM.normal(size=N)
    away -= weight @ away / weight.sum()
    one, other = permutation.standard_error(away, weight), permutation.standard_error(away[often], np.ones(len(often)))
    assert one == pytest.approx(other, rel=1e-12)
    assert other == pytest.approx(away[often].std(ddof=1) / np.sqrt(len(often)), rel=1e-12)
    drawn = permutation.marginal(weight, np.random.default_rng(0))
    assert (weight[drawn] > 0).all()
    group = np.arange(len(often)) % 7
    sums = np.array([away[often][group == g].sum() for g in range(7)])
    expected = np.sqrt(7 / 6 * (sums**2).sum()) / len(often)
    assert permutation.standard_error(away[often], np.ones(len(often)), group) == pytest.approx(expected, rel=1e-12)


def effect_of(x, function, num_bins=8, weight=None):
    weight = np.ones(len(x)) if weight is None else weight
    edges = accumulated.edges_of(x[:, 0], weight, num_bins)
    where = accumulated.bin_of(x[:, 0], edges)
    ends = [np.column_stack([edges[where + k], x[:, 1:]]) for k in (0, 1)]
    return accumulated.accumulated(function(ends[1]) - function(ends[0]), where, edges, weight)


def test_of_a_sum_the_accumulated_effect_is_the_own_part():
    curve = effect_of(X, lambda x: x[:, 0] ** 2 + 5 * x[:, 1])
    np.testing.assert_allclose(curve.effect - curve.effect[0], curve.at**2 - curve.at[0] ** 2, atol=1e-12)


def test_it_is_apley_and_zhu_by_a_plain_loop_with_the_error_of_resampled_rows():
    function = lambda x: np.sin(x[:, 0]) * x[:, 1] + x[:, 0] * x[:, 2]  # noqa: E731
    curve = effect_of(X, function, 5)
    total, effect = 0.0, [0.0]
    for low, high in zip(curve.at[:-1], curve.at[1:], strict=True):
        own = X[((X[:, 0] > low) | (low == curve.at[0])) & (X[:, 0] <= high)]
        upper, lower = (np.column_stack([np.full(len(own), end), own[:, 1:]]) for end in (high, low))
        total += (function(upper) - function(lower)).mean()
        effect.append(total)
    np.testing.assert_allclose(np.diff(curve.effect), np.diff(effect), rtol=1e-10)
    where, random, drawn = accumulated.bin_of(X[:, 0], curve.at), np.random.default_rng(3), []
    ends = [np.column_stack([curve.at[where + k], X[:, 1:]]) for k in (0, 1)]
    rise = function(ends[1]) - function(ends[0])
    for _ in range(1500):
        # Within bins, whose shares stay as they are.
        index = np.concatenate([random.choice(np.flatnonzero(where == b), (where == b).sum()) for b in range(5)])
        drawn.append(accumulated.accumulated(rise[index], where[index], curve.at, np.ones(N)).effect)
    np.testing.assert_allclose(curve.se, np.std(drawn, axis=0), rtol=0.1)


def test_values_that_are_few_make_few_bins():
    values = np.array([2.0, 1.0, 2.0, 5.0, 5.0, 5.0])
    edges = accumulated.edges_of(values, np.ones(6), 20)
    assert edges.tolist() == [1, 2, 5]
    assert accumulated.bin_of(values, edges).tolist() == [0, 0, 0, 1, 1, 1]
