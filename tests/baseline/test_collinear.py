"""Collinear and constant columns leave the linear model, by name; ill-conditioned ones stay."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import Array, Sample, data, estimate, sample, varied
from exact_solving import solve

from mlefw.baseline.problem import Problem
from mlefw.report.coefficient_table import baseline_content

HEADS = [
    ("gaussian", "stackloss"),
    ("gaussian", "diabetes"),
    ("gaussian_fixed", "stackloss"),
    ("heteroscedastic", "engel"),
    ("laplace", "stackloss"),
    ("bernoulli", "spector"),
    ("categorical", "anes96"),
    ("poisson", "cpunish"),
]


def rounding(x: Array) -> Array:
    return np.random.default_rng(0).normal(size=len(x))


REDUNDANT = {
    "a copy": lambda x: x[:, 0],
    "a copy in another unit": lambda x: 1e6 * x[:, 0] - 3.0,
    "a sum": lambda x: x.sum(1),
    "a difference": lambda x: x[:, 0] - 2.0 * x[:, -1],
    "zeros": lambda x: np.zeros(len(x)),
    "a constant": lambda x: np.full(len(x), 0.1),
    "a large constant": lambda x: np.full(len(x), 123456.789),
    "a copy up to rounding": lambda x: x[:, 0] + 1e-13 * x[:, 0].std() * rounding(x),
}


def with_columns(of: Sample, *columns: Array) -> Sample:
    names = (*of.names, *(f"new{k}" for k in range(len(columns))))
    return Sample(np.column_stack([of.x, *columns]), names, of.y, of.weight, of.offset)


def labels_of(head: str, of: Sample) -> list[str] | None:
    return [str(k) for k in range(int(of.y.max()) + 1)] if head == "categorical" else None


@pytest.mark.parametrize("kind", REDUNDANT)
@pytest.mark.parametrize(("head", "name"), HEADS)
def test_a_redundant_column_is_dropped_and_named(head: str, name: str, kind: str) -> None:
    plain = varied(data(name), "weight")
    of = with_columns(plain, REDUNDANT[kind](plain.x))
    expected = estimate(head, plain)
    solution = solve(head, of)
    assert solution.exists
    assert solution.converged
    content = baseline_content(solution, list(of.names), labels_of(head, of), "default")
    assert content["dropped"] == ["new0"]
    assert content["nll_nats"] == pytest.approx(expected.nll, rel=1e-9, abs=1e-9)
    for title, params in expected.params.items():
        rows = content["coefficients"][title]
        assert [row["name"] for row in rows] == ["(intercept)", *plain.names]
        found = np.array([row["estimate"] for row in rows])
        assert np.abs((found - params) / expected.bse[title]).max() < 1e-6


@pytest.mark.parametrize("head", ["gaussian", "bernoulli"])
def test_dummies_of_a_full_set_and_several_copies(head: str) -> None:
    plain = data("fair")
    y = plain.y if head == "bernoulli" else plain.x[:, 2]
    level = plain.x[:, 4]
    dummies = [(level == value).astype(float) for value in np.unique(level)]
    rest = plain.x[:, [1, 5]]
    names = (*(f"d{k}" for k in range(len(dummies))), "age", "educ", "age_again")
    solution = solve(head, sample(np.column_stack([*dummies, rest, rest[:, :1]]), y, names))
    expected = estimate(head, sample(np.column_stack([*dummies[1:], rest]), y))
    content = baseline_content(solution, list(names), None, "default")
    assert content["dropped"] == [names[len(dummies) - 1], "age_again"]
    assert content["nll_nats"] == pytest.approx(expected.nll, rel=1e-10)


def test_more_columns_than_rows_keep_their_rank() -> None:
    of = data("longley")
    generator = np.random.default_rng(3)
    wide = sample(generator.normal(size=(16, 40)), of.y)
    solution = solve("gaussian", wide)
    assert len(solution.problem.active) == 15
    assert not solution.exists


def test_longley_is_ill_conditioned_and_stays() -> None:
    of = data("longley")
    assert np.linalg.cond(sm.add_constant(of.x)) > 1e9
    assert len(solve("gaussian", of).problem.active) == 6


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_powers_of_a_column_stay(degree: int) -> None:
    of = data("engel")
    income = of.x[:, 0]
    powers = sample(np.column_stack([income**k for k in range(1, degree + 1)]), of.y)
    # The same space in a basis that is well conditioned.
    span = 2 * (income - income.min()) / np.ptp(income) - 1
    basis = np.polynomial.legendre.legvander(span, degree)
    left = of.y - basis @ np.linalg.lstsq(basis, of.y, rcond=None)[0]
    nll = 0.5 * (1 + np.log(2 * np.pi * np.mean(left**2)))
    solution = solve("gaussian", powers)
    assert len(solution.problem.active) == degree
    assert solution.converged
    assert solution.objective == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize("name", ["longley", "powers"])
def test_an_ill_conditioned_fit_is_the_same_block_by_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = data("longley" if name == "longley" else "engel")
    if name == "powers":
        of = sample(np.column_stack([of.x[:, 0] ** k for k in range(1, 8)]), of.y)
    whole = solve("gaussian", of)
    monkeypatch.setattr(Problem, "block", 5)
    blocks = solve("gaussian", of)
    assert torch.equal(blocks.problem.active, whole.problem.active)
    assert blocks.converged
    assert blocks.objective == pytest.approx(whole.objective, rel=1e-12)
    assert torch.allclose(blocks.theta, whole.theta, rtol=1e-6)


@pytest.mark.parametrize("distance", [1e-4, 1e-6])
def test_a_column_near_another_is_not_that_column(distance: float) -> None:
    of = data("diabetes")
    noise = np.random.default_rng(1).normal(size=len(of.y))
    near = with_columns(of, of.x[:, 0] + distance * of.x[:, 0].std() * noise)
    apart = with_columns(of, noise)
    solution = solve("gaussian", near)
    assert len(solution.problem.active) == of.x.shape[1] + 1
    assert solution.converged
    assert solution.objective == pytest.approx(estimate("gaussian", apart).nll, rel=1e-9)


def test_a_large_offset_hides_no_variation() -> None:
    of = data("stackloss")
    moved = sample(of.x + np.array([1e8, 0.0, -1e7]), of.y)
    solution = solve("gaussian", moved)
    assert len(solution.problem.active) == 3
    assert solution.objective == pytest.approx(estimate("gaussian", of).nll, rel=1e-9)


def test_what_only_a_row_of_weight_zero_tells_apart_is_dropped() -> None:
    of = data("stackloss")
    weight = of.weight.copy()
    weight[4] = 0.0
    twin = of.x[:, 1].copy()
    twin[4] += 5.0
    lonely = (np.arange(len(of.y)) == 4).astype(float)
    changed = with_columns(Sample(of.x, of.names, of.y, weight, of.offset), twin, lonely)
    solution = solve("gaussian", changed)
    assert solution.problem.active.tolist() == [0, 1, 2]
    assert solution.objective == pytest.approx(
        estimate("gaussian", Sample(of.x, of.names, of.y, weight, of.offset)).nll
    )


def test_a_prior_keeps_every_column() -> None:
    of = data("stackloss")
    twins = with_columns(of, of.x[:, 0])
    solution = solve("gaussian_fixed", twins, tau=1.0, scale=3.0)
    assert len(solution.problem.active) == 4
    assert solution.converged
    expected = estimate("gaussian_fixed", twins, tau=1.0, scale=3.0)
    assert solution.objective == pytest.approx(expected.objective, rel=1e-9)
    assert float(solution.theta[0]) == pytest.approx(float(solution.theta[3]), rel=1e-9)
