"""Gross miscalibration is named, with a head that fits; a model that is true raises no alarm."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import summary_of
from pyarrow import csv
from scipy import stats
from torch.distributions import Poisson

from mlefw.baseline.predictor import as_objective
from mlefw.cli import run
from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.frame import as_arrow, offered
from mlefw.head.negative_binomial import NegativeBinomial
from mlefw.head.poisson import LogPoisson
from mlefw.head.zero_inflated import ZeroInflated
from mlefw.metric.base import bare
from mlefw.metric.dispersion import Dispersion, kurtosis
from mlefw.metric.shape import Shape
from mlefw.objective.objective import evaluate
from mlefw.report.misfit import CHANCE, NATS, departures, divergence
from mlefw.report.remedy import Chosen, remedies
from mlefw.run import build, judgement
from mlefw.run.prepare import estimate, prepare
from mlefw.score.figures import figures_on

pytestmark = pytest.mark.filterwarnings("ignore")

Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _beta(mean: np.ndarray, precision: float, r: np.random.Generator) -> np.ndarray:
    return np.clip(r.beta(mean * precision, (1 - mean) * precision), 1e-9, 1 - 1e-9)


TRUTH: Mapping[str, Draw] = {
    "gaussian": lambda e, r: e + r.normal(size=len(e)),
    "laplace": lambda e, r: e + r.laplace(size=len(e)),
    "student_t": lambda e, r: e + r.standard_t(3, len(e)),
    "heteroscedastic": lambda e, r: e + np.exp(0.8 * e) * r.normal(size=len(e)),
    "gamma": lambda e, r: r.gamma(2, np.exp(e) / 2),
    "lognormal": lambda e, r: np.exp(e + 0.8 * r.normal(size=len(e))),
    "weibull": lambda e, r: np.exp(e) * r.weibull(1.5, len(e)),
    "exponential": lambda e, r: r.exponential(np.exp(e)),
    "beta": lambda e, r: _beta(1 / (1 + np.exp(-2 * e)), 5, r),
    "poisson": lambda e, r: r.poisson(np.exp(e + 1)),
    "negative_binomial": lambda e, r: r.poisson(np.exp(e + 1) * r.gamma(1, 1, len(e))),
    "zero_inflated_poisson": lambda e, r: r.poisson(np.exp(e + 1.5)) * (r.random(len(e)) > 0.3),
    "zero_inflated_negative_binomial": lambda e, r: (
        r.poisson(np.exp(e + 3) * r.gamma(5, 0.2, len(e))) * (r.random(len(e)) > 0.3)
    ),
    "bernoulli": lambda e, r: (r.random(len(e)) < 1 / (1 + np.exp(-2 * e))).astype(int),
    "categorical": lambda e, r: (np.stack([0 * e, e, -e], 1) + r.gumbel(size=(len(e), 3))).argmax(1),
    "ordinal": lambda e, r: np.digitize(e + r.logistic(size=len(e)), [-1, 1]),
}


def columns(draw: Draw, num_rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, 2))
    return {"a": x[:, 0], "b": x[:, 1], "y": draw(x @ [0.5, -0.3], random)}


def exact(table: dict[str, np.ndarray], *settings: str) -> tuple[dict[str, Any] | None, dict[str, dict[str, float]]]:
    """What is said of the exact linear estimate, and its figures by split."""
    split = ("data.validation_fraction=0", "data.test_fraction=0.3")
    with offered(rows=as_arrow(pa.table(table)), validation=None, test=None):
        config = read_settings("train", ["data=frame", "data.target=y", *split, *settings], [], ())
        config = settings_of({**config, "run_dir": "unused"})
        prepared = prepare(config, None)
        solution = estimate(config, prepared).mle
    assert solution is not None
    objective, splits = as_objective(solution, prepared.estimand.objective), prepared.data.splits
    metrics = build.build_metrics(config, objective.head)
    figures = {name: figures_on(objective, evaluate(objective, rows), rows, metrics) for name, rows in splits.items()}
    return judgement.judge(config, objective, splits, figures), figures


@pytest.mark.parametrize("head", TRUTH)
def test_a_head_on_its_own_data_raises_no_alarm(head: str) -> None:
    slow = ("student_t", "beta", "negative_binomial", "zero_inflated_negative_binomial")
    seeds = 2 if head in slow else 4
    told = [exact(columns(TRUTH[head], 300, seed), f"head={head}")[0] for seed in range(seeds)]
    assert [one["sentence"] for one in told if one is not None] == []


_ZINB = "zero_inflated_negative_binomial"


def _outliers(e: np.ndarray, r: np.random.Generator) -> np.ndarray:
    return e + r.normal(size=len(e)) * r.choice([1, 25], len(e), p=[0.97, 0.03])


GROSS: list[tuple[str, str, Draw, str]] = [
    ("heavy tails", "gaussian", TRUTH["student_t"], "student_t"),
    ("Laplace noise", "gaussian", TRUTH["laplace"], "student_t"),
    ("outliers", "gaussian", _outliers, "student_t"),
    ("a spread that grows", "gaussian", TRUTH["heteroscedastic"], "heteroscedastic"),
    ("a given sigma", "gaussian_fixed", lambda e, r: e + 3 * r.normal(size=len(e)), "gaussian"),
    ("two modes", "gaussian", lambda e, r: e + r.choice([-3, 3], len(e)) + r.normal(size=len(e)), "mixture"),
    ("skewed, positive", "gaussian", TRUTH["lognormal"], "lognormal"),
    ("skewed, positive", "gaussian", TRUTH["gamma"], "gamma"),
    ("shares", "gaussian", TRUTH["beta"], "beta"),
    ("a hazard that rises", "exponential", lambda e, r: np.exp(e) * r.weibull(3, len(e)), "weibull"),
    ("overdispersed counts", "poisson", TRUTH["negative_binomial"], "negative_binomial"),
    ("zero-inflated counts", "poisson", TRUTH["zero_inflated_poisson"], "zero_inflated_poisson"),
    ("zero-inflated counts", "negative_binomial", TRUTH[_ZINB], _ZINB),
    ("overdispersed counts", "zero_inflated_poisson", TRUTH["negative_binomial"], "negative_binomial"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head", "draw", "wanted"), GROSS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_gross_misfit_is_told_with_a_head_that_fits(name: str, head: str, draw: Draw, wanted: str) -> None:
    table = columns(draw, 1000, 11)
    told, before = exact(table, f"head={head}")
    assert told is not None, (name, before["test"])
    assert f"head={wanted}" in told["try"], told
    assert f"head={wanted}" in told["sentence"]
    _, after = exact(table, f"head={wanted}")
    assert after["test"]["nll_nats"] < before["test"]["nll_nats"] - NATS


@pytest.mark.parametrize(
    ("head", "draw", "setting"),
    [
        ("laplace", TRUTH["heteroscedastic"], "head.scale=predicted"),
        ("student_t", TRUTH["heteroscedastic"], "head.scale=predicted"),
    ],
)
def test_a_parameter_to_predict_is_proposed(head: str, draw: Draw, setting: str) -> None:
    table = columns(draw, 1000, 11)
    told, before = exact(table, f"head={head}")
    assert told is not None
    assert setting in told["try"]
    _, after = exact(table, f"head={head}", setting)
    assert after["test"]["nll_nats"] < before["test"]["nll_nats"] - NATS


def test_nothing_is_proposed_that_is_set_already() -> None:
    signs = {"residual_kurtosis": 1, "spread_trend": 1, "classes": 0}
    del signs["classes"]
    known = remedies(Chosen("student_t", {"scale": "predicted", "df": "shared"}), signs, is_overfit=False)
    assert not any(item in ("head=student_t", "head.scale=predicted") for item in known)
    assert remedies(Chosen("categorical", has_prior=True, is_large=True), {"classes": 1}, is_overfit=True) == []


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process, in a directory of its own; what it prints, in one line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        assert run([*arguments]) == 0
        return " ".join(capfd.readouterr().out.split())

    return call


def test_an_overfitted_classifier_is_told_to_be_recalibrated(program: Callable[..., str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(900, 8))
    label = (random.random(900) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)
    csv.write_csv(pa.table({**{f"x{j}": x[:, j] for j in range(8)}, "y": label}), tmp_path / "d.csv")
    plain = ("data=csv", "data.path=d.csv", "data.target=y", "head=bernoulli", "early_stopping.patience=null")
    plain += ("optimizer.lr=0.02", "scheduler=none", "trainer.max_epochs=60", "trainer.num_sanity_val_steps=0")
    # The last state, not the best one: without validation rows that choose it there are none to recalibrate by, either.
    out = program("train", *plain, "data.validation_fraction=0", "run_dir=a", "report=false", "plots=false")
    told = summary_of(tmp_path / "a")["misfit"]
    assert "overconfident" in told["sentence"]
    assert told["sentence"] in out
    assert told["sentence"] in summary_of(tmp_path / "a")["warnings"]
    assert told["try"] == ["prior=l2"]


def test_the_same_sentence_stands_in_terminal_report_summary_and_evaluation(
    program: Callable[..., str], tmp_path: Path
) -> None:
    table = columns(TRUTH["negative_binomial"], 600, 3)
    csv.write_csv(pa.table(table), tmp_path / "d.csv")
    data = ("data=csv", "data.path=d.csv", "data.target=y", "head=poisson")
    out = program("train", *data, "model=linear", "trainer.max_epochs=30", "run_dir=r")
    summary = summary_of(tmp_path / "r")
    sentence = summary["misfit"]["sentence"]
    assert "head=negative_binomial" in sentence
    assert f"counts vary {summary['metrics']['test']['dispersion']:.2g} times" in sentence
    assert sentence in summary["warnings"]
    assert out.count(sentence) == 1
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8").count(sentence) == 1
    assert program("evaluate", "run=r").count(sentence.split(" Try ")[0]) == 1
    assert "not calibrated on new rows: counts vary" in program("evaluate", "run=r", "data.path=d.csv")
    program("compare", "runs=r", "report=c.html")
    assert sentence in (tmp_path / "c.html").read_text(encoding="utf-8")
    exactly = program("baseline", *data)
    assert "head=negative_binomial" in exactly
    assert f"counts vary {float(exactly.split('Pearson chi2 / residual df')[1].split()[0]):.2g} times" in exactly


@pytest.mark.parametrize("num_rows", [1, 5, 50, 500])
def test_every_figure_has_its_threshold(num_rows: int) -> None:
    """One figure off at a time: told where both amount and chance are beyond their bounds, for any number of rows."""
    for share in np.linspace(0.01, 0.99, 50):
        z = (share - 0.9) / np.sqrt(0.9 * 0.1 / num_rows)
        told = departures({"coverage_90": share, "pit_rmse": 0.0}, num_rows)
        cost = stats.entropy([share, 1 - share], [0.9, 0.1])
        assert bool(told) == (cost >= NATS and 2 * stats.norm.sf(abs(z)) < CHANCE)
    assert divergence(0.3, 0.1) == pytest.approx(stats.entropy([0.3, 0.7], [0.1, 0.9]), rel=1e-12)


@pytest.mark.parametrize("mean", [0.05, 1.0, 30.0])
def test_kurtosis_of_counts(mean: float) -> None:
    location, dispersion = torch.tensor([mean]).double().log(), torch.tensor([0.4]).double().log()
    logits = torch.tensor([-0.5]).double()
    counts = {"poisson": LogPoisson(location), "negative_binomial": NegativeBinomial(location, dispersion)}
    y = np.arange(4000)
    mass = {"poisson": stats.poisson(mean).pmf(y), "negative_binomial": stats.nbinom(2.5, 2.5 / (2.5 + mean)).pmf(y)}
    share = 1 / (1 + np.exp(-0.5))
    for name, distribution in counts.items():
        inflated = mass[name] * share + (1 - share) * (y == 0)
        for known, pmf in ((distribution, mass[name]), (ZeroInflated(distribution, logits), inflated)):
            center = pmf @ y
            expected = pmf @ (y - center) ** 4 / (pmf @ (y - center) ** 2) ** 2
            assert float(kurtosis(known)) == pytest.approx(expected, rel=1e-6)
    metric = Dispersion()
    random = np.random.default_rng(0).poisson(mean, 5000)
    bare(metric.update)(Poisson(torch.full((5000,), mean).double()), torch.as_tensor(random).double(), torch.ones(5000))
    figures = bare(metric.compute)()
    assert abs(float(figures["dispersion_z"])) < 4
    assert abs(float(figures["zeros_z"])) < 4


def test_shape_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    loc, y, weight = random.normal(size=300), 2 + random.normal(size=300), random.integers(1, 4, 300)
    metric = Shape()
    distribution = torch.distributions.Normal(torch.as_tensor(loc), torch.full((300,), 1.5).double())
    columns = (torch.as_tensor(y), torch.as_tensor(weight).double())
    bare(metric.update)(distribution, *columns)
    u = np.repeat(np.clip((y - loc) / 1.5, -4, 4), weight)
    figures = {name: float(value) for name, value in bare(metric.compute)().items()}
    assert figures == {
        "residual_mean": pytest.approx(u.mean(), rel=1e-9),
        "residual_skewness": pytest.approx(stats.skew(u), rel=1e-9),
        "residual_kurtosis": pytest.approx(stats.kurtosis(u), rel=1e-9),
        "spread_trend": pytest.approx(stats.pearsonr(np.abs(u), np.repeat(loc, weight)).statistic, rel=1e-9),
    }
    known = {name: float(value) for name, value in metric.exact(distribution, *columns).items()}
    size, mean = np.repeat(np.abs((y - loc) / 1.5), weight), np.repeat(loc, weight)
    assert known["spread_trend"] == pytest.approx(stats.spearmanr(size, mean).statistic, rel=1e-9)
    positive = metric.exact(distribution, columns[0].abs() + 0.1, columns[1])
    assert float(positive["mass_below_zero"]) == pytest.approx(np.average(stats.norm.cdf(-loc / 1.5), weights=weight))
