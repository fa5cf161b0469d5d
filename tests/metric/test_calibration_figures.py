"""Recalibration, decomposition, discrimination and scale figures against independent oracles."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, roc_auc_score
from torch.distributions import Bernoulli, Distribution, Gamma, Laplace, NegativeBinomial, Normal, Poisson, StudentT

from mlefw.head.bernoulli import LogitBernoulli
from mlefw.head.categorical import Categorical
from mlefw.metric.base import Metric
from mlefw.metric.binary_calibration import BinaryCalibration
from mlefw.metric.dispersion import Dispersion
from mlefw.metric.scale_gap import ScaleGap
from mlefw.metric.temperature import Temperature

RANDOM = np.random.default_rng(4)


def measure(metric: Metric, distribution: Distribution, y: np.ndarray, weight: np.ndarray | None = None):
    """The figures from sums, and those from all rows at once."""
    rows = (distribution, torch.as_tensor(y), torch.as_tensor(np.ones(len(y)) if weight is None else weight).double())
    metric.update(*rows)
    return tuple({k: v.item() for k, v in f.items()} for f in (metric.compute(), metric.exact(*rows)))


def forecasts(n: int = 3000, slope: float = 1.0, intercept: float = 0.0, seed: int = 0, rounded: bool = False):
    """Logits that should be intercept + slope · logit, and outcomes."""
    random = np.random.default_rng(seed)
    logit = 2 * random.normal(size=n) - 0.3
    if rounded:
        logit = np.round(logit, 1)
    y = (random.random(n) < scipy.special.expit(intercept + slope * logit)).astype(float)
    return logit, y


def binary(logit: np.ndarray) -> Bernoulli:
    return LogitBernoulli(logits=torch.as_tensor(logit), validate_args=False)


def cox_oracle(logit: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression on the logit, by root-finding of the score, and the mean NLL there."""

    def score(beta):
        residual = weight * (scipy.special.expit(beta[0] + beta[1] * logit) - y)
        return [residual.sum(), residual @ logit]

    beta = scipy.optimize.root(score, [0.0, 0.5], tol=1e-14).x
    nll = np.logaddexp(0, -(2 * y - 1) * (beta[0] + beta[1] * logit))
    return beta, float(np.average(nll, weights=weight))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.4), (2.0, -1.0), (-0.3, 0.0)])
