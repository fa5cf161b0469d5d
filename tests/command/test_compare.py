"""Choosing a likelihood: held-out NLL on the same rows, paired, densities apart from masses; heads that do not fit."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from conftest import Run, summary_of
from pyarrow import csv
from scipy import stats

from mlefw.cli import run
from mlefw.command import compare
from mlefw.configuration.override import expand_globs
from mlefw.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

EXACT = ("model=linear", "batch=full", "optimizer=lbfgs", "trainer.max_epochs=60", "logger=none", "callback=none")
QUICK = ("model=linear", "trainer.max_epochs=2", "logger=none", "callback=none", "report=false", "plots=false")


def draw(num_rows: int, seed: int, weighted: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=num_rows)
    weight = random.integers(1, 4, num_rows) if weighted else np.ones(num_rows, dtype=int)
    return {"x": x, "w": weight, "y": np.exp(1 + 0.5 * x + 0.6 * random.normal(size=num_rows))}


def train(folder: Path, *settings: str) -> None:
    assert (
        run(["train", "data=csv", "data.target=y", "data.validation_fraction=0", f"run_dir={folder}", *settings]) == 0
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_paired_difference_between_densities_in_the_units_of_the_target(
    weighted: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fitted, held = draw(150, 0, weighted), draw(90, 1, weighted)
    for name, columns in (("a", fitted), ("b", held)):
        csv.write_csv(pa.table(columns), tmp_path / f"{name}.csv")
    files = (f"data.path={tmp_path / 'a.csv'}", f"data.test_path={tmp_path / 'b.csv'}", "data.features=[x]")
    files += ("data.weight=w",) if weighted else ()
    for head in ("gaussian", "lognormal"):
        train(tmp_path / "s" / head, f"head={head}", *EXACT, "report=false", "plots=false", *files)

    nll = {}
    for head, target, law in (("gaussian", fitted["y"], stats.norm), ("lognormal", np.log(fitted["y"]), stats.lognorm)):
        fit = sm.WLS(target, sm.add_constant(fitted["x"]), weights=fitted["w"]).fit()
        scale = np.sqrt(np.average(fit.resid**2, weights=fitted["w"]))
        loc = fit.predict(sm.add_constant(held["x"]))
        known = law(loc, scale) if law is stats.norm else law(scale, scale=np.exp(loc))
        nll[head] = -known.logpdf(held["y"])
    difference = nll["gaussian"] - nll["lognormal"]
    rows = np.repeat(difference, held["w"])
    first, second = compare.run([str(tmp_path / "s")])
    assert [first["head"], second["head"]] == ["lognormal", "gaussian"]
    assert {first["measure"], second["measure"]} == {"density"}
    assert first["metrics"]["test"]["nll_nats"] == pytest.approx(np.average(nll["lognormal"], weights=held["w"]), 1e-6)
    assert second["behind"] == pytest.approx((rows.mean(), stats.sem(rows)), rel=1e-5)
    capfd.readouterr()
    assert run(["compare", f"runs={tmp_path / 's'}", f"report={tmp_path / 'c.html'}"]) == 0
    out = capfd.readouterr().out
    assert f"{rows.mean():.4f}" in out
    assert f"{stats.sem(rows):.4f}" in out
    assert "coverage_90" in out
    assert "lognormal is ahead of gaussian by" in out
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "lognormal is ahead of gaussian by" in page
    assert f"{stats.sem(rows):.4f}" in page


def test_masses_are_compared_on_the_same_rows_whatever_their_codes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=120)
    csv.write_csv(pa.table({"x": x, "y": random.poisson(np.exp(0.3 * x)) + 1}), tmp_path / "d.csv")
    path = f"data.path={tmp_path / 'd.csv'}"
    for head in ("poisson", "categorical", "gaussian"):
        train(tmp_path / "s" / head, f"head={head}", path, *QUICK)
    train(tmp_path / "s" / "other", "head=poisson", "data.test_fraction=0.3", path, *QUICK)
    with pytest.raises(UsageError, match=r"densities \(gaussian\) and of masses \(categorical, poisson\)"):
        compare.run([str(tmp_path / "s")])
    (alone,) = compare.run([str(tmp_path / "s")], "density")
    assert alone["head"] == "gaussian"
    found = {Path(s["run_dir"]).name: s for s in compare.run([str(tmp_path / "s")], "mass")}
    assert set(found) == {"poisson", "categorical", "other"}
    first, second = compare.run([str(tmp_path / "s" / name) for name in ("poisson", "other")])
    assert "behind" not in second
    first, second = compare.run([str(tmp_path / "s" / name) for name in ("poisson", "categorical")])
    gap = second["metrics"]["test"]["nll_nats"] - first["metrics"]["test"]["nll_nats"]
    assert second["behind"][0] == pytest.approx(gap, rel=1e-9)
    with pytest.raises(UsageError, match="expected density or mass"):
        compare.run([str(tmp_path / "s")], "probability")


def test_a_sweep_over_all_heads_skips_those_that_do_not_fit(mlefw: Run, tmp_path: Path, table: Any) -> None:
    path = table("poisson")
    few = ("train", "-m", "data=csv", f"data.path={path}", "data.target=y", *QUICK[:-2], "run_dir=s")
    done = mlefw(*few, "head=glob([be*,g*],exclude=[g*_fixed,beta_*,gen*])")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads((tmp_path / "s" / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    ended = {job["overrides"][0]: job for job in jobs}
    assert {name: (job["status"], job["exit_code"]) for name, job in ended.items()} == {
        "head=bernoulli": ("skipped", 0),
        "head=beta": ("skipped", 0),
        "head=gamma": ("skipped", 0),
        "head=gaussian": ("finished", 0),
    }
    assert "numbers above 0" in ended["head=gamma"]["reason"]
    assert "0 and 1 alone" in ended["head=bernoulli"]["reason"]
    assert summary_of(tmp_path / "s" / ended["head=beta"]["run_dir"])["status"] == "skipped"
    assert "1 of 4 jobs finished, 3 skipped" in done.stdout
    (shown,) = compare.run([str(tmp_path / "s")])
    assert shown["head"] == "gaussian"
    none = mlefw(*few[:-1], "run_dir=t", "head=beta,gamma")
    assert none.returncode == 5
    assert "0 of 2 jobs finished, 2 skipped" in none.stdout


def test_one_head_that_does_not_fit_is_a_mistake(
    tmp_path: Path, table: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    common = ["data=csv", f"data.path={table('poisson')}", "data.target=y", *QUICK[:-2]]
    assert run(["train", "head=beta", *common, f"run_dir={tmp_path / 'r'}"]) == 2
    assert not (tmp_path / "r").exists()
    capfd.readouterr()


def test_a_glob_stands_for_the_names_it_matches(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "gauze.yaml").write_text("# mine\n", encoding="utf-8")
    assert expand_globs(["seed=1", "head=glob(gau*)"], [str(tmp_path)]) == [
        "seed=1",
        "head=gaussian,gaussian_fixed,gauze",
    ]
    with pytest.raises(UsageError, match="there is no such head"):
        expand_globs(["head=glob(x*)"], [])
