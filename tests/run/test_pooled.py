"""The mixture of several runs, against the members' own densities, with scipy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import csv
from scipy import integrate, optimize, special, stats

import mlefw
from mlefw.command import evaluate, predict, train
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import EvaluationSettings, PredictionSettings
from mlefw.errors import UsageError
from mlefw.run import pooled

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

INFLATED = "zero_inflated_poisson"
SMALL = ("model.hidden=[6]", "trainer.max_epochs=3", "logger=none", "report=false", "plots=false", "callback=none")


def config_of(command: str, *settings: str) -> dict[str, Any]:
    return read_settings(command, settings, [], [])


def train_on(path: Path, folder: Path, *settings: str, target: str = "y") -> Path:
    common = ("data=csv", f"data.path={path}", f"data.target={target}", *SMALL)
    train.run(settings_of({**config_of("train", *common, *settings), "run_dir": str(folder)}), folder)
    return folder


def listed(*runs: Path) -> str:
    return "run=[" + ",".join(map(str, runs)) + "]"


def evaluated(*settings: str) -> dict[str, Any]:
    return evaluate.run(EvaluationSettings.of(config_of("evaluate", *settings)))


def predicted(tmp_path: Path, *settings: str) -> dict[str, np.ndarray]:
    output = tmp_path / "p.csv"
    predict.run(PredictionSettings.of(config_of("predict", f"output={output}", "overwrite=true", *settings)))
    return {name: np.array(values) for name, values in csv.read_csv(output).to_pydict().items()}


def parameters(run: Path, new: dict[str, np.ndarray]) -> Any:
    return mlefw.load(run).distribution(new)


def six_rows(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file of six rows, and what it holds: a network in 32 bit rounds a row by the rows beside it."""
    few = csv.read_csv(path).slice(0, 6)
    csv.write_csv(few, path.with_name("six.csv"))
    return path.with_name("six.csv"), {name: np.array(values) for name, values in few.to_pydict().items()}


def test_densities_of_different_heads(tmp_path: Path, table: Callable[..., Path]) -> None:
    """A Gaussian, a heteroscedastic and a Student-t run: every figure of their mixture by scipy."""
    path = table("gaussian")
    runs = [
        train_on(path, tmp_path / "a"),
        train_on(path, tmp_path / "b", "head=heteroscedastic", "seed=1"),
        train_on(path, tmp_path / "c", "head=student_t", "seed=2"),
    ]
    six, new = six_rows(path)
    found = predicted(tmp_path, listed(*runs), f"data.path={six}", "level=0.8", "quantiles=[0.01]")
    gaussian = [parameters(run, new) for run in runs[:2]]
    other = parameters(runs[2], new)
    for row, y in enumerate(new["y"]):
        members = [stats.norm(float(d.loc[row]), float(d.scale[row])) for d in gaussian]
        members.append(stats.t(float(other.df[row]), float(other.loc[row]), float(other.scale[row])))
        logs = [member.logpdf(y) for member in members]
        assert found["nll_nats"][row] == pytest.approx(np.log(3) - special.logsumexp(logs), rel=1e-9)
        mean = np.mean([member.mean() for member in members])
        assert found["mean"][row] == pytest.approx(mean, rel=1e-9)
        second = np.mean([member.var() + member.mean() ** 2 for member in members])
        assert found["sd"][row] == pytest.approx(np.sqrt(second - mean**2), rel=1e-9)
        for name, p in (("lower", 0.1), ("median", 0.5), ("upper", 0.9), ("quantile_0.01", 0.01)):
            ends = [member.ppf(p) for member in members]
            root = optimize.brentq(
                lambda v, p=p, m=members: np.mean([one.cdf(v) for one in m]) - p,
                min(ends) - 1,
                max(ends) + 1,
                xtol=1e-12,
            )
            assert found[name][row] == pytest.approx(root, rel=1e-9)
        places = sorted({m.ppf(p) for m in members for p in (1e-14, 1e-9, 1e-5, 1e-2, 0.5, 0.99, 1 - 1e-5, 1 - 1e-9)})

        def surprise(v: float, members: list[Any] = members) -> float:
            density = np.mean([member.pdf(v) for member in members])
            return float(-density * np.log(density))

        entropy = sum(
            integrate.quad(surprise, a, b, epsabs=1e-13, epsrel=1e-11)[0]
            for a, b in zip(places, [*places[1:], members[2].ppf(1 - 1e-14)], strict=True)
        )
        assert found["entropy_nats"][row] == pytest.approx(entropy, abs=1e-9)
        shared = np.mean([member.entropy() for member in members])
        assert found["disagreement_nats"][row] == pytest.approx(entropy - shared, abs=1e-9)


