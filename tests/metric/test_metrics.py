"""Every metric against independent oracles, and as sums that merge."""

import functools
import itertools
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
import mpmath
import numpy as np
import pytest
import scipy.stats
import scoringrules
import sklearn.metrics
import torch
from omegaconf import OmegaConf
from torch.distributions import Bernoulli, Distribution, Laplace, Normal, Poisson

import mlefw.metric
from mlefw.distribution.censored import Censored
from mlefw.distribution.quantiles import Quantiles
from mlefw.head.categorical import Categorical
from mlefw.head.gaussian import Gaussian, GaussianHead
from mlefw.head.ordinal import Ordered
from mlefw.head.poisson import LogPoisson
from mlefw.head.quantile import AsymmetricLaplace
from mlefw.metric.base import Metric
from mlefw.metric.calibration_error import CalibrationError, ClasswiseError
from mlefw.metric.classification import Classification
from mlefw.metric.coverage import Coverage
from mlefw.metric.crps import Crps, crps
from mlefw.metric.error import PointError
from mlefw.metric.nll import Nll, Perplexity
from mlefw.metric.pit import Pit
from mlefw.metric.scale_floor import ScaleFloorRate
from mlefw.testing.metric import check_metric

CONF = Path(__file__).parents[2] / "conf" / "metric"
N = 400


@dataclass(frozen=True)
class Sample:
    """Predictions, targets drawn from them, and row weights; `make` builds the distribution of chosen rows."""

    make: Callable[..., Distribution]
    params: tuple[np.ndarray, ...]
    y: np.ndarray
    frozen: Any
    """The scipy distribution of all rows, where scipy has one."""

    def distribution(self, index: Any = slice(None)) -> Distribution:
        return self.make(*(torch.as_tensor(p[index]) for p in self.params))

    def target(self, index: Any = slice(None)) -> torch.Tensor:
        return torch.as_tensor(self.y[index])


