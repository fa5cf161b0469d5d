"""Every recalibration against an independent minimiser, and through a run, its checkpoint and what reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.isotonic
import statsmodels.api as sm
import torch
from conftest import summary_of
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pyarrow import csv
from torch.distributions import Distribution, Laplace, Poisson

from mlefw.calibrate.base import CalibratedHead, Calibration
from mlefw.calibrate.cox import Cox
from mlefw.calibrate.isotonic import Isotonic
from mlefw.calibrate.scale import Scale
from mlefw.calibrate.temperature import Temperature
from mlefw.cli import run
from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.head.bernoulli import LogitBernoulli
from mlefw.head.categorical import Categorical
from mlefw.head.gaussian import Gaussian, GaussianHead
from mlefw.head.student_t import StudentT
from mlefw.run import archive, exhibit

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

CONF = Path(__file__).parents[2] / "conf" / "calibrate"
MEMBERS = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem != "none")
N = 1500
RANDOM = np.random.default_rng(3)
WEIGHT = torch.tensor(RANDOM.integers(0, 4, N), dtype=torch.float64)
SCORES = RANDOM.normal(size=N)
HITS = (RANDOM.random(N) < 1 / (1 + np.exp(-(0.5 + SCORES)))).astype(float)
LOCATION, SPREAD = RANDOM.normal(size=N), np.exp(RANDOM.normal(size=N))


def build(name: str) -> Calibration:
    made: Calibration = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    return made


def binary(logit: np.ndarray = 3 * SCORES) -> LogitBernoulli:
    return LogitBernoulli(logits=torch.tensor(logit), validate_args=False)


def classes() -> tuple[Categorical, torch.Tensor]:
    logits = RANDOM.normal(size=(N, 4))
    label = (logits + RANDOM.gumbel(size=(N, 4))).argmax(1)
    return Categorical(torch.tensor(2.5 * logits)), torch.tensor(label)


DF = np.linspace(2.5, 9, N)
FAMILIES: dict[type, Any] = {
    Gaussian: scipy.stats.norm,
    Laplace: scipy.stats.laplace,
    StudentT: lambda loc, scale: scipy.stats.t(DF, loc, scale),
}


def density(kind: type) -> tuple[Distribution, torch.Tensor]:
    y = FAMILIES[kind](LOCATION, SPREAD).rvs(random_state=RANDOM)
    df = (torch.tensor(DF),) if kind is StudentT else ()
    said = kind(*df, torch.tensor(LOCATION), torch.tensor(0.4 * SPREAD), validate_args=False)
    return said, torch.tensor(y)


def mean_nll(distribution: Distribution, y: torch.Tensor) -> float:
    return float(-(WEIGHT * distribution.log_prob(y)).sum() / WEIGHT.sum())


def example(name: str) -> tuple[Distribution, torch.Tensor]:
    if name in ("scale", "conformal"):
        return density(Gaussian)
    return binary(), torch.tensor(HITS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_new_recalibration_changes_nothing_but_isotonic_ranks(name: str) -> None:
    if name == "isotonic":
        pytest.skip("a step function cannot be the identity")
    distribution, y = example(name)
    assert torch.equal(build(name)(distribution).log_prob(y), distribution.log_prob(y))


@pytest.mark.parametrize("name", MEMBERS)
def test_the_fitted_map_is_kept_by_its_tensors(name: str) -> None:
    distribution, y = example(name)
    fitted, fresh = build(name), build(name)
    fitted.fit(distribution, y, WEIGHT)
    before, after = mean_nll(distribution, y), mean_nll(fitted(distribution), y)
    assert after < before if fitted.changes_density else after == before
    fresh.restore(fitted.state_dict())
    assert torch.equal(fresh(distribution).log_prob(y), fitted(distribution).log_prob(y))
    assert fresh.figures() == fitted.figures()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_weight_is_a_frequency(name: str) -> None:
    distribution, y = example(name)
    often = torch.repeat_interleave(torch.arange(N), WEIGHT.long())
    weighted, repeated = build(name), build(name)
    weighted.fit(distribution, y, WEIGHT)
    params = {"loc", "scale"} if name in ("scale", "conformal") else {"logits"}
    many = type(distribution)(**{p: getattr(distribution, p)[often] for p in params}, validate_args=False)
    repeated.fit(many, y[often], torch.ones(len(often), dtype=torch.float64))
    if not weighted.changes_density:
        for level in (0.1, 0.5, 0.9, 0.99):
            ends = [quantile.interval(one(distribution), level) for one in (weighted, repeated)]
            torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)
        return
    for left, right in zip(weighted.buffers(), repeated.buffers(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_temperature_is_the_minimum(kind: str) -> None:
    said, y = (binary(), torch.tensor(HITS)) if kind == "bernoulli" else classes()
    found = Temperature()
    found.fit(said, y, WEIGHT)
    logits = said.logits.numpy()
    table = np.stack([0 * logits, logits], 1) if kind == "bernoulli" else logits

    def nll(log_t: float) -> float:
        log_p = scipy.special.log_softmax(table / np.exp(log_t), axis=1)
        return float(-WEIGHT.numpy() @ log_p[np.arange(N), y.numpy().astype(int)])

    best = scipy.optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert float(found.temperature) == pytest.approx(np.exp(best.x), rel=1e-6)
    assert 1.5 < float(found.temperature) < 4
    assert mean_nll(found(said), y) * float(WEIGHT.sum()) == pytest.approx(best.fun, rel=1e-12)


@pytest.mark.parametrize(("right", "expected"), [(True, 0.05), (False, 20.0)])
def test_temperature_is_bounded(right: bool, expected: float) -> None:
    found = Temperature()
    found.fit(binary(), torch.tensor(SCORES > 0).double() if right else torch.tensor(SCORES < 0).double(), WEIGHT)
    assert float(found.temperature) == pytest.approx(expected)


@pytest.mark.parametrize("kind", FAMILIES)
def test_scale_is_the_minimum(kind: type) -> None:
    said, y = density(kind)
    found = Scale()
    found.fit(said, y, WEIGHT)
    family = FAMILIES[kind]

    def nll(log_c: float) -> float:
        return float(-WEIGHT.numpy() @ family(LOCATION, 0.4 * SPREAD * np.exp(log_c)).logpdf(y.numpy()))

    best = scipy.optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert float(found.factor) == pytest.approx(np.exp(best.x), rel=1e-6)
    assert float(found.factor) == pytest.approx(2.5, rel=0.1)
    assert isinstance(found(said), kind)
    assert mean_nll(found(said), y) * float(WEIGHT.sum()) == pytest.approx(best.fun, rel=1e-12)


@pytest.mark.parametrize("kind", FAMILIES)
def test_scale_of_a_perfect_fit_stays_positive(kind: type) -> None:
    said, _ = density(kind)
    found = Scale()
    found.fit(said, said.mean, WEIGHT)
    assert float(found.factor) == 0.05


def test_cox_is_logistic_regression_on_the_logit() -> None:
    found = Cox()
    found.fit(binary(), torch.tensor(HITS), WEIGHT)
    design = sm.add_constant(3 * SCORES)
    oracle = sm.GLM(HITS, design, family=sm.families.Binomial(), freq_weights=WEIGHT.numpy()).fit(tol=1e-14)
    assert [float(found.intercept), float(found.slope)] == pytest.approx(oracle.params, rel=1e-8)


def test_cox_without_an_optimum_says_so_and_changes_nothing() -> None:
    found = Cox()
    with pytest.warns(UserWarning, match="changes nothing"):
        found.fit(binary(), torch.tensor(SCORES > 0).double(), WEIGHT)
    assert found.figures() == {"intercept": 0.0, "slope": 1.0}


def test_isotonic_adds_one_pseudo_observation_to_each_block() -> None:
    said, y = binary(), torch.tensor(HITS)
    found = Isotonic()
    found.fit(said, y, WEIGHT)
    seen = np.argsort(SCORES)
    seen = seen[WEIGHT.numpy()[seen] > 0]
    weight = WEIGHT.numpy()[seen]
    level = sklearn.isotonic.isotonic_regression(HITS[seen], sample_weight=weight)
    rows = {v: weight[level == v].sum() for v in np.unique(level)}
    blocks = np.array([(v * n + 0.5) / (n + 1) for v, n in rows.items()])
    again = sklearn.isotonic.isotonic_regression(blocks, sample_weight=np.array(list(rows.values())) + 1)
    expected = dict(zip(rows, again, strict=True))
    np.testing.assert_allclose(found(said).probs.numpy()[seen], [expected[v] for v in level], rtol=1e-9)


def test_isotonic_is_monotone_and_its_nll_finite_where_classes_are_separated() -> None:
    found = Isotonic()
    found.fit(binary(), torch.tensor(SCORES > 0).double(), torch.ones(N, dtype=torch.float64))
    grid = np.concatenate([[-1e300], np.linspace(-40, 40, 4001), [1e300]])
    log_odds = found(binary(grid)).logits
    assert bool((log_odds.diff() >= 0).all())
    for y in (torch.zeros(4003), torch.ones(4003)):
        worst = float((-found(binary(grid)).log_prob(y)).max())
        assert worst < np.log(2 * N + 2)
    assert found.figures()["num_blocks"] == 2


def test_isotonic_approaches_the_truth() -> None:
    random = np.random.default_rng(0)
    eta = random.normal(size=50_000)
    truth = 1 / (1 + np.exp(-np.tanh(2 * eta)))
    y = (random.random(len(eta)) < truth).astype(float)
    found = Isotonic()
    found.fit(binary(4 * eta), torch.tensor(y), torch.ones(len(y), dtype=torch.float64))
    assert np.abs(found(binary(4 * eta)).probs.numpy() - truth).mean() < 0.02


@pytest.mark.parametrize(
    "state",
    [
        {"edges": torch.zeros(1).double()},
        {"edges": torch.zeros(1).double(), "log_odds": torch.tensor([1.0, 0.0]).double()},
        {"edges": torch.zeros(2).double(), "log_odds": torch.tensor([0.0, 1.0]).double()},
        {"edges": torch.zeros(1).double(), "log_odds": torch.tensor([0.0, float("nan")]).double()},
        {"edges": torch.zeros(1), "log_odds": torch.tensor([0.0, 1.0])},
    ],
)
def test_steps_that_are_none_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UsageError, match="stored"):
        Isotonic().restore(state)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "conformal"])
def test_a_count_has_none_of_them(name: str) -> None:
    assert not build(name).fits(Poisson(torch.ones(3)))


def test_the_floor_of_a_scale_moves_with_it() -> None:
    head = GaussianHead("predicted")
    head.set_units(0.0, 10.0)
    scale = Scale()
    scale.factor.fill_(0.5)
    calibrated = CalibratedHead(head, scale)
    eta = torch.tensor([[0.0, -50.0]], dtype=torch.float64)
    assert float(calibrated(eta).scale) == float(calibrated.floor) == pytest.approx(0.005)
    assert float(head(eta).scale) == pytest.approx(0.01)


CASES = {
    "conformal": ("head=heteroscedastic", "data.kind=heteroscedastic"),
    "temperature": ("head=categorical", "data.kind=categorical"),
    "scale": ("head=heteroscedastic", "data.kind=heteroscedastic"),
    "cox": ("head=bernoulli", "data.kind=bernoulli"),
    "isotonic": ("head=bernoulli", "data.kind=bernoulli"),
}


def test_every_member_goes_through_a_run() -> None:
    assert set(CASES) == set(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_run_keeps_its_recalibration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (*CASES[name], "data=synthetic", "data.num_rows=5200", "trainer.max_epochs=3", "model.hidden=[4]")
    assert run(["train", *options, f"calibrate={name}", "run_dir=r", "report=false", "plots=false"]) == 0
    summary = summary_of(tmp_path / "r")
    content, figures = summary["calibration"], summary["metrics"]
    assert content["method"] == name
    assert content["fitted_on"] == "validation"
    assert content["after"]["validation"]["nll_nats"] <= content["before"]["validation"]["nll_nats"] + 1e-12
    for split, line in content["after"].items():
        assert line["nll_nats"] == pytest.approx(figures[split]["nll_nats"], rel=1e-12)
        gap = figures[split]["nll_nats"] - summary["baseline"][split]["nll_nats"]
        assert summary["distance"]["gap_nats"][split] == pytest.approx(gap, abs=1e-10)

    assert run(["evaluate", "run=r", "output=e.json"]) == 0
    scored = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    for figure, value in scored["metrics"].items():
        assert value == pytest.approx(figures["test"][figure], rel=1e-9, abs=1e-9)
    assert scored["calibration"]["before"]["nll_nats"] == pytest.approx(content["before"]["test"]["nll_nats"], rel=1e-9)
    assert scored["calibration"]["parameters"] == content["parameters"]
    # Added up anew, from the estimates that the checkpoint keeps.
    assert scored["baseline"] == pytest.approx(summary["baseline"]["test"], rel=1e-14)
    assert scored["null"] == pytest.approx(summary["null"]["test"], rel=1e-14)

    assert run(["predict", "run=r", "output=p.csv"]) == 0
    rows = csv.read_csv("p.csv")["nll_nats"].to_numpy()
    assert rows.mean() == pytest.approx(figures["test"]["nll_nats"], rel=1e-9)

    capsys.readouterr()
    assert run(["evaluate", "run=r/checkpoints/last.ckpt", "output=l.json"]) == 0
    assert "holds no recalibration" in capsys.readouterr().err
    assert "calibration" not in json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))
    archive.amend(tmp_path / "r/checkpoints/best.ckpt", calibration={"other": torch.ones(1)})
    assert run(["evaluate", "run=r"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["calibrate=cox"], "predicts a Gaussian"),
        (["calibrate=scale", "data.validation_fraction=0"], "there are none"),
        (["calibrate=isotonic", "head=bernoulli", "data=breast_cancer"], "at least 1000"),
        (["calibrate=temprature"], "Did you mean 'temperature'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *options, "run_dir=r"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_the_report_and_the_table_say_what_was_fitted_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    show = exhibit.predictive
    monkeypatch.setattr(exhibit, "predictive", lambda sample, *rest: seen.append(sample) or show(sample, *rest))
    fast = ("calibrate=scale", "trainer.max_epochs=2", "model.hidden=[4]")
    assert run(["train", *fast, "run_dir=r"]) == 0
    shown = capsys.readouterr().out
    assert "before recalibration" in shown
    assert "88 rows (fitted on)" in shown
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Recalibration</h2>" in page
    assert run(["train", *fast, "run_dir=q", "data.test_fraction=0"]) == 0
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert [sample.description for sample in seen] == [
        "test rows (n = 88)",
        "validation rows (n = 88, recalibrated on them)",
    ]
    assert "no figure on them is an independent one" in page
    capsys.readouterr()
    assert run(["compare", "runs=[r,q]"]) == 0
    assert "fitted" in capsys.readouterr().out
    assert run(["evaluate", "run=q", "split=validation"]) == 0
    assert "was fitted on these rows" in capsys.readouterr().out
