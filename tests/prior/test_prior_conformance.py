"""What every prior must do, and what a step makes of it: one table of examples, every test over all of them."""

import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from omegaconf import OmegaConf
from sklearn.linear_model import ElasticNet, Lasso, Ridge

import mlefw.prior
from mlefw.errors import UsageError
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.model.linear import Linear
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.testing.prior import check_prior
from mlefw.training.step import Step, check_optimizer

CONF = Path(__file__).parents[2] / "conf" / "prior"


@dataclass(frozen=True)
class Example:
    """What a member is tested with."""

    rough: Callable[[np.ndarray], np.ndarray]
    """The non-smooth part of −log p of one weight, in numpy."""
    smooth: Callable[[np.ndarray], np.ndarray]
    """The smooth part, up to a constant."""
    scales: dict[str, float] = field(default_factory=dict)
    log_density: Callable[[np.ndarray], np.ndarray] | None = None
    """From scipy, where scipy knows the density."""


def zero(w):
    return np.zeros_like(w)


EXAMPLES = {
    "none": Example(zero, zero),
    "l1": Example(lambda w: np.abs(w) / 0.7, zero, {"scale": 0.7}, scipy.stats.laplace(0, 0.7).logpdf),
    "l2": Example(zero, lambda w: w**2 / (2 * 0.7**2), {"scale": 0.7}, scipy.stats.norm(0, 0.7).logpdf),
    "elastic_net": Example(
        lambda w: np.abs(w) / 0.4, lambda w: w**2 / (2 * 1.3**2), {"l2_scale": 1.3, "l1_scale": 0.4}
    ),
}

MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
KNOWN = [name for name in MEMBERS if name in EXAMPLES]
PROPER = [name for name in KNOWN if name != "none"]
each = pytest.mark.parametrize("name", KNOWN)
proper = pytest.mark.parametrize("name", PROPER)


def node(name: str) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {key: value for key, value in config.items() if key != "defaults"}


def make(name: str, **settings: float) -> Prior:
    return hydra.utils.instantiate(node(name) | EXAMPLES[name].scales | settings)


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def value(prior: Prior, w: float) -> float:
    return prior(torch.tensor([[w]], dtype=torch.float64)).item()


def test_every_yaml_has_an_example_and_every_example_a_yaml():
    assert set(EXAMPLES) == set(MEMBERS)


def test_every_member_module_has_a_yaml():
    modules = {f"mlefw.prior.{info.name}" for info in pkgutil.iter_modules(mlefw.prior.__path__)} - {"mlefw.prior.base"}
    assert modules == {node(name)["_target_"].rpartition(".")[0] for name in MEMBERS}
    assert all(issubclass(hydra.utils.get_class(node(name)["_target_"]), Prior) for name in MEMBERS)


@each
def test_the_public_checks(name):
    check_prior(make(name), tolerance=1e-10)


@each
def test_flags(name):
    prior, example = make(name), EXAMPLES[name]
    w = np.linspace(-2, 2, 9)
    assert prior.smooth == bool((example.rough(w) == 0).all())
    assert prior.flat == bool((example.rough(w) + example.smooth(w) == 0).all())
    assert prior.convex


@pytest.mark.parametrize(("l2_scale", "l1_scale"), [(1e-3, 1e3), (1e3, 1e-3), (1.0, 1.0), (1e6, 1e-3), (30.0, 1.0)])
def test_the_elastic_net_normaliser_at_extremes(l2_scale, l1_scale):
    # The integral over one side in the unit of the narrower factor, where exp(−|w| / l1 − w² / 2 l2²) lives.
    unit = min(l2_scale, l1_scale)
    half, _ = scipy.integrate.quad(
        lambda t: math.exp(-t * unit / l1_scale - (t * unit / l2_scale) ** 2 / 2), 0, np.inf, epsabs=1e-14, epsrel=1e-13
    )
    got = value(ElasticNetPrior(l2_scale, l1_scale), 0.0)
    assert got == pytest.approx(math.log(2 * unit * half), abs=1e-10)