@pytest.mark.parametrize("stretch", [1.0, 0.05, 8.0])
def test_cox_recalibration_is_exact_from_sums_and_from_rows(slope, intercept, stretch):
    logit, y = forecasts(slope=slope, intercept=intercept)
    weight = RANDOM.integers(0, 3, len(y)).astype(float)
    beta, least = cox_oracle(logit, y, weight)
    said = stretch * logit
    nll = np.average(np.logaddexp(0, -(2 * y - 1) * said), weights=weight)
    for got in measure(BinaryCalibration(), binary(said), y, weight):
        assert got["calibration_intercept"] == pytest.approx(beta[0], rel=1e-9, abs=1e-10)
        assert got["calibration_slope"] == pytest.approx(beta[1] / stretch, rel=1e-9)
        assert got["calibration_gap_nats"] == pytest.approx(nll - least, rel=1e-9, abs=1e-12)
        p_value = scipy.stats.chi2(2).sf(2 * weight.sum() * (nll - least))
        assert got["calibration_p_value"] == pytest.approx(p_value, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(
    ("logit", "y"),
    [([-1.0, 0.0, 1.0, 2.0], [0, 0, 1, 1]), ([-1.0, 0.0, 1.0], [1, 1, 0]), ([0.3, 0.3, 0.3], [0, 1, 1]), ([1.0], [1])],
)
def test_without_a_finite_recalibration_there_is_none(logit, y):
    for got in measure(BinaryCalibration(), binary(np.array(logit)), np.array(y, dtype=float)):
        assert not {"calibration_intercept", "calibration_slope", "calibration_gap_nats", "calibration_p_value"} & set(
            got
        )
        assert ("auroc" in got) == (0 < sum(y) < len(y))


def test_extreme_and_wrong_logits_are_recalibrated():
    logit = np.array([-900.0, -800.0, 700.0, 750.0, -850.0, 720.0])
    y = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    beta, least = cox_oracle(logit / 800, y, np.ones(6))
    _, got = measure(BinaryCalibration(), binary(logit), y)
    assert got["calibration_slope"] == pytest.approx(beta[1] / 800, rel=1e-9)
    nll = np.logaddexp(0, -(2 * y - 1) * logit).mean()
    assert got["calibration_gap_nats"] == pytest.approx(nll - least, rel=1e-12)


def corp_oracle(logit: np.ndarray, y: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """By scikit-learn: PAV of the outcomes on the forecasts, scores before and after."""
    p = scipy.special.expit(logit)
    recalibrated = IsotonicRegression().fit(logit, y, sample_weight=weight).predict(logit)
    base = np.full_like(p, np.average(y, weights=weight))

    def nats(q):
        return float(np.average(-scipy.special.xlogy(y, q) - scipy.special.xlogy(1 - y, 1 - q), weights=weight))

    def brier(q):
        return float(np.average((q - y) ** 2, weights=weight))

    values = {}
    for unit, score in (("nats", nats), ("brier", brier)):
        values[f"miscalibration_{unit}"] = score(p) - score(recalibrated)
        values[f"discrimination_{unit}"] = score(base) - score(recalibrated)
        values[f"uncertainty_{unit}"] = score(base)
    return values


@pytest.mark.parametrize("rounded", [False, True])
def test_corp_and_auroc(rounded):
    logit, y = forecasts(slope=0.6, rounded=rounded)
    weight = RANDOM.integers(1, 4, len(y)).astype(float)
    streamed, exact = measure(BinaryCalibration(), binary(logit), y, weight)
    oracle = corp_oracle(logit, y, weight) | {"auroc": roc_auc_score(y, logit, sample_weight=weight)}
    for name, value in oracle.items():
        assert exact[name] == pytest.approx(value, rel=1e-9, abs=1e-13), name
        # Forecasts that come in ties are a bin each; others are pooled with their neighbours.
        tolerance = {"rel": 1e-9, "abs": 1e-13} if rounded else {"abs": 3e-4}
        assert streamed[name] == pytest.approx(value, **tolerance), name
    nll = log_loss(y, scipy.special.expit(logit), sample_weight=weight)
    parts = exact["miscalibration_nats"] - exact["discrimination_nats"] + exact["uncertainty_nats"]
    assert parts == pytest.approx(nll, rel=1e-12)


def test_auroc_of_bins_is_close_and_of_ties_is_half():
    logit, y = forecasts(n=20_000)
    streamed, exact = measure(BinaryCalibration(), binary(logit), y)
    assert exact["auroc"] == pytest.approx(roc_auc_score(y, logit), rel=1e-12)
    assert streamed["auroc"] == pytest.approx(exact["auroc"], abs=2e-5)
    for got in measure(BinaryCalibration(), binary(np.zeros(4)), np.array([0.0, 1, 1, 0])):
        assert got["auroc"] == 0.5


def test_equal_mass_error():
    logit, y = forecasts(n=3000, slope=0.5)
    order = np.argsort(logit)
    p = scipy.special.expit(logit[order]).reshape(15, 200)
    expected = np.abs(p.mean(1) - y[order].reshape(15, 200).mean(1)).mean()
    streamed, exact = measure(BinaryCalibration(), binary(logit), y)
    assert exact["ece_equal_mass"] == pytest.approx(expected, rel=1e-12)
    assert streamed["ece_equal_mass"] == pytest.approx(expected, abs=2e-3)


def test_spiegelhalter():
    logit, y = forecasts(slope=0.8)
    p = scipy.special.expit(logit)
    expected = ((y - p) * (1 - 2 * p)).sum() / math.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    for got in measure(BinaryCalibration(), binary(logit), y):
        assert got["spiegelhalter_z"] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [300, 2000])
def test_binary_tests_hold_their_level_and_have_power(n):
    runs = [measure(BinaryCalibration(), binary(x), y)[0] for x, y in (forecasts(n, seed=s) for s in range(200))]
    # Fixed seeds; a right p-value fails each of these once in ten thousand.
    assert scipy.stats.kstest([run["calibration_p_value"] for run in runs], "uniform").pvalue > 1e-4
    assert scipy.stats.kstest([run["spiegelhalter_z"] for run in runs], "norm").pvalue > 1e-4
    distorted = measure(BinaryCalibration(), binary(2 * forecasts(2000)[0]), forecasts(2000)[1])[0]
    assert distorted["calibration_p_value"] < 1e-10
    assert abs(distorted["spiegelhalter_z"]) > 6


# ------------------------------------------------------------------------------------------------ temperature


def labels(n: int, temperature: float, seed: int = 0, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and labels."""
    random = np.random.default_rng(seed)
    logits = 1.5 * random.normal(size=(n, num_classes))
    y = (logits + random.gumbel(size=logits.shape)).argmax(1)
    return temperature * logits, y


def temperature_oracle(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    def slope(beta):
        p = scipy.special.softmax(beta * logits, axis=1)
        return ((p * logits).sum(1) - logits[np.arange(len(y)), y]).mean()

    beta = scipy.optimize.brentq(slope, 0.05, 20, xtol=1e-15, rtol=1e-14)

    def nll(b):
        return -scipy.special.log_softmax(b * logits, axis=1)[np.arange(len(y)), y].mean()

    return 1 / beta, nll(1.0) - nll(beta)


@pytest.mark.parametrize("said", [0.3, 0.7, 1.0, 1.8, 3.7, 12.0])
def test_temperature(said):
    logits, y = labels(2000, said)
    expected, gap = temperature_oracle(logits, y)
    streamed, exact = measure(Temperature(), Categorical(torch.as_tensor(logits)), y)
    assert exact["temperature"] == pytest.approx(expected, rel=1e-9)
    assert exact["calibration_gap_nats"] == pytest.approx(gap, rel=1e-9, abs=1e-12)
    p_value = scipy.stats.chi2(1).sf(2 * len(y) * gap)
    assert exact["calibration_p_value"] == pytest.approx(p_value, rel=1e-7, abs=1e-300)
    assert streamed["temperature"] == pytest.approx(min(expected, 4.0), rel=5e-4)
    if said < 4:
        assert streamed["calibration_gap_nats"] == pytest.approx(gap, rel=1e-3, abs=1e-5)


def test_temperature_is_bounded_where_the_best_is_not():
    logits = np.eye(3)[[0, 1, 2, 0]]
    for y, bound, near in ((np.array([0, 1, 2, 0]), 0.05, 0.25), (np.array([1, 2, 0, 1]), 20.0, 4.0)):
        streamed, exact = measure(Temperature(), Categorical(torch.as_tensor(logits)), y)
        assert exact["temperature"] == pytest.approx(bound, rel=1e-12)
        assert streamed["temperature"] == near


def test_temperature_test_holds_its_level():
    values = []
    for seed in range(200):
        logits, y = labels(500, 1.0, seed)
        values.append(measure(Temperature(), Categorical(torch.as_tensor(logits)), y)[1]["calibration_p_value"])
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-4


# ------------------------------------------------------------------------------------------- scale, dispersion


@pytest.mark.parametrize("kind", ["normal", "laplace", "student", "gamma"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_scale_gap(kind, factor):
    n, random = 4000, np.random.default_rng(8)
    loc, scale = torch.as_tensor(random.normal(size=n)), torch.as_tensor(np.exp(random.normal(size=n)))
    if kind == "gamma":
        frozen = scipy.stats.gamma(3.0, scale=1 / scale.numpy())
        y = factor * frozen.rvs(random_state=random)
        distribution: Distribution = Gamma(torch.full_like(scale, 3.0), scale)
    else:
        family = {"normal": scipy.stats.norm, "laplace": scipy.stats.laplace, "student": scipy.stats.t(4.0)}[kind]
        y = loc.numpy() + scale.numpy() * family.rvs(size=n, random_state=random) / factor
        made = {
            "normal": lambda: Normal(loc, scale),
            "laplace": lambda: Laplace(loc, scale),
            "student": lambda: StudentT(torch.full_like(loc, 4.0), loc, scale),
        }
        distribution = made[kind]()
        frozen = {"student": lambda: scipy.stats.t(4.0, loc.numpy(), scale.numpy())}.get(kind, lambda: None)()
    got, _ = measure(ScaleGap(), distribution, y)
    u = (y - loc.numpy()) / scale.numpy()

    def saved(logpdf):
        best = scipy.optimize.minimize_scalar(lambda s: -(logpdf(u / math.exp(s)) - s).mean(), tol=1e-12)
        return -logpdf(u).mean() - best.fun, math.exp(best.x)

    if kind in ("normal", "laplace"):
        gap, ratio = saved(getattr(scipy.stats, {"normal": "norm", "laplace": "laplace"}[kind]).logpdf)
    else:
        u = scipy.stats.norm.ppf(frozen.cdf(y))
        gap, ratio = saved(scipy.stats.norm.logpdf)
    assert got["scale_gap_nats"] == pytest.approx(gap, rel=1e-7, abs=1e-9)
    assert got["scale_ratio"] == pytest.approx(ratio, rel=1e-6)
    if factor == 1.0:
        # n times the gap of a true model is half a χ² with 1 df for a Gaussian: beyond 8 once in 16 000.
        assert n * got["scale_gap_nats"] < 8
    else:
        assert got["scale_gap_nats"] > 0.05


def test_normal_scores_far_in_the_tails_are_finite():
    y = np.array([-30.0, 30.0])
    got, _ = measure(ScaleGap(), StudentT(torch.full((2,), 1e6).double(), torch.zeros(2).double(), 1.0), y)
    assert 25 < got["scale_ratio"] < 30.1


@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
def test_dispersion_and_zeros(kind):
    random = np.random.default_rng(2)
    mean = np.exp(random.normal(size=5000))
    if kind == "poisson":
        frozen = scipy.stats.poisson(mean)
        distribution: Distribution = Poisson(torch.as_tensor(mean), validate_args=False)
    else:
        frozen = scipy.stats.nbinom(2.0, 2.0 / (2.0 + mean))
        distribution = NegativeBinomial(2.0, logits=torch.as_tensor(np.log(mean / 2.0)), validate_args=False)
    y, weight = frozen.rvs(random_state=random).astype(float), random.integers(1, 3, 5000).astype(float)
    got, _ = measure(Dispersion(), distribution, y, weight)
    expected = np.average((y - frozen.mean()) ** 2 / frozen.var(), weights=weight)
    assert got["dispersion"] == pytest.approx(expected, rel=1e-10)
    assert got["zeros_observed"] == pytest.approx(np.average(y == 0, weights=weight), rel=1e-12)
    assert got["zeros_expected"] == pytest.approx(np.average(frozen.pmf(0), weights=weight), rel=1e-10)
    assert abs(got["dispersion"] - 1) < 0.25
