"""With the linear model the posterior is that of classical inference: statsmodels and closed forms say so."""

import io

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from baseline.exact_oracles import Sample, data, varied
from linear_runs import at_estimate, placed, rows_of
from torch.func import functional_call, jacrev

from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.model.mlp import Mlp
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.rows.rows import Rows
from mlefw.uncertainty.laplace import Laplace
from mlefw.uncertainty.posterior import Posterior

HEADS = {"gaussian": GaussianHead, "bernoulli": BernoulliHead, "poisson": PoissonHead}
FAMILIES = {
    "gaussian": sm.families.Gaussian,
    "bernoulli": sm.families.Binomial,
    "poisson": sm.families.Poisson,
}
CASES = [
    ("gaussian", "diabetes", "plain"),
    ("gaussian", "scotland", "weight and offset"),
    ("gaussian", "longley", "plain"),
    ("bernoulli", "spector", "plain"),
    ("bernoulli", "fair", "weight and offset"),
    ("poisson", "cpunish", "plain"),
    ("poisson", "randhie", "offset"),
]


def coded(of: Sample) -> Rows:
    return rows_of(of.x, of.y, of.weight, of.offset)


@pytest.mark.parametrize("weights", ["last_layer", "full"])
@pytest.mark.parametrize(("head", "name", "variant"), CASES)
def test_covariance_is_that_of_statsmodels(head: str, name: str, variant: str, weights: str) -> None:
    of = varied(data(name), variant)
    x, y, offset = of.repeated()
    family = FAMILIES[head]()
    fit = sm.GLM(y, sm.add_constant(x, has_constant="add"), family, offset=offset).fit(tol=1e-14, maxiter=200)
    rows = coded(of)
    objective = at_estimate(HEADS[head](), rows)
    posterior = Laplace(weights).fit(objective, rows)
    p = of.x.shape[1]
    gain, scale = objective.head.gain[0], objective.model.scale * (posterior.scale if len(posterior.scale) else 1.0)
    slopes = gain * posterior.covariance.diagonal()[:p].sqrt() / scale
    np.testing.assert_allclose(slopes.numpy(), fit.bse[1:], rtol=1e-6)
    design = sm.add_constant(of.x, has_constant="add")
    eta = posterior.eta_covariance(objective, rows)[:, 0, 0]
    np.testing.assert_allclose(eta.numpy(), np.einsum("ij,jk,ik->i", design, fit.cov_params(), design), rtol=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["diabetes", "stackloss", "longley"])
def test_prediction_interval_is_the_classical_one(name: str, level: float) -> None:
    """Student t quantiles on n − p degrees of freedom, s² (1 + leverage): also of rows far from the others."""
    of = data(name)
    new = np.concatenate([of.x[:5], of.x.mean(0) + 7 * of.x.std(0) * np.sign(of.x[:3] - of.x.mean(0))])
    fit = sm.OLS(of.y, sm.add_constant(of.x)).fit()
    frame = fit.get_prediction(sm.add_constant(new, has_constant="add")).summary_frame(alpha=1 - level)
    objective = at_estimate(GaussianHead(), coded(of))
    posterior = Laplace().fit(objective, coded(of))
    assert posterior.df == fit.df_resid
    lower, upper = quantile.interval(posterior.predictive(objective, rows_of(new, np.zeros(len(new)))), level)
    np.testing.assert_allclose(lower.numpy(), frame["obs_ci_lower"], rtol=1e-7)
    np.testing.assert_allclose(upper.numpy(), frame["obs_ci_upper"], rtol=1e-7)


def test_classes_have_the_covariance_of_multinomial_regression() -> None:
    of = data("anes96")
    design = sm.add_constant(of.x)
    fit = sm.MNLogit(of.y, design).fit(tol=1e-12, maxiter=100, disp=0)
    rows = coded(of)._replace(y=torch.tensor(of.y).long())
    num_classes = int(of.y.max()) + 1
    objective = at_estimate(CategoricalHead(num_classes), rows)
    posterior = Laplace().fit(objective, rows)
    assert posterior.null.shape[1] == design.shape[1], "one number may be added to all columns"
    covariance = posterior.eta_covariance(objective, rows.take(slice(0, 20))).numpy()
    against_first = np.eye(num_classes)[1:] - np.eye(num_classes)[0]
    ours = against_first @ covariance @ against_first.T
    blocks = np.asarray(fit.cov_params()).reshape(num_classes - 1, design.shape[1], num_classes - 1, -1)
    theirs = np.einsum("ni,kijl,nl->nkj", design[:20], blocks, design[:20])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weights", ["last_layer", "full"])
