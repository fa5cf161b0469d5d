"""The gap of a network's last layer to its own optimum on frozen features."""

from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from exact_oracles import data
from exact_solving import new_head, rows_of, solve
from test_distances import ALL, exact, moved

from mlefw.baseline.linear import solve_null
from mlefw.baseline.problem import Problem
from mlefw.baseline.refit import head_refit_gap
from mlefw.model.mlp import Mlp
from mlefw.model.residual import Residual
from mlefw.objective.objective import Objective, evaluate
from mlefw.prior.base import Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized, feature_statistics, target_statistics
from mlefw.run.placement import place

SCALE = 7.5


def network(head: str, name: str, prior: Prior, kind: type[torch.nn.Module] = Mlp) -> tuple[Objective, Rows]:
    """A small network with random weights, on all rows of a data set."""
    of = data(name)
    rows = rows_of(of, head)
    made = new_head(head, int(of.y.max()) + 1, SCALE)
    if made.target == "numeric":
        made.set_units(*target_statistics(rows))
    mean, scale = feature_statistics(rows, True)
    made = place(made, solve_null(Problem.of(made, rows, mean, scale, NoPrior())))
    torch.manual_seed(0)
    model = kind(rows.x.shape[1], made.eta_dim, hidden=[4], activation="tanh", dropout=0.3).double()
    torch.nn.init.normal_(model.last.weight, std=0.3)
    return Objective(Standardized(model, mean, scale), made.double(), prior, rows.population).eval(), rows


def descended(objective: Objective, rows: Rows) -> float:
    """The objective's fall when L-BFGS trains the last layer and the shared parameters alone."""
    last, shared = objective.model.model.last, objective.head.shared
    objective.requires_grad_(False)
    free = [p.requires_grad_() for p in (*last.parameters(), shared) if p.numel()]
    optimizer = torch.optim.LBFGS(
        free,
        max_iter=2000,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = objective(rows)
        value.backward()
        return value

    before = objective(rows).item()
    optimizer.step(closure)
    return before - objective(rows).item()


CASES = [
    ("gaussian", "diabetes"),
    ("gaussian_fixed", "diabetes"),
    ("heteroscedastic", "engel"),
    ("bernoulli", "fair"),
    ("categorical", "anes96"),
    ("poisson", "randhie"),
]


@pytest.mark.parametrize("prior", [NoPrior(), L2Prior(0.5)], ids=["none", "l2"])
@pytest.mark.parametrize(("head", "name"), CASES)
def test_it_is_what_training_the_last_layer_alone_would_gain(head: str, name: str, prior: Prior) -> None:
    objective, rows = network(head, name, prior)
    found = head_refit_gap(objective, rows, max_work=1e12)
    gained = descended(objective, rows)
    assert found > 1e-3
    assert found == pytest.approx(gained, rel=1e-5, abs=1e-9)
    # Trained to its optimum, the last layer leaves nothing.
    assert 0 <= head_refit_gap(objective, rows, max_work=1e12) < 1e-8


def _mean_nll(head: str, phi: np.ndarray, y: np.ndarray) -> float:
    design = sm.add_constant(phi)
    fits: dict[str, Callable[[], float]] = {
        "gaussian": lambda: sm.OLS(y, design).fit().llf,
        "bernoulli": lambda: sm.Logit(y, design).fit(disp=0, tol=1e-12).llf,
        "poisson": lambda: sm.GLM(y, design, sm.families.Poisson()).fit(tol=1e-13).llf,
    }
    return -float(fits[head]()) / len(y)


@pytest.mark.parametrize(("head", "name"), [("gaussian", "diabetes"), ("bernoulli", "fair"), ("poisson", "randhie")])
def test_it_is_that_of_statsmodels_on_the_features(head: str, name: str) -> None:
    objective, rows = network(head, name, NoPrior())
    body = objective.model.model.body[0]
    z = (data(name).x - data(name).x.mean(0)) / data(name).x.std(0)
    phi = np.tanh(z @ body.weight.detach().numpy().T + body.bias.detach().numpy())
    least = _mean_nll(head, phi, data(name).y)
    found = head_refit_gap(objective, rows, max_work=1e12)
    assert found == pytest.approx(float(evaluate(objective, rows).nll.mean()) - least, rel=1e-7)


@pytest.mark.parametrize(("head", "name"), ALL)
def test_of_a_linear_model_it_is_the_excess(head: str, name: str) -> None:
    solution = solve(head, data(name), scale=SCALE)
    rows, reference = solution.problem.rows, exact(solution)
    assert 0 <= head_refit_gap(reference, rows, max_work=1e12) < 1e-8
    for seed in range(3):
        model = moved(reference, 0.1, seed)
        excess = float(evaluate(model, rows).nll.mean()) - solution.objective
        assert head_refit_gap(model, rows, max_work=1e12) == pytest.approx(excess, rel=1e-6, abs=1e-9)


def test_the_linear_part_of_a_residual_model_is_held() -> None:
    objective, rows = network("poisson", "randhie", NoPrior(), Residual)
    model = objective.model.model
    model.start_at(0.1 * torch.randn(1, rows.x.shape[1], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    found = head_refit_gap(objective, rows, max_work=1e12)
    held = model.linear.layer.weight.clone()
    assert found == pytest.approx(descended(objective, rows), rel=1e-5)
    assert torch.equal(model.linear.layer.weight, held)


def test_terms_beside_the_last_layer_in_several_columns_are_not_expressed() -> None:
    objective, rows = network("categorical", "anes96", NoPrior(), Residual)
    assert head_refit_gap(objective, rows, max_work=1e12) > 0  # the linear part is zero still
    objective.model.model.start_at(torch.ones(7, 5).double(), torch.zeros(7).double())
    assert head_refit_gap(objective, rows, max_work=1e12) is None


def test_separation_has_an_infimum() -> None:
    objective, rows = network("bernoulli", "iris_setosa", NoPrior())
    nll = float(evaluate(objective, rows).nll.mean())
    assert head_refit_gap(objective, rows) == pytest.approx(nll, rel=1e-9)


def test_a_perfect_fit_has_none() -> None:
    objective, rows = network("gaussian", "stackloss", NoPrior())
    few = rows.take(slice(0, 4))
    assert head_refit_gap(Objective(objective.model, objective.head, NoPrior(), few.population), few) is None


def test_too_much_work_is_left_out() -> None:
    objective, rows = network("bernoulli", "fair", NoPrior())
    assert head_refit_gap(objective, rows, max_work=rows.num_rows * 25) is not None
    assert head_refit_gap(objective, rows, max_work=rows.num_rows * 25 - 1) is None


def test_a_model_without_a_last_layer_has_none() -> None:
    objective, rows = network("bernoulli", "fair", NoPrior())
    other = torch.nn.Sequential(torch.nn.Linear(rows.x.shape[1], 1)).double()
    mean, scale = objective.model.mean, objective.model.scale
    assert head_refit_gap(Objective(Standardized(other, mean, scale), objective.head, NoPrior(), 1.0), rows) is None


def test_the_model_is_left_as_it_was() -> None:
    objective, rows = network("bernoulli", "fair", NoPrior())
    objective.float().train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert head_refit_gap(objective, rows) > 0
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert objective.model.training
    assert not objective.model.model.last._forward_pre_hooks
