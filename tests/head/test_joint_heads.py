"""Heads of several targets: densities, scores, marginals and samples against scipy and plain sums."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import kl_divergence
from torch.func import grad, jacrev, vmap

from mlefw.distribution import quantile
from mlefw.distribution.cdf import cdf
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.multitask import MultitaskHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.student_t import StudentTHead

# Importing torch's own vmap decompositions warns, whatever is mapped.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

NAN = math.nan


def normal(names: str = "abc", **settings: object) -> MultivariateGaussianHead:
    return MultivariateGaussianHead(tuple(names), **settings).double()


def tasks(**parts: Head) -> MultitaskHead:
    chosen = parts or {"a": GaussianHead(), "k": CategoricalHead(3), "n": PoissonHead(), "g": GammaHead()}
    return MultitaskHead(chosen).double()


def etas(head: Head, n: int = 6, seed: int = 0) -> torch.Tensor:
    """Complete eta (n, columns)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, head.eta_dim + head.shared_dim, generator=generator, dtype=torch.float64)


def covariance(eta: torch.Tensor, dim: int) -> np.ndarray:
    """From the definition of the columns: scales of what the targets before leave, and their coefficients."""
    row = eta.numpy()
    precision_root = np.zeros((dim, dim))
    entries = iter(row[2 * dim :])
    for d in range(dim):
        scale = math.exp(row[dim + d])
        for j in range(d):
            precision_root[d, j] = -next(entries) / scale
        precision_root[d, d] = 1 / scale
    return np.linalg.inv(precision_root.T @ precision_root)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_multivariate_density_against_scipy(dim: int) -> None:
    head = normal("abcde"[:dim])
    # Scipy inverts the covariance, which has to be well conditioned for it.
    eta = 0.4 * etas(head)
    y = torch.randn(6, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [
        -scipy.stats.multivariate_normal(row[:dim].numpy(), covariance(row, dim)).logpdf(value.numpy())
        for row, value in zip(eta, y, strict=True)
    ]
    np.testing.assert_allclose(head.nll_complete(eta, y), expected, rtol=1e-11)


def test_multivariate_density_at_extremes() -> None:
    # By hand: y − loc = (1e150, 1e150 + 3), where the second less the first, times one, is 3.
    head = normal("ab")
    eta = torch.tensor([[0.0, 0.0, 300.0, 0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[1e100, 1e100]], dtype=torch.float64)
    expected = math.log(2 * math.pi) + 300 + 0.5 * (1e100 / math.exp(300)) ** 2
    assert float(head.nll_complete(eta, y)) == pytest.approx(expected, rel=1e-9)
    tiny = torch.tensor([[0.0, 0.0, -300.0, -300.0, 0.0]], dtype=torch.float64)
    value = float(head.nll_complete(tiny, torch.zeros(1, 2, dtype=torch.float64)))
    assert value == pytest.approx(math.log(2 * math.pi) - 600, rel=1e-12)


def test_multivariate_moments_marginals_and_samples() -> None:
    head = normal()
    eta = etas(head, 1)
    expected = covariance(eta[0], 3)
    distribution = head.distribution(eta)
    np.testing.assert_allclose(distribution.covariance[0], expected, rtol=1e-12)
    np.testing.assert_allclose(distribution.variance[0], np.diag(expected), rtol=1e-12)
    assert torch.equal(distribution.mean, eta[:, :3])
    for d, marginal in enumerate(distribution.marginals):
        at = torch.tensor([0.7], dtype=torch.float64)
        frozen = scipy.stats.norm(float(eta[0, d]), expected[d, d] ** 0.5)
        assert float(cdf(marginal, at)) == pytest.approx(frozen.cdf(0.7), rel=1e-12)
        assert float(quantile.quantile(marginal, 0.2)) == pytest.approx(frozen.ppf(0.2), rel=1e-12)
    torch.manual_seed(0)
    drawn = head.distribution(eta.expand(40_000, -1)).sample()
    whitened = (drawn - eta[:, :3]).numpy() @ np.linalg.inv(np.linalg.cholesky(expected)).T
    # Fixed seed; the sum of squares of 120,000 standard normal numbers, and each cross product.
    assert scipy.stats.kstest((whitened**2).sum(1), "chi2", args=(3,)).pvalue > 1e-4
    cross = whitened.T @ whitened / 40_000 - np.eye(3)
    assert np.abs(cross).max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("head", [normal(), normal("ab"), tasks(a=GaussianHead(), n=PoissonHead())], ids=str)
def test_information_is_the_variance_of_the_score(head: Head) -> None:
    # By sampling: a mean over 200,000 draws; each entry within 6 of its standard errors.
    torch.manual_seed(1)
    eta = 0.5 * etas(head, 1, seed=3)
    rows = eta.expand(200_000, -1)
    y = head.distribution(rows).sample()
    score = vmap(grad(head.nll_complete))(rows, y).detach()
    assert float((score.mean(0) / score.std(0)).abs().max()) < 6 / math.sqrt(200_000)
    product = score.unsqueeze(2) * score.unsqueeze(1)
    error = product.std(0) / math.sqrt(200_000)
    assert bool(((product.mean(0) - head.information(eta)[0]).abs() <= 6 * error + 1e-12).all())


def test_information_is_the_mean_hessian_of_a_multivariate_normal() -> None:
    # Hessians are quadratic in the residual: Gauss-Hermite nodes of three points in each direction are exact.
    head = normal("ab")
    eta = etas(head, 1, seed=5)
    node, weight = np.polynomial.hermite_e.hermegauss(3)
    root = np.linalg.cholesky(covariance(eta[0], 2))
    mass = torch.tensor(np.outer(weight, weight).ravel() / weight.sum() ** 2)
    grid = np.stack([column.ravel() for column in np.meshgrid(node, node, indexing="ij")], 1)
    y = eta[:, :2] + torch.tensor(grid @ root.T)
    curvature = vmap(jacrev(grad(head.nll_complete)))(eta.expand(len(y), -1), y).detach()
    np.testing.assert_allclose(head.information(eta)[0], torch.einsum("n,nij->ij", mass, curvature), atol=1e-10)


def test_the_order_of_the_targets_changes_no_distribution() -> None:
    head = normal("ab")
    eta = etas(head, 1)
    sigma = covariance(eta[0], 2)[::-1, ::-1]
    slope = sigma[1, 0] / sigma[0, 0]
    scales = [0.5 * math.log(sigma[0, 0]), 0.5 * math.log(sigma[1, 1] - slope * sigma[1, 0])]
    turned = torch.tensor([[*eta[0, :2].flip(0).tolist(), *scales, slope]], dtype=torch.float64)
    y = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    got = normal("ba").nll_complete(turned, y.flip(1))
    np.testing.assert_allclose(got, head.nll_complete(eta, y), rtol=1e-12)


def test_multivariate_divergence_against_its_mean() -> None:
    head = normal("ab")
    p, q = head.distribution(etas(head, 1, seed=1)), head.distribution(etas(head, 1, seed=2))
    a, b = p.covariance[0].numpy(), q.covariance[0].numpy()
    gap = (q.loc - p.loc)[0].numpy()
    inverse = np.linalg.inv(b)
    trace = np.trace(inverse @ a) + gap @ inverse @ gap - 2
    expected = 0.5 * (trace + np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1])
    assert float(kl_divergence(p, q)) == pytest.approx(expected, rel=1e-12)


def test_units_of_a_multivariate_normal() -> None:
    mean, spread = [5.0, -3.0, 0.0], [2.0, 1e6, 1e-3]
    plain, moved = normal(), normal()
    plain.set_column_units([0.0] * 3, [1.0] * 3)
    moved.set_column_units(mean, spread)
    raw = etas(plain)
    y = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    far = torch.tensor(mean, dtype=y.dtype) + torch.tensor(spread, dtype=y.dtype) * y
    got = moved.nll_complete(moved.center + moved.gain * raw, far) - sum(map(math.log, spread))
    np.testing.assert_allclose(got, plain.nll_complete(plain.center + plain.gain * raw, y), rtol=1e-9)
    assert moved.floor.tolist() == pytest.approx([1e-3 * unit for unit in spread])
    low = moved.center.clone().expand(2, -1).clone()
    low[:, 3:6] = -99.0
    np.testing.assert_allclose(moved.distribution(low).scale[0], moved.floor, rtol=1e-15)
    assert moved.lowest()[3:6].tolist() == pytest.approx(moved.floor.log().tolist())


def test_the_nll_of_tasks_is_the_plain_sum_of_theirs() -> None:
    head = tasks()
    eta = etas(head)
    y = torch.tensor([[0.3, 2, 4, 1.5], [1.0, 0, 0, 0.2]] * 3, dtype=torch.float64)
    total = torch.zeros(6, dtype=torch.float64)
    for index, part in enumerate(head.parts):
        column = y[:, index].long() if part.target == "labels" else y[:, index]
        total += part.nll_complete(eta[:, head.columns(index)], column)
    np.testing.assert_allclose(head.nll_complete(eta, y), total, rtol=1e-14)
    assert sorted(column for index in range(4) for column in head.columns(index)) == list(range(eta.shape[1]))
    assert head.eta_names == ("a.loc", "k.logits_0", "k.logits_1", "k.logits_2", "n.rate", "g.mean")
    assert head.shared_names == ("a.scale", "g.dispersion")


def test_a_missing_target_counts_nothing_and_has_no_gradient() -> None:
    head = tasks()
    eta = etas(head, 4).requires_grad_()
    full = torch.tensor([0.3, 2.0, 4.0, 1.5], dtype=torch.float64)
    y = full.repeat(4, 1)
    y[range(4), range(4)] = NAN
    nll = head.nll_complete(eta, y)
    nll.sum().backward()
    assert bool(torch.isfinite(eta.grad).all())
    for index in range(4):
        rest = [k for k in range(4) if k != index]
        columns = [full[k].long() if head.parts[k].target == "labels" else full[k] for k in rest]
        own = [head.parts[k].nll_complete(eta[index, head.columns(k)], c) for k, c in zip(rest, columns, strict=True)]
        assert float(nll[index].detach()) == pytest.approx(float(sum(own).detach()), rel=1e-14)
        assert eta.grad[index, head.columns(index)].tolist() == [0.0] * len(head.columns(index))
    assert bool(head.support.check(y).all())
    assert not bool(head.support.check(torch.tensor([[0.0, 3.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]])).any())


def test_marginals_are_those_of_the_heads() -> None:
    head = tasks(a=StudentTHead(), n=PoissonHead())
    eta = etas(head)
    joint = head.distribution(eta)
    assert joint.batch_shape == (6,)
    assert joint.event_shape == head.event_shape == (2,)
    np.testing.assert_allclose(joint.marginals[1].mean, eta[:, head.columns(1)[0]].exp())
    np.testing.assert_allclose(joint.mean, torch.stack([m.mean for m in joint.marginals], -1))
    np.testing.assert_allclose(joint.variance, torch.stack([m.variance for m in joint.marginals], -1))
    other = head.distribution(etas(head, seed=9))
    divergences = [kl_divergence(a, b) for a, b in pairwise([joint.marginals[1], other.marginals[1]])]
    gaussians = tasks(a=GaussianHead(), n=PoissonHead())
    p, q = (gaussians.distribution(etas(gaussians, seed=seed)) for seed in (0, 9))
    expected = [kl_divergence(a, b) for a, b in zip(p.marginals, q.marginals, strict=True)]
    np.testing.assert_allclose(kl_divergence(p, q), sum(expected), rtol=1e-14)
    assert divergences[0].shape == (6,)


def test_kinks_are_rounded_off_in_every_part() -> None:
    head = tasks(a=LaplaceHead(), b=LaplaceHead())
    eta = torch.zeros(1, 2, dtype=torch.float64)
    y = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
    head.kink = 1e-2
    gap = float((head.nll(eta, y) - head.descent_nll(eta, y)).detach())
    # |u| − (√(u² + k²) − k) is 0 at u = 0 and about k far out.
    assert gap == pytest.approx(5 - (math.sqrt(25 + 1e-4) - 1e-2), rel=1e-9)


def test_units_and_floors_of_tasks() -> None:
    head = tasks(a=GaussianHead(), k=CategoricalHead(3), b=LaplaceHead(scale_floor=0.1))
    head.set_column_units([3.0, NAN, -1.0], [2.0, NAN, 5.0])
    assert head.center.tolist() == pytest.approx([3, 0, 0, 0, -1, math.log(2), math.log(5)])
    assert head.gain.tolist() == [2.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0]
    assert head.floor.tolist() == pytest.approx([2e-3, 0.0, 0.5])
    assert head.lowest().tolist()[:5] == [-math.inf] * 5
    assert head.lowest().tolist()[5:] == pytest.approx([math.log(2e-3), math.log(0.5)])
    assert set(head.state_dict()) == {"center", "gain", "floor", "shared"}
    low = torch.full((1, 7), -99.0, dtype=torch.float64)
    assert [float(m.scale) for i, m in enumerate(head.distribution(low).marginals) if i != 1] == [2e-3, 0.5]
    assert head.shifts == ((1, [1, 2, 3]),)


@pytest.mark.parametrize("head", [normal(), tasks()], ids=str)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_shapes(head: Head, shape: tuple[int, ...]) -> None:
    width = head.event_shape[0]
    eta, y = torch.zeros(*shape, head.eta_dim), torch.ones(*shape, width, dtype=torch.float64)
    nll = head.nll(eta, y)
    assert nll.shape == shape
    assert nll.dtype == torch.float64
    distribution = head(eta)
    assert (distribution.batch_shape, distribution.event_shape) == (shape, (width,))
    assert torch.equal(-distribution.log_prob(y), nll)
    with pytest.raises(ValueError, match="y has shape"):
        head.nll(torch.zeros(4, head.eta_dim), torch.zeros(4))
    with pytest.raises(ValueError, match="y has shape"):
        head.nll(torch.zeros(4, head.eta_dim), torch.zeros(4, width + 1))


@pytest.mark.parametrize("head", [normal(), normal("ab", covariance="predicted"), tasks()], ids=str)
def test_gradients(head: Head) -> None:
    eta = etas(head, 3)[:, : head.eta_dim].requires_grad_()
    y = torch.ones(3, head.event_shape[0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda e: head.nll(e, y), eta)
    assert torch.autograd.gradgradcheck(lambda e: head.nll(e, y), eta)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match=r"head\.covariance='full'"):
        normal(covariance="full")
    with pytest.raises(UsageError, match=r"head\.scale_floor=1"):
        normal(scale_floor=1.0)
    with pytest.raises(UsageError, match="at least two"):
        tasks(a=GaussianHead())