def draw(kind: str, seed: int = 0, n: int = N, distortion: float = 1.0) -> Sample:
    """Rows whose targets follow the predictions, or predictions whose spread (or logits) is off by a factor."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=n)
    if kind in ("normal", "laplace"):
        loc, scale = 3 + 2 * z, np.exp(0.5 * generator.normal(size=n))
        family = {"normal": scipy.stats.norm, "laplace": scipy.stats.laplace}[kind]
        y = family(loc, scale).rvs(size=n, random_state=generator)
        said = distortion * scale
        make = {"normal": Gaussian, "laplace": Laplace}[kind]
        return Sample(lambda a, b: make(a, b, validate_args=False), (loc, said), y, family(loc, said))
    if kind == "quantile":
        y = 3 + 2 * z + generator.laplace(size=n)
        make = functools.partial(AsymmetricLaplace, level=0.7)
        return Sample(make, (3 + 2 * z, np.full(n, distortion)), y, None)
    if kind == "quantiles":
        y = 3 + 2 * z + generator.laplace(size=n)
        loc = 3 + 2 * z[:, None] + distortion * np.array([-1.6, 0.0, 1.6])
        make = functools.partial(Quantiles, levels=(0.1, 0.5, 0.9))
        return Sample(make, (loc, np.full((n, 3), 0.3)), y, None)
    if kind == "poisson":
        rate = np.exp(1 + z)
        y = generator.poisson(rate).astype(float)
        return Sample(LogPoisson, (np.log(rate * distortion),), y, scipy.stats.poisson(rate * distortion))
    if kind == "bernoulli":
        y = (generator.random(n) < 1 / (1 + np.exp(-2 * z))).astype(float)
        said = 2 * z * distortion
        frozen = scipy.stats.bernoulli(1 / (1 + np.exp(-said)))
        return Sample(lambda e: Bernoulli(logits=e, validate_args=False), (said,), y, frozen)
    logits = 1.5 * generator.normal(size=(n, 4))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (generator.random((n, 1)) > probs.cumsum(1)).sum(1).clip(max=3)
    if kind == "censored":
        loc = 3 + 2 * z
        exact = loc + generator.normal(size=n)
        low, high, none = exact - generator.random(n), exact + generator.random(n), np.full(n, np.nan)
        which = generator.integers(0, 4, n)
        pairs = [np.stack(pair) for pair in ((exact, exact), (low, high), (low, none), (none, high))]
        y = np.select([which == k for k in range(4)], pairs).T
        said = np.full(n, distortion)
        return Sample(lambda a, b: Censored(Gaussian(a, b, validate_args=False)), (loc, said), y, None)
    if kind == "ordered":
        return Sample(lambda e: Ordered(e.log_softmax(-1)), (logits * distortion,), y, None)
    return Sample(Categorical, (logits * distortion,), y, None)


GROUPS = {
    "amounts": ["normal"],
    "binary": ["bernoulli"],
    "categorical": ["categorical"],
    "censored": ["censored"],
    "continuous": ["normal", "laplace"],
    "count": ["poisson"],
    "marginal": ["normal"],
    "ordinal": ["ordered"],
    "quantile": ["quantile"],
    "quantiles": ["quantiles"],
    "several": ["normal"],
    "tokens": ["categorical"],
}
FACTS = {
    "scale_floor": {"floor": 0.7},
    "classwise_error": {"num_classes": 4},
    "quantile_levels": {"levels": [0.1, 0.5, 0.9]},
    "bits_per_byte": {"token_bytes": [1.0, 2.0, 1.0, 3.0]},
}

YAMLS = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted(CONF.glob("*.yaml"))}
CASES = [
    (group, name, kind) for group in YAMLS for name in YAMLS[group] if name != "defaults" for kind in GROUPS[group]
]
each = pytest.mark.parametrize(("group", "name", "kind"), CASES)


def make(group: str, name: str) -> Metric:
    return hydra.utils.instantiate(YAMLS[group][name] | FACTS.get(name, {}))


def ones(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=torch.float64)


def figures(metric: Metric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def measure(metric: Metric, sample: Sample, weight: np.ndarray | None = None) -> dict[str, float]:
    n = len(sample.y)
    metric.update(sample.distribution(), sample.target(), ones(n) if weight is None else torch.as_tensor(weight))
    return figures(metric)


def test_every_group_has_an_example():
    assert set(GROUPS) == set(YAMLS)


def test_every_module_is_in_a_group():
    modules = {f"mlefw.metric.{info.name}" for info in pkgutil.iter_modules(mlefw.metric.__path__)}
    targets = {node["_target_"].rpartition(".")[0] for group in YAMLS.values() for node in group.values()}
    assert modules - {"mlefw.metric.base", "mlefw.metric.adapter", "mlefw.metric.accumulator"} == targets


def test_every_group_names_each_figure_once():
    for group, kinds in GROUPS.items():
        names = [name for member in YAMLS[group] for name in measure(make(group, member), draw(kinds[0]))]
        assert len(names) == len(set(names))
        assert "nll_nats" in names


# ---------------------------------------------------------------------------------------------- sums over rows


@each
def test_the_public_checks(group, name, kind):
    sample = draw(kind)
    weight = torch.as_tensor(np.random.default_rng(9).integers(0, 4, size=N)).double()
    # An index of one row as an array of numpy keeps the axis.
    check_metric(make(group, name), lambda index: sample.distribution(index.numpy()), sample.target(), weight)


@each
def test_states_of_two_devices_add_up(group, name, kind):
    sample = draw(kind)
    first, second, merged = (make(group, name) for _ in range(3))
    for metric, index in ((first, slice(0, 150)), (second, slice(150, None))):
        metric.update(sample.distribution(index), sample.target(index), ones(len(sample.y[index])))
    assert {reduction.__name__ for reduction in merged._reductions.values()} == {"dim_zero_sum"}
    for state in merged._defaults:
        setattr(merged, state, getattr(first, state) + getattr(second, state))
    merged._update_count = 2
    expected = measure(make(group, name), sample)
    assert figures(merged) == pytest.approx(expected, rel=1e-12, abs=1e-14)
    first.merge_state(second)
    assert figures(first) == pytest.approx(expected, rel=1e-12, abs=1e-14)


# ------------------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("kind", ["normal", "laplace", "poisson", "bernoulli", "categorical"])
def test_nll(kind):
    sample = draw(kind)
    if kind == "categorical":
        probs = softmax(sample.params[0])
        rows = -np.log(probs[np.arange(N), sample.y])
        assert rows.mean() == pytest.approx(sklearn.metrics.log_loss(sample.y, probs), rel=1e-12)
    else:
        log = sample.frozen.logpmf if kind in ("poisson", "bernoulli") else sample.frozen.logpdf
        rows = -log(sample.y)
    got = measure(Nll(), sample)
    assert got["nll_nats"] == pytest.approx(rows.mean(), rel=1e-12)
    assert got["nll_bits"] == pytest.approx(rows.mean() / math.log(2), rel=1e-12)
    assert got["nll_se"] == pytest.approx(scipy.stats.sem(rows), rel=1e-10)
    assert measure(Perplexity(), sample) == {"perplexity": pytest.approx(np.exp(rows.mean()), rel=1e-12)}


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_nll_of_sure_labels_keeps_its_relative_precision():
    logits = np.array([[40.0, 0.0, 1.0], [3.0, 2.0, -800.0], [0.0, 0.0, 0.0], [-5.0, 30.0, 2.0]])
    for y in itertools.product(range(3), repeat=2):
        label = np.array([*y, *y])
        for row in range(4):
            a = logits[row] - logits[row, label[row]]
            with mpmath.workdps(50):
                expected = float(mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in a)))
            got = measure(Nll(), Sample(Categorical, (logits[[row]],), label[[row]], None))["nll_nats"]
            assert got == pytest.approx(expected, rel=1e-13)


def test_nll_weights_rows_and_not_batches():
    # 105 rows in batches of 50: the mean of batch means would weigh the last five tenfold.
    sample = draw("normal", n=105)
    metric = Nll()
    for start in (0, 50, 100):
        index = slice(start, min(start + 50, 105))
        metric.update(sample.distribution(index), sample.target(index), ones(len(sample.y[index])))
    assert figures(metric)["nll_nats"] == pytest.approx(-sample.frozen.logpdf(sample.y).mean(), rel=1e-12)


def test_one_observation_has_no_standard_error():
    assert set(measure(Nll(), draw("normal", n=1))) == {"nll_nats", "nll_bits"}
    assert set(measure(Nll(), draw("normal", n=2))) == {"nll_nats", "nll_bits", "nll_se"}


# ------------------------------------------------------------------------------------------------------- CRPS


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [
        ("normal", lambda s: scoringrules.crps_normal(s.y, *s.params)),
        ("laplace", lambda s: scoringrules.crps_laplace(s.y, *s.params)),
        ("poisson", lambda s: scoringrules.crps_poisson(s.y, np.exp(s.params[0]))),
        ("bernoulli", lambda s: scoringrules.brier_score(s.y, 1 / (1 + np.exp(-s.params[0])))),
    ],
)
def test_crps(kind, oracle):
    sample = draw(kind)
    np.testing.assert_allclose(crps(sample.distribution(), sample.target()), oracle(sample), rtol=1e-9, atol=1e-9)
    assert measure(Crps(), sample)["crps"] == pytest.approx(np.mean(oracle(sample)), rel=1e-10)


@pytest.mark.parametrize("rate", [1e-6, 0.5, 30.0, 1e4])
def test_crps_of_a_poisson_by_its_definition(rate):
    # Σ over the integers of (F(k) − 1{y <= k})², the step functions being constant in between.
    k = np.arange(0, int(3 * rate + 60 * math.sqrt(rate) + 100))
    for y in (0, 1, int(rate), int(2 * rate) + 3):
        expected = ((scipy.stats.poisson(rate).cdf(k) - (y <= k)) ** 2).sum()
        got = crps(Poisson(torch.tensor([rate], dtype=torch.float64)), torch.tensor([y], dtype=torch.float64))
        assert got.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_crps_by_its_definition(kind):
    sample = draw(kind, n=3)
    grid, weight = np.polynomial.legendre.leggauss(200)
    for row in range(3):
        loc, scale = (p[row] for p in sample.params)
        family = {"normal": scipy.stats.norm, "laplace": scipy.stats.laplace}[kind](loc, scale)
        total = 0.0
        ends = sorted([loc - 40 * scale, loc, sample.y[row], loc + 40 * scale])
        for low, high in itertools.pairwise(ends):
            v = (low + high) / 2 + (high - low) / 2 * grid
            total += (high - low) / 2 * (weight * (family.cdf(v) - (v >= sample.y[row])) ** 2).sum()
        assert crps(sample.distribution(), sample.target())[row].item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("kind", ["normal", "laplace", "poisson"])
def test_the_truth_has_the_least_crps_and_nll(kind):
    true, wide, narrow = (draw(kind, n=20_000, distortion=d) for d in (1.0, 1.5, 0.67))
    for metric, figure in ((Crps, "crps"), (Nll, "nll_nats")):
        values = [measure(metric(), sample)[figure] for sample in (true, wide, narrow)]
        assert values[0] < min(values[1:])


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", ["normal", "laplace", "poisson"])
def test_errors_of_the_mean(kind):
    sample, weight = draw(kind), np.random.default_rng(1).random(N)
    mean = sample.frozen.mean()
    got = measure(PointError(), sample, weight)
    rmse = sklearn.metrics.root_mean_squared_error(sample.y, mean, sample_weight=weight)
    mae = sklearn.metrics.mean_absolute_error(sample.y, mean, sample_weight=weight)
    assert got == {"rmse": pytest.approx(rmse, rel=1e-12), "mae": pytest.approx(mae, rel=1e-12)}


# --------------------------------------------------------------------------------------------- classification


def test_classification_of_a_binary_target():
    sample, weight = draw("bernoulli"), np.random.default_rng(1).random(N)
    p = sample.frozen.mean()
    got = measure(Classification(), sample, weight)
    assert got["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(sample.y, p, sample_weight=weight), rel=1e-12)
    accuracy = sklearn.metrics.accuracy_score(sample.y, p >= 0.5, sample_weight=weight)
    assert got["accuracy"] == pytest.approx(accuracy, rel=1e-12)


def test_classification_of_labels():
    sample = draw("categorical")
    probs = softmax(sample.params[0])
    got = measure(Classification(), sample)
    brier = np.mean(((probs - np.eye(4)[sample.y]) ** 2).sum(1))
    assert got["brier"] == pytest.approx(brier, rel=1e-12)
    assert got["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(sample.y, probs.argmax(1)), rel=1e-12)


# ------------------------------------------------------------------------------------------------ calibration


def binned(p: np.ndarray, hit: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """ECE, its null and the debiased square from numpy's histograms, whose last bin is closed."""
    edges = np.arange(16) / 15

    def total(values):
        return np.histogram(p, edges, weights=weight * values)[0]

    n = total(np.ones_like(p))
    full = n > 0
    mean = total(hit)[full] / n[full]
    gap = np.abs(total(p)[full] / n[full] - mean)
    noise = np.divide(mean * (1 - mean), n[full] - 1, out=np.zeros_like(mean), where=n[full] > 1)
    variance = total(p * (1 - p))[full] / n[full]
    share = n[full] / n.sum()
    null = np.sqrt(2 * variance / (np.pi * n[full]))
    return float(share @ gap), float(share @ null), float(share @ (gap**2 - noise))


