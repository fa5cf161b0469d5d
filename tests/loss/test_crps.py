"""Training that descends the CRPS: values, derivatives, the minimum, and what is said about it."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import summary_of
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm

from mlefw.cli import run
from mlefw.distribution.crps import row_crps
from mlefw.distribution.incomplete import betainc, gammainc, gammaincc
from mlefw.distribution.transformation import Noise
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.beta import BetaHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.censored import CensoredHead
from mlefw.head.exponential import ExponentialHead
from mlefw.head.gamma import GammaHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.histogram import HistogramHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.lognormal import LognormalHead
from mlefw.head.mixture import MixtureHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.ordinal import OrdinalHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.student_t import StudentTHead
from mlefw.head.transformation import TransformationHead
from mlefw.head.weibull import WeibullHead
from mlefw.head.zero_inflated import ZeroInflatedNegativeBinomialHead, ZeroInflatedPoissonHead
from mlefw.loss.crps import Crps
from mlefw.rows.rows import Rows
from mlefw.testing.loss import check_loss

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

Array = NDArray[np.float64]

HEADS: list[Head] = [
    BernoulliHead(),
    BetaHead(),
    ExponentialHead(),
    GammaHead(),
    GaussianHead(scale="predicted"),
    HistogramHead(edges=[-1.0, 0.0, 1.0, 2.0, 8.0]),
    HuberHead(delta="shared"),
    LaplaceHead(),
    LognormalHead(),
    MixtureHead(GaussianHead(), 2),
    MixtureHead(LaplaceHead(), 2),
    NegativeBinomialHead(),
    OrdinalHead(4),
    PoissonHead(),
    StudentTHead(),
    *(TransformationHead(noise=noise) for noise in get_args(Noise)),
    WeibullHead(),
    ZeroInflatedNegativeBinomialHead(),
    ZeroInflatedPoissonHead(),
]


def name(head: Head) -> str:
    return type(head).__name__


def by_definition(head: Head, eta: torch.Tensor, y: float) -> float:
    """∫ (F(v) − 1{y <= v})² dv, F by integrating or adding up the density of the head alone."""

    def density(v: Array) -> Array:
        at = torch.as_tensor(v, dtype=torch.int64 if head.target == "ordered" else torch.float64)
        inside = head.support.check(at)
        found = np.zeros(len(v))
        found[inside.numpy()] = np.exp(-head.nll_complete(eta.expand(int(inside.sum()), -1), at[inside]).numpy())
        return found

    if head.support.is_discrete:
        k = np.arange(0, 1000.0)
        return float(((density(k).cumsum() - (k >= y)) ** 2).sum())
    # Pieces that get short towards 0 and 1, and end at y and where a density has a kink.
    node, weight = np.polynomial.legendre.leggauss(60)
    powers = 2.0 ** np.arange(-60, 24, 0.5)
    bends = [float(eta[0]), *(float(eta[0] + sign * eta[1:].sum().exp()) for sign in (-1, 1))]
    ends = [0.0, y, *(bends if isinstance(head, HuberHead) else eta.tolist())]
    knots = np.unique(np.r_[ends, -powers, powers, 1 - powers[powers < 1]])
    low, high = knots[:-1, None], knots[1:, None]
    v = (low + high) / 2 + (high - low) / 2 * node
    mass = density(v.ravel()).reshape(v.shape) * weight * (high - low) / 2
    before = np.concatenate([[0.0], mass.sum(1).cumsum()[:-1]])[:, None]
    # F at the nodes of each piece, by integrating the Legendre interpolant of the density.
    legendre = np.polynomial.legendre
    table = legendre.legvander(node, 59)
    coefficients = (mass / weight) @ (table * weight[:, None]) * (np.arange(60) + 0.5)
    inner = legendre.legval(node, legendre.legint(coefficients.T, lbnd=-1))
    below = before + inner
    return float((((below - (v >= y)) ** 2) * weight * (high - low) / 2).sum())


@pytest.mark.parametrize("head", HEADS, ids=name)
def test_value_and_derivatives_are_those_of_the_definition(head: Head) -> None:
    head = head.double()
    Crps().check(head)
    eta = torch.linspace(0.1, 0.6, len(head.center), dtype=torch.float64)
    # The one that is integrated numerically, over kinks.
    rel = 1e-7 if isinstance(head, MixtureHead) and isinstance(head.component, LaplaceHead) else 2e-9
    for y in (0.0, 3.0) if head.support.is_discrete and head.target != "binary" else (0.0, 1.0):
        y = y if head.support.is_discrete or bool(head.support.check(torch.tensor(y))) else 0.3 + 0.5 * y
        leaf = eta.clone().requires_grad_()
        dtype = torch.int64 if head.target == "ordered" else torch.float64
        value = row_crps(head.distribution(leaf[None]), torch.tensor([y], dtype=dtype)).sum()
        (slope,) = torch.autograd.grad(value, leaf)
        assert value.item() == pytest.approx(by_definition(head, eta, y), rel=rel)
        for k in range(len(eta)):
            step = torch.zeros_like(eta)
            step[k] = 1e-4
            quotient = (by_definition(head, eta + step, y) - by_definition(head, eta - step, y)) / 2e-4
            assert float(slope[k]) == pytest.approx(quotient, rel=max(1e-5, 1e3 * rel), abs=1e-7)


def test_published_values() -> None:
    """Location 0.3, scale 1.7, y = 2: value, and derivatives in location and scale in closed form."""
    y, z = torch.tensor([2.0]).double(), 1.0
    eta = torch.tensor([[0.3, math.log(1.7)]], dtype=torch.float64)
    expected = {
        GaussianHead: (1.0241503079669476, 1 - 2 * norm.cdf(z), 2 * norm.pdf(z) - math.pi**-0.5),
        LaplaceHead: (1.0503950499914518, math.exp(-z) - 1, math.exp(-z) * 2 - 0.75),
    }
    for kind, (value, in_loc, in_scale) in expected.items():
        leaf = eta.clone().requires_grad_()
        found = row_crps(kind().double().distribution(leaf), y)
        (slope,) = torch.autograd.grad(found.sum(), leaf)
        assert found.item() == pytest.approx(value, rel=1e-14)
        np.testing.assert_allclose(slope[0], [in_loc, 1.7 * in_scale], rtol=1e-13)


@pytest.mark.parametrize("point", [(0.3, 0.1), (2.5, 9.0), (40.0, 55.0), (2e4, 20100.0)])
def test_derivatives_of_the_incomplete_gamma_function(point: tuple[float, float]) -> None:
    mpmath = pytest.importorskip("mpmath")
    a, x = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in point)
    with mpmath.workdps(40):
        in_a = mpmath.diff(lambda a: mpmath.gammainc(a, 0, point[1], regularized=True), point[0])
        in_x = mpmath.exp((point[0] - 1) * mpmath.log(point[1]) - point[1] - mpmath.loggamma(point[0]))
    for function, sign in ((gammainc, 1), (gammaincc, -1)):
        found = torch.autograd.grad(function(a, x), (a, x))
        np.testing.assert_allclose([float(one) for one in found], [sign * float(in_a), sign * float(in_x)], rtol=1e-9)


@pytest.mark.parametrize("point", [(0.5, 2.0, 0.3), (3.0, 0.7, 0.999), (200.0, 35.0, 0.9), (5.0, 1e4, 3e-4)])
def test_derivatives_of_the_incomplete_beta_function(point: tuple[float, float, float]) -> None:
    mpmath = pytest.importorskip("mpmath")
    a, b, x = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in point)
    with mpmath.workdps(40):
        expected = [
            mpmath.diff(lambda a, b, x: mpmath.betainc(a, b, 0, x, True), point, order)
            for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
    found = torch.autograd.grad(betainc(a, b, x, 1 - x), (a, b, x))
    np.testing.assert_allclose([float(one) for one in found], [float(one) for one in expected], rtol=1e-9)


@pytest.mark.parametrize(
    "head", [GaussianHead(scale="predicted"), GammaHead(), PoissonHead(), OrdinalHead(4)], ids=name
)
def test_the_public_checks(head: Head) -> None:
    check_loss(Crps(), head)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (CategoricalHead(3), "labels without an order"),
        (MultivariateGaussianHead(("a", "b")), "several numbers in a row"),
        (CensoredHead(GaussianHead()), "or bounds"),
    ],
    ids=["labels", "several", "bounds"],
)
def test_heads_without_a_crps_are_refused(head: Head, why: str) -> None:
    with pytest.raises(UsageError, match=rf"{why}.*expected a head of one number, count or ordered class"):
        Crps().check(head.double())


def test_the_unit_of_the_target_does_not_change_the_loss() -> None:
    y, ones = torch.tensor([1.0, 2.5, 4.0, -3.0]).double(), torch.ones(4).double()
    eta = torch.tensor([[0.5, 0.1]]).double().expand(4, 2)
    values = []
    for unit in (1.0, 1e6):
        loss = Crps()
        loss.learn(Rows(ones[:, None], unit * y, ones, 0 * ones))
        moved = torch.stack([unit * eta[:, 0], eta[:, 1] + math.log(unit)], 1)
        values.append(loss(GaussianHead(scale="predicted").double(), moved, unit * y))
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=0)


def test_a_linear_model_reaches_the_minimum_and_what_it_is_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2))
    y = 1 + x @ [2.0, -1.0] + np.exp(0.4 * x[:, 0] - 0.5) * random.standard_t(3, 300)
    np.savetxt(tmp_path / "d.csv", np.c_[x, y], delimiter=",", header="a,b,y", comments="")
    settings = ["head=heteroscedastic", "loss=crps", "model=linear", "batch=full", "optimizer=lbfgs", "report=false"]
    settings += ["data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "trainer.max_epochs=60", "logger=none"]
    settings += ["data.test_fraction=0", "data.validation_fraction=0", f"run_dir={tmp_path / 'r'}"]
    assert run(["train", *settings]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "minimum CRPS estimate: the gap to the MLE is not an error of the optimisation" in said
    summary = summary_of(tmp_path / "r")
    assert (summary["loss"], summary["estimate"]) == ("crps", "minimum CRPS")
    z = np.c_[np.ones(300), x]

    def mean_crps(theta: Array) -> tuple[float, Array]:
        loc, scale = z @ theta[:3], np.exp(z @ theta[3:])
        u = (y - loc) / scale
        value = scale * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - math.pi**-0.5)
        slope = np.r_[z.T @ (1 - 2 * norm.cdf(u)), z.T @ (scale * (2 * norm.pdf(u) - math.pi**-0.5))] / 300
        return float(value.mean()), slope

    best = minimize(mean_crps, np.zeros(6), jac=True, options={"gtol": 1e-9})
    assert summary["metrics"]["train"]["crps"] == pytest.approx(best.fun, rel=1e-10)
    # A minimum of another function: the likelihood there is lower than at the MLE.
    assert summary["distance"]["excess_objective"] > 1e-3