@pytest.mark.parametrize("name", [name for name in KNOWN if EXAMPLES[name].log_density])
def test_the_density_against_scipy(name):
    prior = make(name)
    for w in (-3.0, -1e-8, 0.0, 0.4, 20.0):
        assert value(prior, w) == pytest.approx(-float(EXAMPLES[name].log_density(w)), rel=1e-13)


@proper
def test_differences_are_those_of_the_definition(name):
    prior, example = make(name), EXAMPLES[name]
    for w in (-3.0, -1e-3, 0.4, 20.0):
        expected = float(example.rough(np.array(w)) + example.smooth(np.array(w)))
        assert value(prior, w) - value(prior, 0.0) == pytest.approx(expected, rel=1e-12)


@each
def test_gradient(name):
    prior, example = make(name), EXAMPLES[name]
    w = weights(3, 4).requires_grad_()
    if not prior.flat:
        assert torch.autograd.gradcheck(prior, w)
    part = prior.smooth_part(w)
    got = torch.autograd.grad(part, w)[0] if part.requires_grad else torch.zeros_like(w)
    inner = w.detach().numpy()
    expected = (example.smooth(inner + 1e-4) - example.smooth(inner - 1e-4)) / 2e-4
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@each
@pytest.mark.parametrize("step", [1e-3, 0.3, 5.0])
def test_prox_is_the_argmin(name, step):
    prior, example = make(name), EXAMPLES[name]
    for w in (-4.0, -0.5, 0.0, 1e-4, 0.6, 3.0):
        got = prior.prox(torch.tensor([[w]], dtype=torch.float64), step).item()

        def goal(v, w=w):
            return float((v - w) ** 2 / (2 * step) + example.rough(np.array(v)))

        # Convex on each side of zero, where the kink is: the best of the two sides and of zero itself.
        sides = [
            scipy.optimize.minimize_scalar(goal, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
            for ends in ((-10.0, 0.0), (0.0, 10.0))
        ]
        best = min([*sides, 0.0], key=goal)
        assert goal(got) <= goal(best) + 1e-14 * max(1.0, abs(goal(best)))
        assert got == pytest.approx(best, abs=1e-6)
        assert got != 0 or abs(best) < 1e-12


@proper
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_scale_is_refused(name, bad):
    config = {key: entry for key, entry in node(name).items() if key != "_target_"}
    for setting in EXAMPLES[name].scales:
        with pytest.raises(UsageError, match=rf"prior\.{setting}="):
            hydra.utils.get_class(node(name)["_target_"])(**config | {setting: bad})


# ----------------------------------------------------------------------------------- the step: where priors act

SIGMA = 0.8


def problem(prior: Prior, weighted: bool = False) -> tuple[Objective, Rows]:
    """Rows of a linear model with some weights that are zero in truth, and an objective that starts at zero."""
    generator = np.random.default_rng(5)
    x = generator.normal(size=(60, 6)) * [1.0, 0.5, 2.0, 1.0, 1.0, 0.7]
    y = 1.5 + x @ [1.0, 0.0, -0.5, 0.0, 0.1, 0.0] + SIGMA * generator.normal(size=60)
    weight = generator.integers(1, 4, size=60) if weighted else np.ones(60)
    rows = Rows(*(torch.tensor(column, dtype=torch.float64) for column in (x, y, weight, np.zeros(60))))
    return Objective(Linear(6, 1).double(), GaussianHead(scale=SIGMA).double(), prior, rows.population), rows


def repeat(objective: Objective, rows: Rows, optimizer: torch.optim.Optimizer, schedule: list[float]) -> None:
    step = Step(objective)
    for lr in schedule:
        optimizer.param_groups[0]["lr"] = lr
        step(Batch(rows, 1.0), optimizer, optimizer)


def fitted(objective: Objective) -> tuple[np.ndarray, float]:
    layer = objective.model.layer
    return layer.weight.detach().numpy()[0].copy(), layer.bias.item()


def oracle(prior: Prior, rows: Rows) -> tuple[np.ndarray, float]:
    """Scikit-learn's fit, its penalties in units of σ² per observation."""
    n = rows.population
    if isinstance(prior, L1Prior):
        model = Lasso(alpha=SIGMA**2 / (n * prior.scale), tol=1e-14, max_iter=100_000)
    elif isinstance(prior, ElasticNetPrior):
        first, second = 1 / (n * prior.l1_scale), 1 / (n * prior.l2_scale**2)
        model = ElasticNet(
            alpha=SIGMA**2 * (first + second), l1_ratio=first / (first + second), tol=1e-14, max_iter=100_000
        )
    elif isinstance(prior, L2Prior):
        model = Ridge(alpha=SIGMA**2 / prior.scale**2, solver="cholesky")
    else:
        x = np.column_stack([rows.x.numpy(), np.ones(rows.num_rows)])
        root = np.sqrt(rows.weight.numpy())
        solution = np.linalg.lstsq(x * root[:, None], rows.y.numpy() * root, rcond=None)[0]
        return solution[:-1], solution[-1]
    model.fit(rows.x.numpy(), rows.y.numpy(), sample_weight=rows.weight.numpy())
    return model.coef_, model.intercept_


PRIORS = {
    "none": NoPrior(),
    "l2": L2Prior(0.5),
    "l1": L1Prior(0.05),
    "elastic_net": ElasticNetPrior(l2_scale=0.3, l1_scale=0.06),
}

OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), [0.1] * 1000),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8), [0.02] * 1000),
    "nesterov": (lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True), [0.02] * 1000),
    "dampening": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.5), [0.05] * 1000),
    "adam": (lambda p: torch.optim.Adam(p), [0.1 * 0.997**k for k in range(5000)]),
    "adamw": (lambda p: torch.optim.AdamW(p, weight_decay=0.0), [0.1 * 0.997**k for k in range(5000)]),
}