def test_calibration_error_of_a_binary_target():
    sample, weight = draw("bernoulli"), np.random.default_rng(1).integers(1, 4, size=N).astype(float)
    ece, null, debiased = binned(sample.frozen.mean(), sample.y, weight)
    got = measure(CalibrationError(), sample, weight)
    assert got == pytest.approx({"ece_15": ece, "ece_null": null, "ece_debiased": debiased}, rel=1e-11)


def test_calibration_error_of_labels():
    sample = draw("categorical")
    probs = softmax(sample.params[0])
    ece, null, debiased = binned(probs.max(1), (probs.argmax(1) == sample.y).astype(float), np.ones(N))
    got = measure(CalibrationError(), sample)
    assert got == pytest.approx({"ece_15": ece, "ece_null": null, "ece_debiased": debiased}, rel=1e-11)


def test_calibration_error_of_each_class():
    sample, weight = draw("categorical"), np.random.default_rng(1).integers(1, 4, size=N).astype(float)
    probs = softmax(sample.params[0])
    each = [binned(probs[:, k], (sample.y == k).astype(float), weight) for k in range(4)]
    got = measure(ClasswiseError(4), sample, weight)
    assert got["ece_classwise_15"] == pytest.approx(np.mean([ece for ece, _, _ in each]), rel=1e-11)
    assert got["ece_classwise_null"] == pytest.approx(np.mean([null for _, null, _ in each]), rel=1e-11)


