"""What a MAP of many coefficients takes is said before it starts; it ends there, or at a signal, with a bound."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits

from mlefw.baseline.conjugate_gradient import NewtonCG
from mlefw.baseline.feature_map import all_inputs
from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.baseline.work import TooMuchError, amount
from mlefw.baseline.work_plan import announcement, largest_variance, planned_work
from mlefw.errors import Stopped
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.poisson import PoissonHead
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.system import signals

SHAPE = RowShape((1, 8, 8))


def images_problem(tau: float | None, seed: int = 0) -> Problem:
    """Digits with weights, as images standardised by one mean and one scale."""
    x, y = load_digits(return_X_y=True)
    weight = np.random.default_rng(seed).integers(0, 3, len(y)).astype(float)
    rows = Rows(torch.tensor(x), torch.tensor(y), torch.tensor(weight), torch.zeros(len(y)).double())
    mean, scale = torch.full((64,), float(x.mean())).double(), torch.full((64,), float(x.std())).double()
    prior = NoPrior() if tau is None else L2Prior(tau)
    return Problem.of(CategoricalHead(10), rows, mean, scale, prior, all_inputs(SHAPE))


def dual_gap(problem: Problem, theta: torch.Tensor, tau: float) -> float:
    """The objective minus its Fenchel dual at the probabilities of theta, by numpy, with the intercepts solved for."""
    rows = problem.rows
    z, y, w = ((rows.x - problem.mean) / problem.scale).numpy(), rows.y.numpy(), rows.weight.numpy()
    n = w.sum()
    weight, bias, _ = (part.numpy() for part in problem.split(theta))
    logits = z @ weight.T + bias + problem.head.center.numpy()
    p = softmax(logits, axis=1)
    primal = w @ (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]) / n + (weight**2).sum() / (2 * tau**2 * n)
    gradient = (w[:, None] * (p - np.eye(10)[y])).T @ z / n
    return float(primal + w @ (p * np.log(p)).sum(1) / n + (gradient**2).sum() * n * tau**2 / 2)


def test_the_largest_variance_is_the_largest_eigenvalue() -> None:
    problem = images_problem(0.1)
    z = ((problem.rows.x - problem.mean) / problem.scale).numpy()
    exact = np.linalg.eigvalsh(np.cov(z.T, fweights=problem.rows.weight.numpy().astype(int), ddof=0))[-1]
    assert largest_variance(problem) == pytest.approx(exact, rel=1e-3)
    assert largest_variance(problem) <= exact
    passes = np.sqrt(1 + problem.population * 0.01 * exact / 2) * np.log(2e9)
    work = planned_work(problem)
    assert work is not None and work == pytest.approx(passes * 4 * 1797 * 64 * 10, rel=5e-3)


def test_only_classes_under_a_gaussian_prior_have_a_plan() -> None:
    problem = images_problem(0.1)
    rows = problem.rows._replace(y=(problem.rows.y > 4).double())
    two = replace(problem, head=BernoulliHead().double(), rows=rows)
    assert planned_work(images_problem(None)) is None
    assert planned_work(replace(problem, head=PoissonHead().double())) is None
    assert planned_work(replace(two, head=BernoulliHead(link="probit").double())) is None
    ratio = (planned_work(problem) or 0) / (planned_work(two) or 1)
    # Ten columns in place of one, of twice the curvature.
    assert ratio == pytest.approx(10 * np.sqrt(2), rel=0.02)


def test_amounts_are_written_as_in_settings() -> None:
    assert [amount(work) for work in (1.648e11, 2e11, 3.14e12, 99.0)] == ["1.6e11", "2e11", "3.1e12", "9.9e1"]
    assert announcement(7850, 1.648e11) == "on 7,850 coefficients: at most 1.6e11 multiplications, about 16 s"


@pytest.mark.parametrize("tau", [0.03, 0.3])
def test_the_plan_suffices_for_a_bound_that_the_dual_confirms(tau: float) -> None:
    problem = images_problem(tau)
    plan = planned_work(problem)
    assert plan is not None
    found = NewtonCG(plan).solve(problem)
    assert found.converged and found.gap is not None and found.gap < 2e-9
    assert -1e-12 < dual_gap(problem, found.theta, tau) < 1e-6


def test_a_bound_holds_wherever_the_work_ends() -> None:
    problem = images_problem(0.3)
    least = NewtonCG(1e12).solve(problem)
    plan = planned_work(problem)
    assert plan is not None
    bounds = []
    for share in (0.02, 0.05, 0.1, 0.2):
        found = NewtonCG(share * plan).solve(problem)
        assert found.gap is not None
        assert 0 <= found.objective - least.objective <= found.gap + 1e-14
        # The dual value is another bound, below the same minimum.
        assert found.objective - least.objective <= dual_gap(problem, found.theta, 0.3) + 1e-9
        bounds.append(found.gap)
        if not found.converged:
            assert "baseline.max_work" in (found.reason or "")
    assert bounds[0] > 1e-3 and bounds == sorted(bounds, reverse=True)


def test_too_much_is_refused_before_the_start_and_enough_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlefw.baseline.linear.MOST_DENSE", 100)
    problem, said = images_problem(0.1), list[str]()
    plan = planned_work(problem)
    assert plan is not None
    baseline = LinearBaseline(max_work=plan / 2)
    with pytest.raises(TooMuchError, match=rf"^{amount(plan)} multiplications, more than baseline.max_work="):
        baseline.solve(problem, lambda text, passing: said.append(text))
    assert said == []
    found = LinearBaseline().solve(problem, lambda text, passing: said.append("" if passing else text))
    assert said[0] == announcement(650, plan) and found.converged


def stopping(problem: Problem, passes: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> Problem:
    """The problem, in whose pass number `passes` the process gets a Ctrl-C, or several."""
    count, slope = [0], Problem.slope

    def counted(self: Problem, theta: torch.Tensor) -> tuple[float, torch.Tensor]:
        count[0] += 1
        for _ in range(times if count[0] == passes else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return slope(self, theta)

    monkeypatch.setattr(Problem, "slope", counted)
    return problem


@pytest.mark.parametrize("passes", [2, 9])
def test_ctrl_c_ends_the_estimate_with_the_bound_reached(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    least = NewtonCG(1e12).solve(images_problem(0.3))
    with signals.handled():
        found = NewtonCG(1e12).solve(stopping(images_problem(0.3), passes, monkeypatch))
        assert not signals.is_pending()
    assert found.reason == "it was stopped by Ctrl-C" and not found.converged
    assert found.gap is not None and 1e-9 < found.objective - least.objective <= found.gap


def test_a_second_ctrl_c_ends_the_command_and_of_tables_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped), signals.handled():
        NewtonCG(1e12).solve(stopping(images_problem(0.3), 3, monkeypatch, times=2))
    monkeypatch.undo()
    table = replace(images_problem(0.3), features=None)
    with pytest.raises(Stopped), signals.handled():
        NewtonCG(1e12).solve(stopping(table, 3, monkeypatch))


def test_pixels_that_separate_are_proved_without_a_linear_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way down, with and without a matrix of the coefficients."""

    def no_program(*arguments: object) -> None:
        raise AssertionError("a linear program was started")

    monkeypatch.setattr("mlefw.baseline.separation.search", no_program)
    for most in (3000, 100):
        monkeypatch.setattr("mlefw.baseline.linear.MOST_DENSE", most)
        found = LinearBaseline().solve(images_problem(None))
        assert found.exists is False and found.infimum == pytest.approx(0.0, abs=1e-8)
        assert "completely separated" in (found.reason or "")