def test_ridge_has_its_closed_form(weights: str) -> None:
    of, sigma, tau = data("stackloss"), 3.0, 0.2
    rows = coded(of)
    objective = at_estimate(GaussianHead(scale=sigma), rows, L2Prior(tau))
    z = (of.x - of.x.mean(0)) / of.x.std(0)
    gain = of.y.std()
    design = np.column_stack([z, np.ones(len(z))])
    precision = gain**2 * design.T @ design / sigma**2 + np.diag([1 / tau**2] * 3 + [0])
    posterior = Laplace(weights).fit(objective, rows)
    np.testing.assert_allclose(posterior.covariance.numpy(), np.linalg.inv(precision), rtol=1e-9, atol=1e-12)
    spread = posterior.predictive(objective, rows).stddev.numpy()
    variance = gain**2 * np.einsum("ij,jk,ik->i", design, np.linalg.inv(precision), design)
    np.testing.assert_allclose(spread, np.sqrt(sigma**2 + variance), rtol=1e-9)


def test_last_layer_of_a_network_is_least_squares_on_its_features() -> None:
    of = data("diabetes")
    rows = coded(of)
    torch.manual_seed(0)
    network = Mlp(of.x.shape[1], 1, hidden=[6, 4], activation="tanh", dropout=0.3)
    objective = placed(GaussianHead(), rows, network)
    posterior = Laplace().fit(objective, rows)
    with torch.no_grad():
        z = (rows.x - objective.model.mean) / objective.model.scale
        features = sm.add_constant(network.double().eval().body(z).numpy())
        sigma = float(objective.head(objective.eta(rows.x, rows.offset)).scale[0])
    n, p = features.shape
    variance = n / (n - p) * sigma**2 * np.linalg.inv(features.T @ features)
    expected = np.einsum("ij,jk,ik->i", features, variance, features)
    ours = posterior.eta_covariance(objective, rows)[:, 0, 0]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("head", ["bernoulli", "heteroscedastic", "laplace"])
def test_all_weights_of_a_network(head: str) -> None:
    """The same sum written out: one Jacobian of the whole eta, Fisher information from its textbook."""
    of = data("spector") if head == "bernoulli" else data("stackloss")
    rows = coded(of)
    made = {"bernoulli": BernoulliHead(), "heteroscedastic": GaussianHead("predicted"), "laplace": LaplaceHead()}[head]
    torch.manual_seed(0)
    network = Mlp(of.x.shape[1], made.eta_dim, hidden=[3], activation="tanh").double()
    torch.nn.init.normal_(network.last.weight)
    objective = placed(made, rows, network, L2Prior(0.5)).double()
    posterior = Laplace("full").fit(objective, rows)
    names = [name for name, _ in objective.model.named_parameters()]

    def eta(*values: torch.Tensor) -> torch.Tensor:
        raw = functional_call(objective.model, dict(zip(names, values[:-1], strict=True)), (rows.x,))
        return objective.head.center + objective.head.gain * torch.cat([raw, values[-1].expand(len(raw), -1)], 1)

    values = (*objective.model.parameters(), objective.head.shared)
    slopes = jacrev(eta, argnums=tuple(range(len(values))))(*values)
    jacobian = torch.cat([slope.flatten(2) for slope in slopes], -1).detach()
    at = eta(*values).detach()
    if head == "bernoulli":
        fisher = torch.sigmoid(at) * torch.sigmoid(-at)
    else:
        fisher = torch.stack([(-2 * at[:, 1]).exp(), torch.full_like(at[:, 1], 2.0 if head != "laplace" else 1.0)], 1)
    precision = torch.einsum("nkp,nk,nkq->pq", jacobian, fisher, jacobian)
    under_prior = torch.cat([torch.full((v.numel(),), 4.0 * (v.ndim == 2)) for v in values])
    expected = torch.linalg.inv(precision + torch.diag(under_prior.double()))
    torch.testing.assert_close(posterior.covariance, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        posterior.eta_covariance(objective, rows), jacobian @ expected @ jacobian.mT, rtol=1e-6, atol=1e-9
    )