def test_what_an_evaluation_says(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    runs = [train_on(path, tmp_path / name, f"seed={k}") for k, name in enumerate("ab")]
    content = evaluated(listed(*runs), f"output={tmp_path / 'scores.json'}")
    own = [evaluated(f"run={run}") for run in runs]
    rows = [predicted(tmp_path, f"run={run}")["nll_nats"] for run in runs]
    by_hand = np.log(2) - special.logsumexp(-np.array(rows), axis=0)
    metrics, ensemble = content["metrics"], content["ensemble"]
    assert metrics["nll_nats"] == pytest.approx(by_hand.mean(), rel=1e-9)
    assert metrics["nll_se"] == pytest.approx(by_hand.std() / np.sqrt(len(by_hand) - 1), rel=1e-9)
    for member, one in zip(ensemble["members"], own, strict=True):
        assert member["nll_nats"] == pytest.approx(one["metrics"]["nll_nats"], rel=1e-9)
    mean = np.mean(rows)
    assert ensemble["mean_member_nll_nats"] == pytest.approx(mean, rel=1e-9)
    assert ensemble["gain_nats"] == pytest.approx(mean - by_hand.mean(), rel=1e-9)
    assert ensemble["gain_nats"] > 0, "Jensen's inequality"
    of_rows = predicted(tmp_path, listed(*runs))
    for name in ("entropy_nats", "disagreement_nats"):
        assert ensemble[name] == pytest.approx(of_rows[name].mean(), rel=1e-12)
    assert 0 < ensemble["disagreement_nats"] < np.log(2)
    assert {"crps", "coverage_90", "pit_rmse", "width_90"} <= metrics.keys()
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["ensemble"] == ensemble


def test_one_run_is_itself_and_twice_the_same_run_agrees(tmp_path: Path, table: Callable[..., Path]) -> None:
    run = train_on(table("gaussian"), tmp_path / "a")
    once, alone = predicted(tmp_path, listed(run)), predicted(tmp_path, f"run={run}")
    assert once.keys() == alone.keys()
    for name in alone:
        np.testing.assert_array_equal(once[name], alone[name])
    assert evaluated(listed(run)) == evaluated(f"run={run}")
    twice = predicted(tmp_path, listed(run, run / "checkpoints" / "best.ckpt"))
    np.testing.assert_allclose(twice["disagreement_nats"], 0, atol=1e-14)
    for name in alone:
        np.testing.assert_allclose(twice[name], alone[name], rtol=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "categorical"])
def test_given_weights(kind: str, tmp_path: Path, table: Callable[..., Path]) -> None:
    """Densities, counts and classes mixed 1 to 3, by the members' own distributions."""
    runs = [train_on(table(kind), tmp_path / name, f"head={kind}", f"seed={k}") for k, name in enumerate("ab")]
    six, new = six_rows(tmp_path / "d.csv")
    found = predicted(tmp_path, listed(*runs), f"data.path={six}", "weights=[0.5,1.5]")
    own = [predicted(tmp_path, f"run={run}", f"data.path={six}") for run in runs]
    rows = special.logsumexp([-one["nll_nats"] for one in own], axis=0, b=np.array([[0.25], [0.75]]))
    np.testing.assert_allclose(found["nll_nats"], -rows, rtol=1e-9)
    members = [parameters(run, new) for run in runs]
    shared = 0.25 * members[0].entropy().numpy() + 0.75 * members[1].entropy().numpy() if kind != "poisson" else None
    if shared is not None:
        np.testing.assert_allclose(found["entropy_nats"] - found["disagreement_nats"], shared, rtol=1e-8)
    assert (found["disagreement_nats"] > 0).all()
    if "mean" in found:
        np.testing.assert_allclose(found["mean"], 0.25 * own[0]["mean"] + 0.75 * own[1]["mean"], rtol=1e-9)
    content = evaluated(listed(*runs), f"data.path={six}", "weights=[0.5,1.5]")["ensemble"]
    assert [one["weight"] for one in content["runs"]] == [0.25, 0.75]
    mean = 0.25 * own[0]["nll_nats"].mean() + 0.75 * own[1]["nll_nats"].mean()
    assert content["mean_member_nll_nats"] == pytest.approx(mean, rel=1e-9)
    only = evaluated(listed(*runs), f"data.path={six}", "weights=[0,2]")["metrics"]["nll_nats"]
    assert only == pytest.approx(own[1]["nll_nats"].mean(), rel=1e-9)


