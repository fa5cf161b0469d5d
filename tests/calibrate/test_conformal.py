"""Conformal intervals: their coverage in finite samples, the formulas of the literature, and what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import summary_of
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pyarrow import csv
from torch.distributions import Bernoulli, Exponential, Normal, Poisson

from mlefw.calibrate.conformal import Conformal
from mlefw.cli import run
from mlefw.distribution import quantile
from mlefw.distribution.conformal import Conformal as ConformalDistribution
from mlefw.distribution.conformal import Part, has_masses, tails
from mlefw.errors import UsageError
from mlefw.head.gaussian import Gaussian
from mlefw.metric.coverage import Coverage
from mlefw.testing.head_case import plausible_etas

pytestmark = pytest.mark.filterwarnings(
    "ignore:calibrate=conformal", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
HEADS = Path(__file__).parents[2] / "conf" / "head"
ONES = torch.ones(400, dtype=torch.float64)


def gaussian(loc, scale=1.0):
    loc = torch.as_tensor(loc, dtype=torch.float64)
    return Gaussian(loc, torch.full_like(loc, scale), validate_args=False)


def fitted(density, y, weight=None, **settings):
    found = Conformal(**settings)
    y = torch.as_tensor(y)
    found.fit(density, y, ONES[: len(y)] if weight is None else torch.as_tensor(weight, dtype=torch.float64))
    return found


def covered(num_rows, draw, density, ends, repeats=700, fresh=100):
    """Mean share of new rows between the ends, and its Monte-Carlo error, over many small calibration samples.

    Given the calibration rows the share has a variance of at most c (1 − c) / (n + 2), that of a Beta variable.
    """
    random, shares = np.random.default_rng(7), []
    for _ in range(repeats):
        seen, new = (torch.tensor(draw(random, size)) for size in (num_rows, fresh))
        low, high = ends(fitted(density(num_rows), seen), density(fresh))
        shares.append(float(((new >= low) & (new <= high)).double().mean()))
    return np.mean(shares), np.std(shares) / math.sqrt(repeats)


def skewed(random, size):
    return random.gamma(1.5, 2.0, size) - 1


@pytest.mark.parametrize(("num_rows", "level"), [(19, 0.9), (19, 0.5), (30, 0.9), (12, 0.63)])
def test_an_interval_covers_what_n_rows_can_promise_exactly(num_rows, level):
    """Of a wrong model: ⌈(n + 1) c⌉ / (n + 1), which lies between c and c + 1 / (n + 1)."""
    wrong = lambda size: gaussian(np.full(size, 0.7), 3.0)  # noqa: E731
    share, error = covered(num_rows, skewed, wrong, lambda map_, new: quantile.interval(map_(new), level))
    expected = math.ceil((num_rows + 1) * level - 1e-9) / (num_rows + 1)
    assert level <= expected <= level + 1 / (num_rows + 1)
    assert error < 0.005
    assert abs(share - expected) < 4 * error


@pytest.mark.parametrize("level", [0.1, 0.35, 0.5, 0.8, 0.95])
def test_a_quantile_is_exceeded_as_often_as_promised(level):
    wrong = lambda size: gaussian(np.full(size, 0.7), 3.0)  # noqa: E731
    infinite = torch.tensor(torch.inf)
    share, error = covered(
        19, skewed, wrong, lambda map_, new: (-infinite, quantile.quantile(map_(new), level)), repeats=500
    )
    # 20 · level is whole: an upper quantile has at least that below it, a lower one at most that.
    assert abs(share - level) < 4 * error


@pytest.mark.parametrize("level", [0.8, pytest.param(0.9, marks=pytest.mark.slow)])
def test_counts_are_covered_at_least_and_randomised_ones_exactly(level):
    wrong = lambda size: Poisson(torch.full((size,), 2.0, dtype=torch.float64))  # noqa: E731
    counts = lambda random, size: random.negative_binomial(2, 0.4, size).astype(float)  # noqa: E731
    share, error = covered(19, counts, wrong, lambda map_, new: quantile.interval(map_(new), level), repeats=200)
    assert share > level - 4 * error
    random, shares = np.random.default_rng(5), []
    for seed in range(250):
        seen, new = (torch.tensor(counts(random, size)) for size in (19, 100))
        inside = fitted(wrong(19), seen, discrete="randomised", seed=seed)(wrong(100)).inside(new, [level])
        shares.append(float(inside.mean()))
    assert abs(np.mean(shares) - level) < 4 * np.std(shares) / math.sqrt(250)


RANDOM = np.random.default_rng(3)
LOC = RANDOM.normal(size=200)
Y = LOC + 1.5 * RANDOM.standard_t(3, size=200)


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
@pytest.mark.parametrize("level", [0.2, 0.75, 0.9])
def test_of_a_gaussian_it_is_the_classical_split_conformal_interval(scale, level):
    """Of one scale, ± the ⌈(n + 1) c⌉-th absolute residual (Lei et al., 2018), also with a far too small scale."""
    y = LOC + 0.3 * RANDOM.uniform(-1, 1, size=200)
    radius = np.sort(np.abs(y - LOC))[math.ceil(201 * level) - 1]
    low, high = quantile.interval(fitted(gaussian(LOC, scale), y)(gaussian([0.0, 5.0], scale)), level)
    np.testing.assert_allclose(high.numpy(), [radius, 5 + radius], rtol=1e-6)
    np.testing.assert_allclose(low.numpy(), [-radius, 5 - radius], rtol=1e-6)


@pytest.mark.parametrize("level", [0.2, 0.75, 0.9])
def test_several_folds_are_cv_plus(level):
    """Equation 1.8 of Barber et al. (2021): order statistics of the residuals about the models of the folds."""
    models, new = [lambda x, k=k: x * (1 + 0.3 * k) + k for k in range(4)], np.array([-1.0, 0.0, 2.5])
    fold, x = np.arange(200) % 4, RANDOM.normal(size=200)
    center = np.select([fold == k for k in range(4)], [models[k](x) for k in range(4)])
    y = center + RANDOM.gamma(2.0, 1.0, size=200)
    about = np.stack([models[k](new) for k in fold])
    radius, rank = np.abs(y - center)[:, None], math.floor((1 - level) * 201 + 1e-9)
    low, high = np.sort(about - radius, 0)[rank - 1], np.sort(about + radius, 0)[200 - rank]
    maps = [fitted(gaussian(center[fold == k]), y[fold == k]) for k in range(4)]
    parts = [Part(gaussian(models[k](new)), maps[k].scores) for k in range(4)]
    found = quantile.interval(ConformalDistribution(gaussian(new), parts), level)
    np.testing.assert_allclose(found[0].numpy(), low, atol=1e-6)
    np.testing.assert_allclose(found[1].numpy(), high, atol=1e-6)


def test_one_part_and_the_same_part_in_several_are_alike():
    rate = torch.tensor(RANDOM.gamma(2, 1, size=200))
    y = torch.tensor(RANDOM.poisson(1.7 * rate.numpy()).astype(float))
    new = Poisson(torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64))
    whole = fitted(Poisson(rate), y)(new)
    halves = [fitted(Poisson(rate[k::2]), y[k::2]).scores for k in range(2)]
    several = ConformalDistribution(new, [Part(new, scores) for scores in halves])
    for level in (0.3, 0.8, 0.95):
        assert torch.equal(torch.stack(quantile.interval(whole, level)), torch.stack(quantile.interval(several, level)))
        assert torch.equal(quantile.quantile(whole, level), quantile.quantile(several, level))


def test_a_level_that_the_rows_cannot_promise_ends_with_the_range():
    found = Conformal()
    with pytest.warns(UserWarning, match=r"9 validation rows, .* above 0\.9: an interval of level 0\.95 ends"):
        found.fit(Exponential(ONES[:9]), ONES[:9], ONES[:9])
    low, high = quantile.interval(found(Exponential(ONES[:2])), 0.95)
    assert low.tolist() == [0, 0]
    assert high.tolist() == [math.inf] * 2
    assert bool(torch.stack(quantile.interval(found(Exponential(ONES[:2])), 0.9)).isfinite().all())
    with pytest.warns(UserWarning, match=r"a quantile at 0\.05"):
        found.warn_of((), (0.05, 0.5))


def test_the_density_is_left_alone():
    density = gaussian(LOC)
    found = fitted(density, Y)(density)
    assert torch.equal(found.log_prob(torch.tensor(Y)), density.log_prob(torch.tensor(Y)))
    assert torch.equal(found.mean, density.mean)
    assert torch.equal(found.stddev, density.stddev)
    assert torch.equal(found.loc, density.loc)
    with pytest.raises(AttributeError):
        _ = found.rate


HEAD_NAMES = sorted(file.stem for file in HEADS.glob("*.yaml"))
FACTS = {"histogram": {"bins": 5}, "binomial": {"trials": 9}, "beta_binomial": {"trials": 9}}
OTHERS = {"bernoulli", "categorical", "ordinal", "censored", "multitask", "multivariate_gaussian"}


SLOW = {"tweedie", "generalised_gamma"}
"""Heads whose distribution functions are series or searches."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in HEAD_NAMES if name not in OTHERS],
)
def test_every_head_of_a_number(name):
    """The printed interval holds as many validation rows as the coverage says, and at least the rank that it needs."""
    config = OmegaConf.to_container(OmegaConf.load(HEADS / f"{name}.yaml"))
    node = {key: value for key, value in config.items() if key != "defaults"} | FACTS.get(name, {})
    if isinstance(node.get("component"), str) or ("component" in node and node["component"] is None):
        node["component"] = {"_target_": "mlefw.head.poisson.PoissonHead"}
    head = instantiate(node, _convert_="all").double()
    etas = torch.stack(plausible_etas(head, 60)).repeat(2, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        y = head.distribution(etas.flip(0)).sample().double()
    density = head.distribution(etas)
    found = fitted(density, y)
    conformal = found(density)
    if (lowest := getattr(density.support, "lower_bound", None)) is not None and has_masses(density):
        assert tails(density, torch.full_like(y, lowest))[1].numpy() == pytest.approx(1)
    for level in (0.5, 0.9):
        low, high = quantile.interval(conformal, level)
        # The ends are observations: of a quantile that is searched for, they are so to rounding.
        width = 1e-9 * (1 + y.abs())
        told = conformal.inside(y, [level])[0].bool()
        assert bool((told | (y < low + width) | (y > high - width)).all())
        assert bool((~told | ((y > low - width) & (y < high + width))).all())
        assert int(told.sum()) >= math.ceil(121 * level) - 1
    quantiles = torch.stack([quantile.quantile(conformal, p) for p in (0.1, 0.4, 0.5, 0.6, 0.9)])
    assert bool((quantiles.diff(dim=0) >= 0).all())


def test_coverage_is_that_of_the_interval():
    y = torch.tensor(Y)
    conformal = fitted(gaussian(LOC), Y)(gaussian(LOC))
    metric = Coverage()
    metric.update(conformal, y, ONES[:200])
    figures = {name: float(value) for name, value in metric.compute().items()}
    low, high = quantile.interval(conformal, 0.9)
    assert figures["coverage_90"] == pytest.approx(float(((y >= low) & (y <= high)).double().mean()))
    assert figures["width_90"] == pytest.approx(float((high - low).mean()))
    assert not any(name.endswith("_z") for name in figures)
    # Just above the level of an observation the interval contains it, and at that level it does not.
    for one, level in zip(range(0, 200, 20), conformal.central_level(y)[::20].tolist(), strict=True):
        assert conformal.inside(y, [level + 1e-6])[0, one] == 1
        assert conformal.inside(y, [level - 1e-6])[0, one] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"below": torch.tensor([0.2, 1.2]).double()}, "masses of tails"),
        ({"below": torch.tensor([0.2]).double()}, "masses of tails"),
        ({"count": torch.tensor([1.0, 0.5]).double()}, "whole numbers"),
    ],
)
def test_scores_that_are_none_are_refused(change, message):
    state = {name: torch.tensor([0.4, 0.6]).double() for name in ("below", "above")} | {"count": ONES[:2]}
    Conformal().restore(state)
    with pytest.raises(UsageError, match=message):
        Conformal().restore(state | change)