def test_the_step_is_tried_with_every_prior():
    assert set(PRIORS) == set(MEMBERS)
    assert {name: type(prior) for name, prior in PRIORS.items()} == {name: type(make(name)) for name in KNOWN}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", sorted(PRIORS))
def test_the_fixed_point_of_gradient_and_prox_is_the_exact_estimate(name, weighted):
    objective, rows = problem(PRIORS[name], weighted)
    make_optimizer, schedule = OPTIMIZERS["sgd"]
    repeat(objective, rows, make_optimizer(objective.parameters()), schedule)
    weight, bias = fitted(objective)
    expected, intercept = oracle(PRIORS[name], rows)
    np.testing.assert_allclose(weight, expected, atol=1e-7)
    assert bias == pytest.approx(intercept, abs=1e-7)
    assert (weight == 0).tolist() == (expected == 0).tolist()
    assert (weight == 0).any() == (not PRIORS[name].smooth)


@pytest.mark.parametrize("name", ["l1", "elastic_net"])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_fixed_point_does_not_depend_on_the_optimizer(name, optimizer):
    objective, rows = problem(PRIORS[name])
    make_optimizer, schedule = OPTIMIZERS[optimizer]
    repeat(objective, rows, make_optimizer(objective.parameters()), schedule)
    weight, bias = fitted(objective)
    expected, intercept = oracle(PRIORS[name], rows)
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    assert bias == pytest.approx(intercept, abs=1e-6)
    assert (weight == 0).tolist() == (expected == 0).tolist()


@pytest.mark.parametrize("name", sorted(PRIORS))
def test_one_step_of_gradient_descent_by_hand(name):
    objective, rows = problem(PRIORS[name], weighted=True)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.3)
    loss = Step(objective)(Batch(rows, 1.0), optimizer, optimizer)
    weight, bias = fitted(objective)
    x, y, w, _ = (column.numpy() for column in rows)
    # At zero the smooth part of every prior here has no gradient.
    moved = 0.3 * (w * y) @ x / (w.sum() * SIGMA**2)
    first = {"l1": 1 / 0.05, "elastic_net": 1 / 0.06}.get(name, 0.0)
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.3 * first / w.sum(), 0)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)
    assert bias == pytest.approx(0.3 * (w @ y) / (w.sum() * SIGMA**2), rel=1e-12)
    before = -(w @ scipy.stats.norm(0, SIGMA).logpdf(y)) / w.sum()
    constant = {"l2": 6 * (0.5 * math.log(2 * math.pi) + math.log(0.5)) / w.sum()}.get(name, 0.0)
    assert loss.item() == pytest.approx(before + constant, rel=1e-12)
    assert not loss.requires_grad