def test_stacked_weights(tmp_path: Path, table: Callable[..., Path]) -> None:
    """Those with the least NLL on the common validation rows, by a search over the one weight that is free."""
    path = table("gaussian")
    runs = [
        train_on(path, tmp_path / "a", "baseline=none"),
        train_on(path, tmp_path / "b", "head=student_t"),
    ]
    content = evaluated(listed(*runs), "weights=stacked")
    shares = [one["weight"] for one in content["ensemble"]["runs"]]
    own = [predicted_split(run) for run in runs]

    def nll(share: float) -> float:
        return float(-special.logsumexp([-one for one in own], axis=0, b=[[1 - share], [share]]).mean())

    best = optimize.minimize_scalar(nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    assert shares[1] == pytest.approx(best.x, abs=1e-3)
    assert nll(shares[1]) <= best.fun + 1e-8
    assert mlefw.load(runs, weights="stacked").evaluate(six_rows(path)[1])["nll_nats"] < float("inf")
    other = train_on(path, tmp_path / "c", "data.seed=9")
    with pytest.raises(UsageError, match="these hold out different rows"):
        pooled.load([runs[0], other], weights="stacked")
    for weights, message in (
        ([1.0], "expected 2 numbers of at least 0"),
        ([0.0, 0.0], "not all of them 0"),
        ([1.0, -1.0], "expected 2 numbers of at least 0"),
        ("best", "expected equal, stacked or a list"),
    ):
        with pytest.raises(UsageError, match=message):
            pooled.load(runs, weights=weights)
    with pytest.raises(UsageError, match="is for the mixture of several runs"):
        pooled.load(runs[0], weights="stacked")


def predicted_split(run: Path) -> np.ndarray:
    with np.load(run / "row_nll.npz") as arrays:
        return np.asarray(arrays["validation_nll_nats"])


def test_counts(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("poisson")
    runs = [train_on(path, tmp_path / head, f"head={head}", "baseline=none") for head in ("poisson", INFLATED)]
    six, new = six_rows(path)
    found = predicted(tmp_path, listed(*runs), f"data.path={six}", "level=0.9")
    first, second = (parameters(run, new) for run in runs)
    k = np.arange(400)
    pearson, kurtosis = [], []
    for row, y in enumerate(new["y"]):
        zero = special.expit(float(second.logits.expand(6)[row]))
        inflated = zero * (k == 0) + (1 - zero) * stats.poisson(float(second.counts.rate[row])).pmf(k)
        mass = [stats.poisson(float(first.rate[row])).pmf(k), inflated]
        mixed = np.mean(mass, axis=0)
        assert found["nll_nats"][row] == pytest.approx(-np.log(mixed[int(y)]), rel=1e-9)
        entropy = special.entr(mixed).sum()
        assert found["entropy_nats"][row] == pytest.approx(entropy, rel=1e-9)
        disagreement = entropy - special.entr(mass).sum(1).mean()
        assert found["disagreement_nats"][row] == pytest.approx(disagreement, abs=1e-9)
        assert found["upper"][row] == np.flatnonzero(mixed.cumsum() >= 0.95)[0]
        centred = k - k @ mixed
        variance = centred**2 @ mixed
        pearson.append((y - k @ mixed) ** 2 / variance)
        kurtosis.append(centred**4 @ mixed / variance**2)
    z = (np.mean(pearson) - 1) / np.sqrt(np.mean(np.array(kurtosis) - 1) / len(pearson))
    assert evaluated(listed(*runs), f"data.path={six}")["metrics"]["dispersion_z"] == pytest.approx(z, rel=1e-6)


def test_classes(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("categorical")
    runs = [train_on(path, tmp_path / name, "head=categorical", f"seed={k}") for k, name in enumerate("ab")]
    six, new = six_rows(path)
    found = predicted(tmp_path, listed(*runs), f"data.path={six}")
    probs = np.array([parameters(run, new).probs.numpy() for run in runs])
    names = ("high", "low", "middle")
    mixed = probs.mean(0)
    for k, name in enumerate(names):
        np.testing.assert_allclose(found[f"prob_{name}"], mixed[:, k], rtol=1e-9)
    entropy = special.entr(mixed).sum(1)
    np.testing.assert_allclose(found["entropy_nats"], entropy, rtol=1e-9)
    np.testing.assert_allclose(found["disagreement_nats"], entropy - special.entr(probs).sum(2).mean(0), atol=1e-9)
    content = evaluated(listed(*runs))
    assert content["ensemble"]["gain_nats"] > 0
    assert "brier" in content["metrics"]


def test_several_targets(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=80)
    path = tmp_path / "d.csv"
    lines = [f"{a},{a + random.normal()},{int(a + random.normal() > 0)}" for a in x]
    path.write_text("x,price,sold\n" + "\n".join(lines), encoding="utf-8")
    chosen = ("head=multitask", "head.tasks.price=gaussian", "head.tasks.sold=bernoulli")
    runs = [train_on(path, tmp_path / name, *chosen, f"seed={k}", target="[price,sold]") for k, name in enumerate("ab")]
    found = predicted(tmp_path, listed(*runs), f"data.path={path}")
    own = [predicted(tmp_path, f"run={run}", f"data.path={path}") for run in runs]
    by_hand = np.log(2) - special.logsumexp([-one["nll_nats"] for one in own], axis=0)
    np.testing.assert_allclose(found["nll_nats"], by_hand, rtol=1e-9)
    np.testing.assert_allclose(found["sold_prob_1"], np.mean([one["sold_prob_1"] for one in own], 0), rtol=1e-9)
    assert (found["price_disagreement_nats"] > 0).all()
    assert evaluated(listed(*runs))["ensemble"]["targets"].keys() == {"price", "sold"}


@pytest.mark.filterwarnings("ignore:.*levels that the training data do not")
def test_members_that_code_their_features_differently(tmp_path: Path) -> None:
    """Each member sees the columns as its own training rows made them: levels that the other one never met, too."""
    random = np.random.default_rng(0)
    for name, levels in (("a", "pq"), ("b", "pqr")):
        drawn = random.choice(list(levels), 60)
        lines = [f"{x},{level},{x + random.normal()}" for x, level in zip(random.normal(size=60), drawn, strict=True)]
        (tmp_path / f"{name}.csv").write_text("x,z,y\n" + "\n".join(lines), encoding="utf-8")
    runs = [train_on(tmp_path / f"{name}.csv", tmp_path / name, "data.unseen=reference") for name in "ab"]
    own = [predicted(tmp_path, f"run={run}", f"data.path={tmp_path / 'b.csv'}")["nll_nats"] for run in runs]
    found = predicted(tmp_path, listed(*runs), f"data.path={tmp_path / 'b.csv'}")
    np.testing.assert_allclose(found["nll_nats"], np.log(2) - special.logsumexp(-np.array(own), axis=0), rtol=1e-9)
    with pytest.raises(UsageError, match="test rows are not the same rows"):
        evaluated(listed(*runs))


def test_from_python(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    runs = [train_on(path, tmp_path / name, f"seed={k}") for k, name in enumerate("ab")]
    model, (_, new) = mlefw.load(runs), six_rows(path)
    values = model.evaluate(new)
    logs = [parameters(run, new).log_prob(torch.from_numpy(new["y"])).numpy() for run in runs]
    assert values["nll_nats"] == pytest.approx((np.log(2) - special.logsumexp(logs, axis=0)).mean(), rel=1e-9)
    draws = model.distribution(new).sample((4000,)).numpy()
    expected = model.predict(new)
    np.testing.assert_allclose(draws.mean(0), expected["mean"], atol=4 * expected["sd"].max() / np.sqrt(4000))
    assert model.summary == {}


def test_what_cannot_be_mixed(tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    a = train_on(path, tmp_path / "a")
    other = train_on(path, tmp_path / "b", target="x0")
    few = train_on(path, tmp_path / "c", "data.features=[x1,x2]")
    counts = train_on(table("poisson", name="p.csv"), tmp_path / "d", "head=poisson")
    for run, message in (
        (other, "expected runs with the same target"),
        (few, r"from other columns than the other \(x0\)"),
        (counts, "one predicts a density, the other a mass"),
        (tmp_path / "nowhere", "there is no such file or directory"),
    ):
        with pytest.raises(UsageError, match=message):
            pooled.load([a, run])
    with pytest.raises(UsageError, match="an ensemble mixes 2"):
        predicted(tmp_path, listed(a, a), "uncertainty=laplace")