def test_groups_and_times_are_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i % 7},{i % 5},{i % 20}" for i in range(100))
    (tmp_path / "t.csv").write_text(f"x,y,g\n{rows}\n", encoding="utf-8")
    options = ("data=csv", "data.path=t.csv", "data.target=y", "data.group=g", *FAST[2:])
    assert run(["train", *options, "calibrate=conformal", "run_dir=r"]) == 0
    assert "data.split=group" in capsys.readouterr().err


def test_what_has_no_interval_is_refused():
    assert not Conformal().fits(Bernoulli(ONES[:1] / 2))
    assert Conformal().fits(Normal(0.0, 1.0))
    with pytest.raises(UsageError, match=r"data\.weight has 0\.5"):
        Conformal().check_rows(torch.tensor([1.0, 0.5]))
    with pytest.raises(UsageError, match="rows of one observation"):
        Conformal().check_rows(torch.ones(3, 4))


FAST = ("data=synthetic", "data.num_rows=300", "model=linear", "trainer.max_epochs=2", "plots=false", "report=false")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["head=bernoulli", "data.kind=bernoulli"], "a class has probabilities and no interval"),
        (["ensemble=seeds"], "expected ensemble=folds"),
        (["ensemble=folds", "calibrate.discrete=randomised"], "expected calibrate.discrete=conservative"),
        (["calibrate.discrete=both"], "discrete"),
        (["calibrate.seed=-1"], "at least 0"),
    ],
)
def test_what_is_not_promised_is_refused_before_training(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *FAST, "calibrate=conformal", *options, "run_dir=r"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_run_says_what_covered_before_and_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *FAST[:-1], "report=true", "calibrate=conformal", "run_dir=r"]) == 0
    assert "Intervals and quantiles are conformal" in capsys.readouterr().out
    content = summary_of(tmp_path / "r")["calibration"]
    assert content["keeps_density"] is True
    assert content["before"]["test"]["nll_nats"] == content["after"]["test"]["nll_nats"]
    assert "Conformal intervals" in (tmp_path / "r/report.html").read_text(encoding="utf-8")
    assert run(["predict", "run=r", "output=p.csv", "level=0.9"]) == 0
    assert run(["evaluate", "run=r", "output=e.json"]) == 0
    scored = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["calibration"]
    for when in ("before", "after"):
        assert scored[when] == pytest.approx(content[when]["test"], rel=1e-9)
    rows = csv.read_csv("p.csv")
    width = rows["upper"].to_numpy() - rows["lower"].to_numpy()
    assert width.mean() == pytest.approx(content["after"]["test"]["width_90"], rel=1e-9)
    # A row alone has the interval that it has among others.
    assert np.ptp(width) < 1e-9


def test_folds_are_cross_conformal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *FAST, "ensemble=folds", "ensemble.members=3", "calibrate=conformal", "run_dir=r"]) == 0
    summary = summary_of(tmp_path / "r")
    assert summary["ensemble"]["intervals"] == {"method": "conformal", "num_scores": 240.0}
    assert run(["predict", "run=r", "output=p.csv"]) == 0
    rows = csv.read_csv("p.csv")
    assert float(np.mean(rows["upper"].to_numpy() - rows["lower"].to_numpy())) == pytest.approx(
        summary["metrics"]["test"]["width_90"], rel=1e-6
    )
    assert run(["predict", "run=[r/members/0,r/members/1]", "output=q.csv"]) == 2
