"""Runs with formulas: what is stored, loaded and predicted, and what starts or stands beside their linear terms."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from scipy.optimize import minimize

from mlefw.baseline.base import Solution
from mlefw.baseline.linear import full_weight
from mlefw.cli import run
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.objective.linear_terms import TermsModel
from mlefw.objective.objective import evaluate
from mlefw.reading.csv_blocks import read_blocks
from mlefw.run import prepare
from mlefw.run.prepare import Prepared
from mlefw.schema import encode
from mlefw.trained import load

N = 90
RANDOM = np.random.default_rng(11)
FRAME = pd.DataFrame({"x": RANDOM.normal(size=N), "z": RANDOM.uniform(1, 3, size=N), "g": list("abc") * (N // 3)})
FRAME["t"] = RANDOM.integers(2, 9, N)
FRAME["y"] = 1 + 2 * FRAME.x + (FRAME.g == "b") + np.exp(0.4 * FRAME.z - 0.5) * RANDOM.normal(size=N)
FRAME["u"] = 0.5 * FRAME.y + RANDOM.normal(size=N)
FRAME["s"] = RANDOM.binomial(FRAME.t, 1 / (1 + np.exp(-FRAME.x)))
NEW = pd.DataFrame({"g": ["c", "b"], "z": [2.0, 1.5], "x": [0.3, -1.0], "t": [4, 7]})


@pytest.fixture
def whole(tmp_path: Path) -> list[str]:
    """The settings of all rows as training rows."""
    FRAME.to_csv(tmp_path / "d.csv", index=False)
    shares = [f"data.{split}_fraction=0" for split in ("test", "validation")]
    return ["data=csv", f"data.path={tmp_path / 'd.csv'}", *shares, "logger=none"]


def coefficients(folder: Path) -> dict[str, dict[str, float]]:
    content = json.loads((folder / "baseline.json").read_text())["coefficients"]
    return {key: {row["name"]: row["estimate"] for row in rows} for key, rows in content.items()}


def settings(given: list[str]) -> Settings:
    return settings_of({**read_settings("train", given, [], []), "run_dir": "r"})


def prepared(given: list[str]) -> Prepared:
    """A run just before its first step."""
    config = settings(given)
    return prepare.start(config, prepare.prepare(config, None))


def test_an_exact_estimate_of_formulas_predicts_when_it_is_loaded(whole: list[str], tmp_path: Path) -> None:
    assert run(["baseline", *whole, "formula=y ~ x + C(g) | z", f"run_dir={tmp_path / 'b'}"]) == 0
    z, w = sm.add_constant(np.column_stack([FRAME.x, FRAME.g == "b", FRAME.g == "c"])), sm.add_constant(FRAME[["z"]])

    def nll(theta: np.ndarray) -> float:
        s = w.to_numpy() @ theta[4:]
        return float((s + 0.5 * ((FRAME.y - z @ theta[:4]) * np.exp(-s)) ** 2).sum())

    best = minimize(nll, np.zeros(6), method="BFGS", options={"gtol": 1e-6}).x
    found = load(tmp_path / "b").predict(NEW[["z", "g", "x"]])
    np.testing.assert_allclose(found["mean"], [best[:4] @ [1, 0.3, 0, 1], best[:4] @ [1, -1, 1, 0]], atol=1e-4)
    np.testing.assert_allclose(found["sd"], np.exp([best[4:] @ [1, 2], best[4:] @ [1, 1.5]]), rtol=1e-4)


def test_the_mean_of_a_count_out_of_trials_has_an_interval_for_these_trials(whole: list[str], tmp_path: Path) -> None:
    more = ["head=binomial", "data.trials=t", "formula=s ~ x"]
    assert run(["baseline", *whole, *more, f"run_dir={tmp_path / 'b'}"]) == 0
    found = load(tmp_path / "b").predict(NEW, level=0.9)
    pairs = np.column_stack([FRAME.s, FRAME.t - FRAME.s])
    oracle = sm.GLM(pairs, sm.add_constant(FRAME.x), family=sm.families.Binomial()).fit(tol=1e-13)
    ends = oracle.get_prediction(sm.add_constant(NEW.x)).summary_frame(alpha=0.1)
    np.testing.assert_allclose(found["mean_lower"], NEW.t * ends["mean_ci_lower"], rtol=1e-6)
    np.testing.assert_allclose(found["mean_upper"], NEW.t * ends["mean_ci_upper"], rtol=1e-6)


def test_a_checkpoint_whose_formula_was_changed_runs_nothing(whole: list[str], tmp_path: Path) -> None:
    assert run(["baseline", *whole, "formula=y ~ poly(x, 2) + s(z, k=5) + offset(z)", f"run_dir={tmp_path / 'b'}"]) == 0
    path = tmp_path / "b" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    code = f"__import__('pathlib').Path('{tmp_path / 'ran'}').touch()"
    (one,) = content["mlefw"]["schema"]["design"]["parameters"]
    for place, key, text in (
        (one, "text", f"poly(x, 2) + {{{code}}}"),
        (one, "text", f"poly(x, 2) + s(z, k=5) + offset({code})"),
        (one["random"][0], "variable", code),
        (one["state"], "version", "0.1"),
    ):
        kept, place[key] = place[key], text
        if text == "0.1":
            one["state"]["probe"][1][0][0] += 1.0
        torch.save(content, path)
        with pytest.raises(UsageError):
            load(tmp_path / "b").predict(NEW)
        place[key] = kept
    assert not (tmp_path / "ran").exists()


def test_what_is_said_of_new_rows_is_said_once_over_all_blocks(
    whole: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["baseline", *whole, "formula=y ~ s(x, k=5) + (1 | g)", f"run_dir={tmp_path / 'b'}"]) == 0
    new = pd.concat([NEW] * 4, ignore_index=True)
    new.loc[1, "x"], new.loc[6, "x"], new.loc[7, "g"] = 50.0, -60.0, "other"
    new.to_csv(tmp_path / "n.csv", index=False)
    monkeypatch.setattr("mlefw.data.csv.read_blocks", partial(read_blocks, size=60))
    capfd.readouterr()
    assert (
        run(["predict", f"run={tmp_path / 'b'}", f"data.path={tmp_path / 'n.csv'}", f"output={tmp_path / 'p.csv'}"])
        == 0
    )
    said = capfd.readouterr().err.replace("\n", " ")
    assert said.count("go on beyond the values of training: s(x) in rows 3, 8 (training") == 1
    assert said.count("intervals leave out the spread between groups: (1 | g) in row 9") == 1
    assert "not used" not in said


@pytest.mark.parametrize("formula", ["y ~ x + C(g) | z", "y ~ x + s(z, k=5) + (1 | g)"])
def test_a_residual_model_starts_at_the_estimate_of_the_formulas(formula: str, whole: list[str]) -> None:
    found = prepared([*whole, f"formula={formula}", "model=residual"])
    assert found.exact is not None
    assert isinstance(found.exact.mle, Solution)
    nll = evaluate(found.estimand.objective, found.data.train).nll.mean()
    assert float(nll) == pytest.approx(found.exact.mle.problem.mean_nll(found.exact.mle.theta), rel=1e-6)


@pytest.mark.parametrize("prior", ["l2", "elastic_net", "l1"])
def test_the_exact_map_is_the_optimum_that_training_descends_to(prior: str, whole: list[str]) -> None:
    """The gradient of the objective of training vanishes at the exact estimate, up to the kink of the prior."""
    config = settings([*whole, "formula=y ~ x + C(g) | z", "model=linear", f"prior={prior}"])
    found = prepare.prepare(config, None)
    solution = prepare.estimate(config, found).map
    assert isinstance(solution, Solution)
    objective = found.estimand.objective.double()
    model: Any = objective.model.model
    weight, bias, _ = full_weight(solution)
    assert isinstance(model, TermsModel)
    # The problem has a head of its own, whose raw outputs are those of training up to the place of the center.
    head, own = objective.head, solution.problem.head
    model.load(weight, bias + (own.center - head.center) / head.gain)
    with torch.no_grad():
        assert float(objective(found.data.train)) == pytest.approx(solution.objective, rel=1e-10)
    smooth = objective.nll(found.data.train).mean() + objective.prior.smooth_part(model.weight) / N
    smooth.backward()
    weights = model.weight.detach()
    assert float(model.bias.grad.abs().max()) < 1e-7
    assert float((weights - objective.prior.prox(weights - model.weight.grad, 1.0 / N)).abs().max()) < 1e-7


def test_each_of_several_targets_has_the_formulas_of_the_parameters(whole: list[str], tmp_path: Path) -> None:
    for name, target in (("both", "[y, u]"), ("one", "u")):
        assert run(["baseline", *whole, f"formula={target} ~ x + z | z", f"run_dir={tmp_path / name}"]) == 0
    both, one = coefficients(tmp_path / "both"), coefficients(tmp_path / "one")
    for key in one:
        assert both[f"u.{key}"] == pytest.approx(one[key], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["head=mixture", "formula=y ~ x | z"], "has 2 parts, and the head has 1 parameters: eta"),
        (["head=mixture", "head.terms.loc_1=x", "data.target=y"], "no parameter 'loc_1', but eta"),
        (["head=categorical", "formula=g ~ x | z"], "has 2 parts, and the head has 1 parameters: eta"),
        (["head=categorical", "formula=g ~ x + s(z)"], "columns of eta, of which several have this formula"),
        (["head=multivariate_gaussian", "formula=[y, u] ~ x | z"], "the head has 1 parameters: eta"),
        (["formula=[y, u] ~ x + (1 | g)"], "are for one target"),
        (["formula=[y, u] ~ x + offset(z)"], "belong to one target"),
        (["head=multivariate_gaussian", "formula=[y, u] ~ x + offset(z)"], "belong to one target"),
        (["formula=y ~ x | z", "head.terms.scale=z"], "head.terms.scale and formula"),
        (["formula=y ~ x | z", "uncertainty=laplace", "model=linear"], "uncertainty.weights=full"),
        (["formula=y ~ s(x)", "prior=l2"], "have normal priors of their own"),
    ],
)
def test_what_heads_without_named_parameters_cannot_have_is_refused(
    given: list[str], message: str, whole: list[str]
) -> None:
    with pytest.raises(UsageError) as error:
        prepared([*whole, *given])
    assert message in str(error.value)


@pytest.mark.parametrize("head", ["mixture", "categorical", "multivariate_gaussian"])
def test_heads_without_named_parameters_take_a_formula_for_all_of_eta(head: str, whole: list[str]) -> None:
    left = {"mixture": "y", "categorical": "g", "multivariate_gaussian": "[y, u]"}[head]
    found = prepared([*whole, f"head={head}", f"formula={left} ~ 0 + x + poly(z, 2)", "model=linear"])
    assert found.data.schema.num_features == 3
    used = found.estimand.used
    assert used is not None
    assert used[:, :-1].all()
    assert not used[:, -1].any()


def test_columns_of_formulas_in_files_are_those_in_memory(
    whole: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formula = "formula=y ~ x*C(g) + bs(z, df=4) | z"
    assert run(["baseline", *whole, formula, f"run_dir={tmp_path / 'memory'}"]) == 0
    monkeypatch.setattr(encode, "_MOST_BYTES", 0)
    monkeypatch.setattr(encode, "_CELLS", 100)
    assert run(["baseline", *whole, formula, f"run_dir={tmp_path / 'files'}"]) == 0
    memory, files = coefficients(tmp_path / "memory"), coefficients(tmp_path / "files")
    for key in memory:
        assert files[key] == pytest.approx(memory[key], rel=1e-9)
    found = prepared([*whole, formula, "model=linear"])
    assert type(found.data.train).__name__ == "StoredRows"
    assert type(prepared([*whole, "data.features=[x, z]", "data.target=y"]).data.train).__name__ == "Rows"