def gradients(objective: Objective) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])


class Frozen(torch.optim.SGD):
    """An optimiser that computes the gradient and changes nothing."""

    def __init__(self, params):
        super().__init__(params, lr=0.0)


@pytest.mark.parametrize("name", sorted(PRIORS))
@pytest.mark.parametrize("max_rows", [1, 7, 30, 59, 60, 1000])
def test_slices_add_up_to_the_gradient_of_the_batch(name, max_rows):
    results = []
    for rows_at_once in (0, max_rows):
        torch.manual_seed(0)
        _, rows = problem(PRIORS[name], weighted=True)
        model = Mlp(6, 1, hidden=[5]).double()
        torch.nn.init.normal_(model.last.weight)
        objective = Objective(model, GaussianHead("shared").double(), PRIORS[name], rows.population)
        optimizer = Frozen(objective.parameters())
        loss = Step(objective, max_rows=rows_at_once)(Batch(rows, 1.7), optimizer, optimizer)
        results.append((loss, gradients(objective)))
    (loss, gradient), (other_loss, other) = results
    assert float(gradient.norm()) > 0.1
    np.testing.assert_allclose(other_loss, loss, rtol=1e-12)
    np.testing.assert_allclose(other, gradient, rtol=1e-12, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_slices_lead_to_the_same_weights(name):
    ends = []
    for max_rows in (0, 13):
        objective, rows = problem(PRIORS[name])
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.5)
        step = Step(objective, clip_norm=0.5, max_rows=max_rows)
        for _ in range(20):
            step(Batch(rows, 1.0), optimizer, optimizer)
        ends.append(fitted(objective)[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12, atol=1e-14)


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    objective, rows = problem(L2Prior(0.5))
    optimizer = Frozen(objective.parameters())
    Step(objective)(Batch(rows, 1.0), optimizer, optimizer)
    plain = gradients(objective)
    norm = float(plain.norm())
    for bound in (norm / 10, 2 * norm):
        Step(objective, clip_norm=bound, max_rows=11)(Batch(rows, 1.0), optimizer, optimizer)
        got = gradients(objective)
        np.testing.assert_allclose(got, plain * min(1.0, bound / norm), rtol=1e-5)
        assert float(got.norm()) <= bound


def test_gradients_of_one_step_do_not_reach_the_next():
    objective, rows = problem(L2Prior(0.5))
    optimizer = Frozen(objective.parameters())
    step = Step(objective, max_rows=17)
    step(Batch(rows, 1.0), optimizer, optimizer)
    first = gradients(objective).clone()
    step(Batch(rows, 1.0), optimizer, optimizer)
    assert torch.equal(gradients(objective), first)


def test_the_step_reports_the_objective_before_it():
    objective, rows = problem(L2Prior(0.5))
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    step = Step(objective)
    before = objective(rows).item()
    assert step(Batch(rows, 1.0), optimizer, optimizer).item() == pytest.approx(before, rel=1e-13)
    after = objective(rows).item()
    assert after < before
    assert step(Batch(rows, 1.0), optimizer, optimizer).item() == pytest.approx(after, rel=1e-13)


def test_prox_leaves_biases_and_shared_parameters_alone():
    # A density so narrow that every weight under it is zero after one step.
    _, rows = problem(L1Prior(1e-9))
    objective = Objective(Linear(6, 1).double(), GaussianHead("shared").double(), L1Prior(1e-9), rows.population)
    plain = Objective(Linear(6, 1).double(), GaussianHead("shared").double(), NoPrior(), rows.population)
    for member in (objective, plain):
        optimizer = torch.optim.SGD(member.parameters(), lr=0.1)
        Step(member)(Batch(rows, 1.0), optimizer, optimizer)
    assert bool((objective.model.layer.weight == 0).all())
    assert bool((plain.model.layer.weight != 0).all())
    assert objective.model.layer.bias.item() == plain.model.layer.bias.item() != 0
    assert objective.head.shared.item() == plain.head.shared.item() != 0


def test_a_frozen_weight_is_not_thresholded():
    objective, rows = problem(L1Prior(1e-9))
    objective.model.layer.weight.data.fill_(0.5)
    objective.model.layer.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    Step(objective)(Batch(rows, 1.0), optimizer, optimizer)
    assert bool((objective.model.layer.weight == 0.5).all())
    assert objective.model.layer.bias.item() != 0


def test_lbfgs_sees_a_smooth_prior_and_reaches_ridge():
    objective, rows = problem(L2Prior(0.5))
    optimizer = torch.optim.LBFGS(
        objective.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-13, tolerance_change=0
    )
    step = Step(objective)
    for count in range(5):
        step(Batch(rows, 1.0), optimizer, optimizer, count=count)
    expected, intercept = oracle(objective.prior, rows)
    weight, bias = fitted(objective)
    np.testing.assert_allclose(weight, expected, atol=1e-9)
    assert bias == pytest.approx(intercept, abs=1e-9)


@pytest.mark.parametrize("prior", [L1Prior(1.0), ElasticNetPrior(1.0, 1.0), L2Prior(1.0)])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_weight_decay_beside_a_prior_is_refused(prior, kind):
    objective, _ = problem(prior)
    with pytest.raises(UsageError, match=r"weight_decay=0\.01 beside a prior"):
        check_optimizer(kind(objective.parameters(), lr=0.1, weight_decay=0.01), objective)


def test_weight_decay_alone_is_allowed():
    objective, _ = problem(NoPrior())
    check_optimizer(torch.optim.AdamW(objective.parameters(), weight_decay=0.01), objective)


@pytest.mark.parametrize("prior", [L1Prior(1.0), ElasticNetPrior(1.0, 1.0)])
def test_a_prior_with_exact_zeros_refuses_what_it_cannot_step_with(prior):
    objective, _ = problem(prior)
    with pytest.raises(UsageError, match="lbfgs cannot descend"):
        check_optimizer(torch.optim.LBFGS(objective.parameters()), objective)
    for optimizer in (
        torch.optim.RMSprop(objective.parameters()),
        torch.optim.Adam(objective.parameters(), amsgrad=True),
        torch.optim.Adagrad(objective.parameters()),
    ):
        with pytest.raises(UsageError, match="step length"):
            check_optimizer(optimizer, objective)


@pytest.mark.parametrize("prior", [L1Prior(1.0), L2Prior(1.0), NoPrior()])
def test_optimizers_that_fit_are_taken(prior):
    objective, _ = problem(prior)
    fitting = [torch.optim.SGD(objective.parameters(), lr=0.1), torch.optim.Adam(objective.parameters())]
    if prior.smooth:
        fitting += [torch.optim.LBFGS(objective.parameters()), torch.optim.RMSprop(objective.parameters())]
    for optimizer in fitting:
        check_optimizer(optimizer, objective)


def test_a_prior_of_several_weight_groups_uses_the_rate_of_each():
    objective, rows = problem(L1Prior(0.05))
    layer = objective.model.layer
    optimizer = torch.optim.SGD([{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.02}])
    step = Step(objective)
    for _ in range(1500):
        step(Batch(rows, 1.0), optimizer, optimizer)
    weight, bias = fitted(objective)
    expected, intercept = oracle(objective.prior, rows)
    np.testing.assert_allclose(weight, expected, atol=1e-7)
    assert bias == pytest.approx(intercept, abs=1e-7)


def test_the_prior_is_on_the_weights_as_the_network_holds_them():
    # In units of y with gain g the coefficient is g · w, so a prior of scale b on w is one of scale g · b on it.
    objective, rows = problem(L1Prior(0.05))
    objective.head.set_units(2.0, 3.0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1 / 9)
    repeat(objective, rows, optimizer, [0.1 / 9] * 1000)
    weight, bias = fitted(objective)
    expected, intercept = oracle(L1Prior(0.15), rows)
    np.testing.assert_allclose(3 * weight, expected, atol=1e-7)
    assert 2 + 3 * bias == pytest.approx(intercept, abs=1e-7)


def test_a_prior_on_a_model_without_weights_costs_nothing():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            return self.level.expand(*x.shape[:-1], 1)

    objective = Objective(Constant(), PoissonHead().double(), L2Prior(1.0), 10.0)
    assert objective.penalty().item() == 0.0
    assert objective.smooth_penalty().item() == 0.0
