"""Where no finite linear MLE exists a run is compared with the null model and with a ridge MAP, in paired errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import summary_of
from interrupted import train
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from mlefw.baseline.work import dense_work
from mlefw.cli import run
from mlefw.report.sentences import verdict

SETTINGS = ("data=csv", "data.path=d.csv", "data.target=y", "model.hidden=[4]", "trainer.max_epochs=2", "plots=false")


def separated(path: Path, name: str, seed: int, num_rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, 3)) * [1, 5, 0.2]
    y = (x[:, 0] > 0).astype(int) + (x[:, 0] > 1)
    lines = [",".join([*(f"{value:.9g}" for value in row), f"c{label}"]) for row, label in zip(x, y, strict=True)]
    (path / name).write_text("a,b,c,y\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return np.array([[float(f"{value:.9g}") for value in row] for row in x]), y


def test_a_separated_run_has_both_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    separated(tmp_path, "d.csv", 0)
    fraction = ("data.validation_fraction=0", "data.test_fraction=0")
    assert train(*SETTINGS, *fraction, "head=categorical", "baseline.ridge_scale=0.7", "run_dir=r") == 0
    summary = summary_of(tmp_path / "r")
    assert summary["baseline"]["exists"] is False
    assert summary["baseline"]["nll_infimum"] == pytest.approx(0, abs=1e-9)
    x, y = separated(tmp_path, "again.csv", 0)
    z = (x - x.mean(0)) / x.std(0)
    model = LogisticRegression(C=0.49, tol=1e-10, max_iter=10_000).fit(z, y)
    logits = model.decision_function(z)
    nll = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    ridge = summary["baseline_ridge"]
    assert ridge["scale"] == 0.7
    assert ridge["converged"]
    assert ridge["train"]["nll_nats"] == pytest.approx(nll.mean(), abs=1e-5)
    distance = summary["distance"]
    assert distance["reference"] == "ridge"
    own = np.load(tmp_path / "r" / "row_nll.npz")["train_nll_nats"]
    difference = own - nll
    assert distance["gap_nats"]["train"] == pytest.approx(difference.mean(), abs=1e-5)
    assert distance["gap_se"]["train"] == pytest.approx(difference.std(ddof=1) / len(y) ** 0.5, abs=1e-5)
    share = np.bincount(y) / len(y)
    null = own + np.log(share[y])
    assert distance["null_gap_nats"]["train"] == pytest.approx(null.mean(), abs=1e-9)
    assert distance["null_gap_se"]["train"] == pytest.approx(null.std(ddof=1) / len(y) ** 0.5, abs=1e-9)
    words = verdict(summary)
    assert "no finite MLE" in words
    assert "linear ridge MAP (prior scale 0.7)" in words
    assert "null model" in words
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "linear ridge MAP" in page
    assert json.loads((tmp_path / "r" / "baseline.json").read_text(encoding="utf-8"))["ridge"]["scale"] == 0.7
    # New rows are measured by the same estimates.
    new_x, new_y = separated(tmp_path, "new.csv", 1, 80)
    assert run(["evaluate", "run=r", "data.path=new.csv", "output=new.json"]) == 0
    content = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    new = model.decision_function((new_x - x.mean(0)) / x.std(0))
    expected = (logsumexp(new, axis=1) - new[np.arange(80), new_y]).mean()
    assert content["baseline_ridge"]["nll_nats"] == pytest.approx(expected, abs=1e-5)
    assert content["null"]["nll_nats"] == pytest.approx(-np.log(share[new_y]).mean(), abs=1e-9)
    assert content["distance"]["gap_nats"] == pytest.approx(content["metrics"]["nll_nats"] - expected, abs=1e-5)


def test_a_verdict_does_not_contradict_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(2)
    # The third class lies apart from the first; neither can be told from the second.
    x = np.concatenate([random.uniform(0, 1, 60), random.uniform(0, 2, 60), random.uniform(1, 2, 60)])
    y = np.repeat([0, 1, 2], 60)
    text = "\n".join(f"{a:.6f},c{b}" for a, b in zip(x, y, strict=True))
    (tmp_path / "d.csv").write_text(f"x,y\n{text}\n", encoding="utf-8")
    assert train(*SETTINGS, "head=categorical", "run_dir=r") == 0
    words = verdict(summary_of(tmp_path / "r"))
    assert "0 of" not in words


def test_new_rows_are_measured_by_the_maximum_of_the_likelihood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import statsmodels.api as sm

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(7)
    tables = {}
    for name, count in (("d", 300), ("new", 150)):
        x = random.normal(size=(count, 2)).round(6)
        exposure = random.uniform(0.5, 2, count).round(6)
        y = random.poisson(exposure * np.exp(0.3 + 0.5 * x[:, 0]))
        weight = random.integers(0, 3, count)
        tables[name] = (x, exposure, y, weight)
        rows = np.column_stack([x, exposure, weight, y])
        np.savetxt(f"{name}.csv", rows, delimiter=",", header="a,b,e,w,y", comments="", fmt="%.6f,%.6f,%.6f,%d,%d")
    columns = ("head=poisson", "data.exposure=e", "data.weight=w")
    fraction = ("data.validation_fraction=0", "data.test_fraction=0")
    assert train(*SETTINGS, *columns, *fraction, "run_dir=r") == 0
    assert run(["evaluate", "run=r", "data.path=new.csv", "output=new.json"]) == 0
    content = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    (x, e, y, w), (nx, ne, ny, nw) = tables["d"], tables["new"]

    def nll(design: np.ndarray, new: np.ndarray) -> np.ndarray:
        from scipy.stats import poisson

        family = sm.families.Poisson()
        model = sm.GLM(y, design, family, offset=np.log(e), freq_weights=w).fit(tol=1e-13)
        return -poisson.logpmf(ny, ne * np.exp(new @ model.params))

    one, new_one = np.ones((len(y), 1)), np.ones((len(ny), 1))
    exact, null = nll(np.hstack([one, x]), np.hstack([new_one, nx])), nll(one, new_one)
    assert content["baseline"]["nll_nats"] == pytest.approx(np.average(exact, weights=nw), abs=1e-8)
    assert content["null"]["nll_nats"] == pytest.approx(np.average(null, weights=nw), abs=1e-8)
    gap = content["distance"]["gap_nats"]
    assert content["metrics"]["nll_nats"] - content["baseline"]["nll_nats"] == pytest.approx(gap, abs=1e-10)
    assert content["distance"]["reference"] == "mle"
    assert content["distance"]["gap_se"] > 0


def numbers(path: Path, num_rows: int = 60) -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(num_rows, 3))
    y = np.exp(0.2 * x[:, 0] + 0.3 * random.normal(size=num_rows))
    np.savetxt(path, np.column_stack([x, y]), delimiter=",", header="a,b,c,y", comments="", fmt="%.6f")


@pytest.mark.parametrize("head", ["gamma", "heteroscedastic", "student_t"])
@pytest.mark.parametrize("prior", ["none", "l2"])
def test_an_mle_that_was_left_out_leaves_the_rest_as_the_result(
    head: str, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a prior the products of the features are counted beside the solver: a limit between leaves out one."""
    monkeypatch.chdir(tmp_path)
    numbers(tmp_path / "d.csv")
    columns = {"gamma": 2, "heteroscedastic": 2, "student_t": 3}[head]
    limit = f"baseline.max_work={dense_work(60, 3, columns, 12) + 1}"
    asked = ("data=csv", "data.path=d.csv", "data.target=y", f"head={head}", f"prior={prior}", limit)
    whole = ("data.validation_fraction=0", "data.test_fraction=0")
    assert run(["baseline", *asked, *whole, "run_dir=b"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    content = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    assert "multiplications, more than baseline.max_work" in content["left_out"]["mle"]
    found = content["ridge"] if prior == "none" else content
    assert found["exists"]
    assert found["converged"]
    assert f"{found['nll_nats']:.6g}" in printed
    if prior == "none":
        assert content["exists"] is None
        assert "The linear MLE was left out: it takes" in printed
        assert "The linear ridge MAP, prior scale 1, stands in for it" in printed
    # Training says the same, in the same file, and ends as well.
    assert train(*asked, *whole, "model.hidden=[4]", "trainer.max_epochs=2", "plots=false", "run_dir=r") == 0
    same = json.loads((tmp_path / "r" / "baseline.json").read_text(encoding="utf-8"))
    assert same["left_out"] == content["left_out"]
    assert (same["ridge"] if prior == "none" else same)["coefficients"] == found["coefficients"]
    if prior == "none":
        assert "Left out: it takes" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_where_nothing_could_be_computed_there_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    numbers(tmp_path / "d.csv")
    asked = ("data=csv", "data.path=d.csv", "data.target=y", "head=gamma", "baseline.max_work=100")
    assert run(["baseline", *asked, "run_dir=b"]) == 3
    assert not (tmp_path / "b").exists()
    assert train(*asked, "model.hidden=[4]", "trainer.max_epochs=2", "plots=false", "run_dir=r") == 0
    assert not (tmp_path / "r" / "baseline.json").exists()