def test_collinear_features() -> None:
    """What is estimable has the variance of a generalised inverse; what is not is refused."""
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3))
    x[:, 2] = x[:, 0] + x[:, 1]
    y = x[:, 0] + random.normal(size=40)
    rows = rows_of(x, y)
    objective = at_estimate(GaussianHead(), rows)
    posterior = Laplace().fit(objective, rows)
    fit = sm.OLS(y, sm.add_constant(x[:, :2])).fit()
    assert posterior.df == fit.df_resid == 37
    frame = fit.get_prediction().summary_frame(alpha=0.1)
    lower, upper = quantile.interval(posterior.predictive(objective, rows), 0.9)
    np.testing.assert_allclose(lower.numpy(), frame["obs_ci_lower"], rtol=1e-7)
    np.testing.assert_allclose(upper.numpy(), frame["obs_ci_upper"], rtol=1e-7)
    with pytest.raises(UsageError, match="1 of 2 rows lie outside"):
        posterior.predictive(objective, rows_of(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 2.5]]), np.zeros(2)))
    held = at_estimate(GaussianHead(), rows, L2Prior(1.0))
    wide = (
        Laplace().fit(held, rows).predictive(held, rows_of(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 9.0]]), np.zeros(2)))
    )
    assert wide.stddev[1] > 1.5 * wide.stddev[0]


@pytest.mark.parametrize("head", ["gaussian", "poisson"])
def test_predictions_widen_away_from_the_rows(head: str) -> None:
    of = data("stackloss")
    rows = coded(of)
    objective = at_estimate(HEADS[head](), rows)
    posterior = Laplace().fit(objective, rows)
    mean, direction = of.x.mean(0), np.array([1.0, -1.0, 1.0]) * of.x.std(0)
    away = rows_of(mean + np.linspace(0, 6, 13)[:, None] * direction, np.zeros(13))
    lower, upper = quantile.interval(posterior.predictive(objective, away), 0.9)
    below, above = quantile.interval(objective.head(objective.eta(away.x, away.offset)), 0.9)
    excess = ((upper - lower) - (above - below)).detach().numpy()
    assert (excess >= 0).all()
    assert excess[-1] > 3
    assert (np.diff(excess) >= 0).all()


def test_a_checkpoint_carries_it() -> None:
    rows = coded(data("spector"))
    objective = at_estimate(BernoulliHead(), rows)
    posterior = Laplace().fit(objective, rows)
    file = io.BytesIO()
    torch.save(posterior.state(), file)
    file.seek(0)
    again = Posterior.from_dict(torch.load(file, weights_only=True))
    p = again.predictive(objective, rows).probs
    assert torch.equal(p, posterior.predictive(objective, rows).probs)
    with pytest.raises(UsageError, match="do not fit"):
        Posterior.from_dict({**posterior.state(), "root": posterior.root[:-1], "null": posterior.root})
    with pytest.raises(UsageError, match="cannot be read"):
        Posterior.from_dict({"root": posterior.root})


def test_what_has_no_posterior_is_refused() -> None:
    rows = coded(data("stackloss"))
    for prior in (L1Prior(1.0), ElasticNetPrior(1.0, 1.0)):
        with pytest.raises(UsageError, match="kink at zero"):
            Laplace().check(placed(GaussianHead(), rows, Mlp(3, 1, [4]), prior))
    nameless = placed(GaussianHead(), rows, torch.nn.Linear(3, 1))
    with pytest.raises(UsageError, match=r"uncertainty\.weights=full"):
        Laplace().check(nameless)
    Laplace("full").check(nameless)
    with pytest.raises(UsageError, match="at most 5000"):
        Laplace("full").check(placed(GaussianHead(), rows, Mlp(3, 1, [80, 80])))
    wide = placed(GaussianHead(), rows, Mlp(3, 1, [64]))
    Laplace().check(wide)
    with pytest.raises(UsageError, match="degrees of freedom"):
        Laplace().fit(wide, rows)
    with pytest.raises(UsageError, match="last_layer or full"):
        Laplace("all")  # type: ignore[arg-type]
