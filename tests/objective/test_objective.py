"""The objective: eta, likelihood, penalty, and evaluation."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.model.linear import Linear
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective, evaluate
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows


def rows(n: int = 9) -> Rows:
    generator = np.random.default_rng(2)
    columns = (generator.normal(size=(n, 3)), generator.normal(size=n), generator.integers(1, 4, size=n))
    return Rows(*(torch.tensor(c, dtype=torch.float64) for c in (*columns, generator.normal(size=n))))


def linear(eta_dim: int) -> Linear:
    model = Linear(3, eta_dim).double()
    generator = torch.Generator().manual_seed(4)
    model.load(
        torch.randn(eta_dim, 3, generator=generator, dtype=torch.float64),
        torch.randn(eta_dim, generator=generator, dtype=torch.float64),
    )
    return model


def affine(model: Linear, x: torch.Tensor) -> np.ndarray:
    return x.numpy() @ model.layer.weight.detach().numpy().T + model.layer.bias.detach().numpy()


def test_eta_is_center_plus_gain_times_raw_with_the_offset_on_the_first_column():
    data, model, head = rows(), linear(2), GaussianHead("predicted").double()
    head.center.copy_(torch.tensor([10.0, -1.0]))
    head.gain.copy_(torch.tensor([3.0, 0.5]))
    eta = Objective(model, head, NoPrior(), data.population).eta(data.x, data.offset).detach()
    expected = [10.0, -1.0] + np.array([3.0, 0.5]) * affine(model, data.x)
    expected[:, 0] += data.offset.numpy()
    np.testing.assert_allclose(eta, expected, rtol=1e-12)


def test_eta_takes_no_shared_column():
    data, head = rows(), GaussianHead("shared").double()
    head.set_units(4.0, 2.0)
    eta = Objective(Linear(3, 1).double(), head, NoPrior(), data.population).eta(data.x, data.offset)
    np.testing.assert_allclose(eta.detach()[:, 0], 4.0 + data.offset.numpy(), rtol=1e-14)
    assert eta.shape == (9, 1)


def test_a_float32_model_gives_an_eta_in_the_precision_of_the_target():
    data, head = rows(), PoissonHead()
    objective = Objective(Linear(3, 1), head, NoPrior(), data.population)
    assert objective.eta(data.x.float(), data.offset).dtype == torch.float64


def test_a_log_exposure_multiplies_the_rate():
    data, model, head = rows(), linear(1), PoissonHead().double()
    objective = Objective(model, head, NoPrior(), data.population)
    rate = head(objective.eta(data.x, torch.full((9,), math.log(7.0)).double())).mean.detach()
    np.testing.assert_allclose(rate, 7 * np.exp(affine(model, data.x)[:, 0]), rtol=1e-6)


def test_the_objective_is_the_weighted_mean_nll_plus_the_penalty_per_observation():
    data, model, head = rows(), linear(1), GaussianHead(0.7).double()
    objective = Objective(model, head, L2Prior(0.4), data.population)
    loc = affine(model, data.x)[:, 0] + data.offset.numpy()
    nll = -scipy.stats.norm(loc, 0.7).logpdf(data.y.numpy())
    w = data.weight.numpy()
    penalty = -scipy.stats.norm(0, 0.4).logpdf(model.layer.weight.detach().numpy()).sum()
    np.testing.assert_allclose(objective.nll(data).detach(), nll, rtol=1e-12)
    assert objective.penalty().item() == pytest.approx(penalty, rel=1e-12)
    assert objective(data).item() == pytest.approx((w @ nll + penalty) / w.sum(), rel=1e-12)


def test_weight_two_is_the_row_twice():
    data, model = rows(), linear(1)
    repeat = data.weight.long()
    twice = Rows(*(column.repeat_interleave(repeat, 0) for column in data))._replace(
        weight=torch.ones(int(repeat.sum()), dtype=torch.float64)
    )
    values = [Objective(model, GaussianHead().double(), L2Prior(0.4), r.population)(r).item() for r in (data, twice)]
    assert values[0] == pytest.approx(values[1], rel=1e-13)


def test_the_population_is_fixed_whatever_the_batch():
    data, model = rows(), linear(1)
    objective = Objective(model, GaussianHead(0.7).double(), NoPrior(), 100.0)
    part = data.take(slice(0, 4))
    loc = affine(model, part.x)[:, 0] + part.offset.numpy()
    total = -(part.weight.numpy() @ scipy.stats.norm(loc, 0.7).logpdf(part.y.numpy()))
    assert objective.descent(Batch(part, 2.5)).item() == pytest.approx(2.5 * total / 100, rel=1e-12)
    assert objective(part).item() == pytest.approx(total / 100, rel=1e-12)


def test_a_rough_prior_is_not_descended_by_autograd():
    data, model = rows(), linear(1)
    objective = Objective(model, GaussianHead(0.7).double(), L1Prior(0.4), data.population)
    bare = Objective(model, GaussianHead(0.7).double(), NoPrior(), data.population)
    assert objective.descent(Batch(data, 1.0)).item() == bare.descent(Batch(data, 1.0)).item()
    expected = np.abs(model.layer.weight.detach().numpy()).sum() / 0.4 + 3 * math.log(0.8)
    assert objective.penalty().item() == pytest.approx(expected, rel=1e-12)


def test_the_penalty_is_on_trainable_matrices_alone():
    model = Mlp(3, 1, hidden=[4, 2], layer_norm=True)
    for p in model.parameters():
        nn.init.normal_(p)
    model.body[0].weight.requires_grad_(False)
    head = GaussianHead("shared")
    head.shared.data.fill_(5.0)
    objective = Objective(model, head, L2Prior(0.5), 9.0)
    matrices = [model.body[3].weight, model.last.weight]
    assert [id(w) for w in objective.weights()] == [id(w) for w in matrices]
    expected = sum(-scipy.stats.norm(0, 0.5).logpdf(w.detach().double().numpy()).sum() for w in matrices)
    assert objective.penalty().item() == pytest.approx(expected, rel=1e-6)
    assert objective.penalty().dtype == torch.float64


def test_kernels_of_any_rank_are_under_the_prior():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Conv2d(1, 1, 2))
    objective = Objective(model, PoissonHead(), L2Prior(0.5), 9.0)
    assert [tuple(w.shape) for w in objective.weights()] == [(3, 2, 2), (1, 1, 2, 2)]


def test_a_tied_weight_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

    model = Tied().double()
    objective = Objective(model, PoissonHead(), L2Prior(0.5), 9.0)
    expected = -scipy.stats.norm(0, 0.5).logpdf(model.first.weight.detach().numpy()).sum()
    assert objective.penalty().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eta_dim", [1, 3])
def test_a_model_of_the_wrong_width_is_refused(eta_dim):
    data = rows()
    objective = Objective(linear(eta_dim), GaussianHead("predicted").double(), NoPrior(), data.population)
    with pytest.raises(ValueError, match=rf"Linear returned shape \(9, {eta_dim}\), expected \(9, 2\)"):
        objective.eta(data.x, data.offset)


def test_a_model_that_drops_the_last_dimension_is_refused():
    class Flat(nn.Module):
        def forward(self, x):
            return x.sum(-1)

    data = rows(n=9)
    objective = Objective(Flat(), GaussianHead(1.0).double(), NoPrior(), data.population)
    with pytest.raises(ValueError, match=r"Flat returned shape \(9,\), expected \(9, 1\)"):
        objective.nll(data)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", [1, 4, 9, 16384])
def test_evaluation_is_exact_in_evaluation_mode_and_restores_the_mode(training, block):
    torch.manual_seed(0)
    data = rows()
    model = Mlp(3, 3, hidden=[16], dropout=0.5).double()
    nn.init.normal_(model.last.weight)
    data = data._replace(y=torch.arange(9) % 3)
    objective = Objective(model, CategoricalHead(3).double(), NoPrior(), data.population).train(training)
    got = evaluate(objective, data, block)
    assert objective.training is training
    assert all(module.training is training for module in objective.modules())
    hidden = model.body[0](data.x)
    logits = model.last(hidden * hidden.sigmoid()).detach().numpy()
    logits[:, 0] += data.offset.numpy()
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(9), data.y.numpy()]
    np.testing.assert_allclose(got.eta, logits, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(got.nll, expected, rtol=1e-12)
    assert not got.nll.requires_grad


def test_evaluation_restores_the_mode_after_an_error():
    data = rows()
    objective = Objective(linear(1), GaussianHead("predicted").double(), NoPrior(), data.population).train()
    with pytest.raises(ValueError, match="returned shape"):
        evaluate(objective, data)
    assert objective.training