def bernoulli_of(*probs: float) -> Bernoulli:
    return Bernoulli(torch.tensor(probs, dtype=torch.float64))


def test_certainty_is_in_the_last_bin():
    # One bin: |(0.95 + 1) − 1| / 2; a bin of its own for p = 1 would give (0.95 + 0) / 2 or (0.05 + 1) / 2.
    metric = CalibrationError()
    metric.update(bernoulli_of(0.95, 1.0), torch.tensor([0.0, 1.0]), ones(2))
    assert metric.counts.tolist() == [0.0] * 14 + [2.0]
    assert figures(metric)["ece_15"] == pytest.approx(0.475, rel=1e-6)


def test_bins_are_closed_below():
    metric = CalibrationError()
    metric.update(bernoulli_of(0.0, 0.2, 0.19999, 0.6), torch.zeros(4), ones(4))
    assert metric.counts.tolist() == [1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_a_density_has_no_class_probabilities():
    with pytest.raises(TypeError, match="no class probabilities in Normal"):
        CalibrationError().update(Normal(0.0, 1.0), torch.zeros(1), ones(1))


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_the_null_is_what_a_calibrated_model_shows_on_average(kind):
    runs = [measure(CalibrationError(), draw(kind, seed=seed, n=3000)) for seed in range(100)]
    error, null = (np.array([run[key] for run in runs]) for key in ("ece_15", "ece_null"))
    # The half-normal mean of each bin is exact for a Gaussian; bins of few rows leave it a few hundredths off.
    assert np.mean(error) == pytest.approx(np.mean(null), rel=0.05)
    distorted = measure(CalibrationError(), draw(kind, n=3000, distortion=2.0))
    assert distorted["ece_15"] > 3 * distorted["ece_null"]


# ------------------------------------------------------------------------------------------------- PIT, coverage


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_pit_of_a_density(kind):
    sample = draw(kind)
    counts = np.histogram(sample.frozen.cdf(sample.y), 20, (0, 1))[0]
    got = measure(Pit(), sample)
    assert got["pit_p_value"] == pytest.approx(scipy.stats.chisquare(counts).pvalue, rel=1e-10)
    assert got["pit_rmse"] == pytest.approx(np.sqrt(np.mean((counts / N - 0.05) ** 2)), rel=1e-12)


def test_pit_of_counts_spreads_each_row_over_its_mass():
    sample = draw("poisson")
    lower, upper = sample.frozen.cdf(sample.y - 1), sample.frozen.cdf(sample.y)
    edges = np.linspace(0, 1, 21)[:, None]
    shares = np.diff(np.clip((edges - lower) / (upper - lower), 0, 1), axis=0).mean(1)
    got = measure(Pit(), sample)
    assert got == {"pit_rmse": pytest.approx(np.sqrt(np.mean((shares - 0.05) ** 2)), rel=1e-6)}


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_a_calibrated_density_passes_and_a_distorted_one_fails(kind):
    # Fixed seeds; a right p-value falls below 1e-4 once in ten thousand.
    values = [measure(Pit(), draw(kind, seed=seed, n=2000))["pit_p_value"] for seed in range(50)]
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-4
    assert measure(Pit(), draw(kind, n=2000, distortion=1.3))["pit_p_value"] < 1e-6
    assert measure(Pit(), draw(kind, n=2000, distortion=0.75))["pit_p_value"] < 1e-6


def test_pit_of_counts_is_flat_under_the_true_model():
    # Exact: every count weighted by its probability.
    for rate in (0.3, 4.0, 150.0):
        y = np.arange(1000.0)
        mass = scipy.stats.poisson(rate).pmf(y)
        metric = Pit()
        metric.update(
            Poisson(torch.full((1000,), rate, dtype=torch.float64)), torch.as_tensor(y), torch.as_tensor(mass)
        )
        assert figures(metric)["pit_rmse"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("rate", "y", "place"), [(1.0, 40.0, 19), (1e6, 0.0, 0)])
def test_a_count_whose_own_mass_underflows_is_in_the_outermost_bin(rate, y, place):
    metric = Pit()
    metric.update(Poisson(torch.tensor([rate], dtype=torch.float64)), torch.tensor([y], dtype=torch.float64), ones(1))
    assert metric.counts.tolist() == [float(k == place) for k in range(20)]


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_coverage_of_a_density(kind):
    sample, weight = draw(kind), np.random.default_rng(1).random(N)
    got = measure(Coverage(), sample, weight)
    for level in (50, 80, 90, 95):
        low, high = sample.frozen.interval(level / 100)
        inside = (sample.y >= low) & (sample.y <= high)
        assert got[f"coverage_{level}"] == pytest.approx(np.average(inside, weights=weight), rel=1e-12)
    low, high = sample.frozen.interval(0.9)
    assert got["width_90"] == pytest.approx(np.average(high - low, weights=weight), rel=1e-10)
    assert got["sharpness"] == pytest.approx(np.sqrt(np.average(sample.frozen.var(), weights=weight)), rel=1e-12)
    n, inside = weight.sum(), got["coverage_90"]
    assert got["coverage_90_z"] == pytest.approx((inside - 0.9) / math.sqrt(0.9 * 0.1 / n), rel=1e-9)
    score = scoringrules.interval_score(sample.y, low, high, alpha=0.1)
    assert got["interval_score_90"] == pytest.approx(np.average(score, weights=weight), rel=1e-10)
    assert len(got) == 11


@pytest.mark.parametrize("rate", [0.05, 0.7, 4.0, 150.0])
def test_coverage_of_counts_is_nominal_under_the_true_model(rate):
    # Exact: every count weighted by its probability.
    y = np.arange(1000.0)
    mass = scipy.stats.poisson(rate).pmf(y)
    metric = Coverage()
    metric.update(Poisson(torch.full((1000,), rate, dtype=torch.float64)), torch.as_tensor(y), torch.as_tensor(mass))
    got = figures(metric)
    for level in (50, 80, 90, 95):
        assert got[f"coverage_{level}"] == pytest.approx(level / 100, abs=2e-9)
    assert got["width_90"] == pytest.approx(np.diff(scipy.stats.poisson(rate).interval(0.9))[0], rel=1e-9)
    assert got["sharpness"] == pytest.approx(math.sqrt(rate), rel=1e-12)


def test_coverage_of_a_count_far_outside_is_zero():
    metric = Coverage()
    metric.update(Poisson(torch.tensor([1.0, 1e6]).double()), torch.tensor([60.0, 0.0]).double(), ones(2))
    assert [figures(metric)[f"coverage_{level}"] for level in (50, 80, 90, 95)] == [0.0] * 4


@pytest.mark.parametrize("kind", ["normal", "laplace", "poisson"])
def test_coverage_is_nominal_for_a_calibrated_model_and_off_for_a_distorted_one(kind):
    n = 4000
    got = measure(Coverage(), draw(kind, n=n))
    for level in (50, 80, 90, 95):
        # Five standard errors: a right model fails here with probability 6e-7.
        assert abs(got[f"coverage_{level}"] - level / 100) < 5 * math.sqrt(level / 100 * (1 - level / 100) / n)
    distorted = measure(Coverage(), draw(kind, n=n, distortion=0.6))
    assert distorted["coverage_80"] < 0.8 - 5 * math.sqrt(0.16 / n)


# ------------------------------------------------------------------------------------------------ scale floor


def test_scale_floor_rate():
    metric = ScaleFloorRate(0.5)
    scale = torch.tensor([0.5, 0.5 * (1 + 1e-13), 0.6, 2.0], dtype=torch.float64)
    metric.update(Normal(torch.zeros(4), scale), torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    assert figures(metric) == {"scale_floor_rate": pytest.approx(0.3, rel=1e-12)}


def test_a_distribution_without_a_scale_has_no_floor():
    assert measure(ScaleFloorRate(0.5), draw("poisson")) == {}


def test_a_scale_on_the_floor_of_its_head_is_counted():
    head = GaussianHead("predicted").double()
    head.set_units(0.0, 50.0)
    eta = torch.tensor([[0.0, -30.0], [0.0, 0.0]], dtype=torch.float64)
    metric = ScaleFloorRate(float(head.floor))
    metric.update(head(eta), torch.zeros(2), ones(2))
    assert figures(metric) == {"scale_floor_rate": 0.5}


def test_a_fixed_scale_is_never_on_the_floor():
    head = GaussianHead(1.0).double()
    head.set_units(0.0, 5000.0)
    metric = ScaleFloorRate(float(head.floor))
    metric.update(head(torch.zeros(2, 1)), torch.zeros(2), ones(2))
    assert figures(metric) == {"scale_floor_rate": 0.0}
