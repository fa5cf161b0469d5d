"""Ensembles as a person trains them: members, the mixture, what fails, what goes on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import Run
from pyarrow import csv, parquet
from scipy import special
from sklearn.model_selection import KFold

import mlefw as package
from mlefw.command.ensemble_member import member_of
from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.frame import Frame
from mlefw.ensemble import train
from mlefw.ensemble.folds import Folds
from mlefw.ensemble.seeds import Seeds
from mlefw.errors import UsageError
from mlefw.reading.split import Split
from mlefw.sweep.population.signature import signature

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

SMALL = ("model.hidden=[4]", "trainer.max_epochs=3", "logger=none", "callback=none")
COMMON = ("data=csv", "data.path=d.csv", "data.target=y", *SMALL)


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def row_nll(folder: Path, split: str = "test") -> np.ndarray:
    with np.load(folder / "row_nll.npz") as arrays:
        return np.asarray(arrays[f"{split}_nll_nats"])


def mixed(rows: list[np.ndarray]) -> np.ndarray:
    return np.asarray(np.log(len(rows)) - special.logsumexp(-np.array(rows), axis=0))


@pytest.fixture
def seeds(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> Path:
    table("gaussian")
    done = mlefw("train", *COMMON, "ensemble=seeds", "ensemble.members=3", "seed=2", "run_dir=e")
    assert done.returncode == 0, done.stderr
    assert "The mixture is of 3 of 3 members" in done.stdout
    return tmp_path / "e"


def test_members_are_the_runs_of_their_seeds(seeds: Path, mlefw: Run, tmp_path: Path) -> None:
    summary = summary_of(seeds)
    members = [seeds / "members" / str(k) for k in range(3)]
    assert [one["seed"] for one in summary["ensemble"]["members"]] == [6, 7, 8]
    done = mlefw("train", *COMMON, "seed=7", "run_dir=alone")
    assert done.returncode == 0, done.stderr
    # Members that train together round in 32 bit otherwise than one alone.
    np.testing.assert_allclose(row_nll(members[1]), row_nll(tmp_path / "alone"), rtol=1e-6)
    by_hand = mixed([row_nll(member) for member in members])
    np.testing.assert_allclose(row_nll(seeds), by_hand, rtol=1e-9)
    test, ensemble = summary["metrics"]["test"], summary["ensemble"]
    assert test["nll_nats"] == pytest.approx(by_hand.mean(), rel=1e-9)
    own = [summary_of(member)["metrics"]["test"]["nll_nats"] for member in members]
    assert ensemble["splits"]["test"]["mean_member_nll_nats"] == pytest.approx(np.mean(own), rel=1e-9)
    assert ensemble["splits"]["test"]["gain_nats"] == pytest.approx(np.mean(own) - by_hand.mean(), rel=1e-6)
    assert ensemble["splits"]["test"]["gain_nats"] > 0
    assert ensemble["splits"]["validation"]["disagreement_nats"] > 0
    assert [one["metrics"]["test"]["nll_nats"] for one in ensemble["members"]] == pytest.approx(own, rel=1e-9)
    assert "out_of_fold" not in ensemble
    single = summary_of(tmp_path / "alone")
    assert summary["baseline"] == single["baseline"]
    gap = by_hand.mean() - single["baseline"]["test"]["nll_nats"]
    assert summary["distance"]["gap_nats"]["test"] == pytest.approx(gap, rel=1e-9)
    assert (seeds / "report.html").is_file()
    assert not (members[0] / "report.html").exists()


def test_members_of_seeds_are_one_group(tmp_path: Path) -> None:
    """They train together as jobs of a sweep do: what tells their directories apart is no difference."""
    config = settings_of({**read_settings("train", ["ensemble=seeds"], [], []), "run_dir": str(tmp_path)})
    scheme = Seeds(members=3)
    members = [train._as_job_settings(member_of(config, scheme, tmp_path, k).config) for k in range(3)]
    signatures = {signature(settings_of(member)) for member in members}
    assert len(signatures) == 1 and None not in signatures
    assert signature(config) is None, "an ensemble itself is no member of a group"


def test_evaluate_predict_load_and_compare(seeds: Path, mlefw: Run, tmp_path: Path) -> None:
    nll = summary_of(seeds)["metrics"]["test"]["nll_nats"]
    done = mlefw("evaluate", "run=e", "output=scores.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert content["metrics"]["nll_nats"] == pytest.approx(nll, rel=1e-9)
    assert content["ensemble"]["num_members"] == 3
    assert content["baseline"]["nll_nats"] == summary_of(seeds)["baseline"]["test"]["nll_nats"]
    assert "linear MLE" in done.stdout and "mixture of 3 members" in done.stdout
    assert mlefw("predict", "run=e", "output=p.csv").returncode == 0
    assert "disagreement_nats" in (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0]
    model = package.load(seeds)
    assert model.summary["metrics"]["test"]["nll_nats"] == nll
    assert mlefw("train", *COMMON, "seed=7", "run_dir=alone").returncode == 0
    done = mlefw("compare", "runs=.")
    assert done.returncode == 0, done.stderr
    # A narrow column has the name in two lines.
    assert {"mixture of", "3 mlp"} <= {cell.strip() for cell in done.stdout.replace("\n", "│").split("│")}
    assert done.stdout.count("mlp") == 2, "members are not ranked"


def test_going_on(seeds: Path, mlefw: Run) -> None:
    """A member that was interrupted goes on, one that has not begun begins, and the others stay as they are."""
    before = row_nll(seeds)
    kept = (seeds / "members" / "0" / "summary.json").stat().st_mtime_ns
    (seeds / "members" / "1" / "summary.json").unlink()
    shutil.rmtree(seeds / "members" / "2")
    (seeds / "summary.json").unlink()
    said = seeds / "members" / "1" / "output.log"
    said.write_text("said before it was stopped\n", encoding="utf-8")
    assert mlefw("train", "resume=e", "trainer.max_epochs=9").returncode == 2
    done = mlefw("train", "resume=e")
    assert done.returncode == 0, done.stderr
    assert said.read_text(encoding="utf-8").startswith("said before")
    assert not list(seeds.glob("*.log")), "what a member prints goes into its directory"
    np.testing.assert_allclose(row_nll(seeds), before, rtol=1e-6)
    assert (seeds / "members" / "0" / "summary.json").stat().st_mtime_ns == kept


def test_a_member_that_fails_leaves_the_others(seeds: Path, mlefw: Run, tmp_path: Path) -> None:
    shutil.rmtree(seeds / "members" / "1")
    # A file where the directory of the member is to be.
    (seeds / "members" / "1").mkdir()
    (seeds / "members" / "1" / "checkpoints").mkdir()
    (seeds / "members" / "1" / "checkpoints" / "last.ckpt").write_text("no checkpoint", encoding="utf-8")
    (seeds / "members" / "1" / "config.yaml").write_bytes((seeds / "members" / "0" / "config.yaml").read_bytes())
    done = mlefw("train", "resume=e")
    assert done.returncode == 5, done.stderr
    assert "member 1 of the ensemble failed" in done.stderr
    summary = summary_of(seeds)
    assert summary["status"] == "finished"
    assert (summary["ensemble"]["num_finished"], summary["ensemble"]["num_members"]) == (2, 3)
    assert summary["ensemble"]["members"][1]["status"] == "failed"
    assert any("member 1" in text for text in summary["warnings"])
    by_hand = mixed([row_nll(seeds / "members" / str(k)) for k in (0, 2)])
    np.testing.assert_allclose(row_nll(seeds), by_hand, rtol=1e-9)


def test_folds(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian", name="plain.csv")
    frame = csv.read_csv(path)
    csv.write_csv(frame.append_column("name", pa.array([f"n{k}" for k in range(120)])), path := tmp_path / "d.csv")
    done = mlefw("train", *COMMON, "data.id=name", "ensemble=folds", "ensemble.members=4", "run_dir=e")
    assert done.returncode == 0, done.stderr
    members = [tmp_path / "e" / "members" / str(k) for k in range(4)]
    sizes = [summary_of(member)["num_rows"] for member in members]
    assert {one["test"] for one in sizes} == {24}
    assert [one["validation"] for one in sizes] == [24] * 4
    assert [one["train"] for one in sizes] == [72] * 4
    summary = summary_of(tmp_path / "e")
    assert summary["num_rows"] == {"train": 96, "test": 24}
    assert "baseline" in summary and not any("baseline" in summary_of(member) for member in members)
    out = summary["ensemble"]["out_of_fold"]
    nll = np.concatenate([row_nll(member, "validation") for member in members])
    assert (out["num_rows"], out["nll_nats"]) == (96, pytest.approx(nll.mean(), rel=1e-12))
    assert out["nll_se"] == pytest.approx(nll.std(ddof=1) / np.sqrt(96), rel=1e-9)
    rows = parquet.read_table(tmp_path / "e" / "out_of_fold.parquet").to_pydict()
    assert rows["nll_nats"] == nll.tolist()
    in_order = row_nll(tmp_path / "e", "out_of_fold")
    np.testing.assert_array_equal(in_order, nll[np.argsort(rows["row"])])
    assert rows["member"] == np.repeat(range(4), 24).tolist()
    assert len(set(rows["row"])) == 96
    known = csv.read_csv(path).to_pydict()
    ids = np.array(known["name"])[rows["row"]].tolist()
    assert rows["name"] == ids
    predicted = mlefw("predict", "run=e/members/1", "data.path=d.csv", "output=p.csv")
    assert predicted.returncode == 0, predicted.stderr
    of_member = np.array(csv.read_csv(tmp_path / "p.csv").to_pydict()["nll_nats"])
    np.testing.assert_allclose(of_member[rows["row"][24:48]], rows["nll_nats"][24:48], rtol=1e-5)
    np.testing.assert_allclose(row_nll(tmp_path / "e"), mixed([row_nll(member) for member in members]), rtol=1e-9)
    assert mlefw("evaluate", "run=e").returncode == 0
    other = ("head=student_t", "ensemble=folds", "ensemble.members=3", "run_dir=other")
    assert mlefw("train", *COMMON, "data.id=name", *other).returncode == 0
    done = mlefw("compare", "runs=e,other", "split=out_of_fold")
    assert "on out-of-fold rows" in done.stdout and "(paired)" in done.stdout, done.stderr
    done = mlefw("evaluate", "run=[e,other]", "weights=stacked", "output=stacked.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "stacked.json").read_text(encoding="utf-8"))
    shares = [one["weight"] for one in content["ensemble"]["runs"]]
    both = -np.array([in_order, row_nll(tmp_path / "other", "out_of_fold")])
    least = special.logsumexp(both, axis=0, b=[[shares[0]], [shares[1]]]).mean()
    tried = [special.logsumexp(both, axis=0, b=[[w], [1 - w]]).mean() for w in np.linspace(0, 1, 101)]
    assert least >= max(tried) - 1e-8
    done = mlefw("evaluate", "run=e/members/1", "split=validation", "output=scores.json")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["metrics"]["nll_nats"] == pytest.approx(row_nll(members[1], "validation").mean(), rel=1e-9)


def test_recalibrated_folds(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    """Each member is recalibrated on the rows that it has not seen, and the mixture is of recalibrated members."""
    table("gaussian")
    chosen = ("ensemble=folds", "ensemble.members=3", "calibrate=scale")
    done = mlefw("train", *COMMON, *chosen, "run_dir=e")
    assert done.returncode == 0, done.stderr
    members = [tmp_path / "e" / "members" / str(k) for k in range(3)]
    factors = [summary_of(member)["calibration"]["parameters"]["factor"] for member in members]
    assert len(set(factors)) == 3
    np.testing.assert_allclose(row_nll(tmp_path / "e"), mixed([row_nll(member) for member in members]), rtol=1e-9)


def test_inputs_are_chosen_over_all_folds(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    """By the NLL of all rows, each under the member that has not seen it, as ensembles with each candidate have it."""
    table("gaussian")
    common = (*COMMON, "ensemble=folds", "ensemble.members=2")
    out = {}
    for name in ("clipped", "piecewise_linear"):
        assert mlefw("train", *common, f"inputs={name}", f"run_dir={name}").returncode == 0
        out[name] = summary_of(tmp_path / name)["ensemble"]["out_of_fold"]["nll_nats"]
    done = mlefw("train", *common, "inputs=auto", "run_dir=e")
    assert done.returncode == 0, done.stderr
    best, summary = min(out, key=out.__getitem__), summary_of(tmp_path / "e")
    assert summary["inputs"]["validation_nll_nats"] == pytest.approx(out, rel=1e-9)
    assert summary["inputs"]["method"] == best
    assert summary["num_parameters"] == summary_of(tmp_path / "e" / "members" / "0")["num_parameters"]
    np.testing.assert_allclose(row_nll(tmp_path / "e"), row_nll(tmp_path / best), rtol=1e-9)
    assert not (tmp_path / "e" / "candidates").exists()
    assert f"inputs: {best}" in (tmp_path / "e" / "config.yaml").read_text(encoding="utf-8")
    text = (tmp_path / "e" / "members" / "1" / "config.yaml").read_text(encoding="utf-8")
    assert "candidates" not in text
    # Where it was stopped before the members were moved, and before anything of the mixture was written.
    (tmp_path / "e" / "candidates" / best).mkdir(parents=True)
    (tmp_path / "e" / "members").rename(tmp_path / "e" / "candidates" / best / "members")
    done = mlefw("train", "resume=e")
    assert done.returncode == 0, done.stderr
    again = summary_of(tmp_path / "e")
    assert (again["inputs"], again["metrics"]) == (summary["inputs"], summary["metrics"])
    assert not (tmp_path / "e" / "candidates").exists()


def test_from_python_and_in_a_sweep(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 2))
    y = x[:, 0] + random.normal(size=60)
    settings = ("ensemble=seeds", "ensemble.members=2", *SMALL, "report=false", "plots=false")
    model = package.fit(x, y, *settings, run_dir=tmp_path / "p")
    rows = [row_nll(tmp_path / "p" / "members" / str(k)) for k in range(2)]
    assert model.summary["metrics"]["test"]["nll_nats"] == pytest.approx(mixed(rows).mean(), rel=1e-9)
    assert set(model.predict(x)) > {"mean", "disagreement_nats"}
    table("gaussian")
    done = mlefw(
        *("train", "-m", *COMMON, "ensemble=seeds", "ensemble.members=2", "head=gaussian,laplace", "run_dir=sweep")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mixture of 2 mlp") >= 1
    jobs = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [summary_of(job)["ensemble"]["num_finished"] for job in jobs] == [2, 2]


def test_a_fold_may_be_an_ensemble(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    table("gaussian")
    done = mlefw("train", *COMMON, "cv=kfold", "cv.folds=2", "ensemble=seeds", "ensemble.members=2", "run_dir=cv")
    assert done.returncode == 0, done.stderr
    folds = [tmp_path / "cv" / f"fold_{k}" for k in range(2)]
    for fold in folds:
        rows = [row_nll(fold / "members" / str(k)) for k in range(2)]
        np.testing.assert_allclose(row_nll(fold), mixed(rows), rtol=1e-9)
    content = json.loads((tmp_path / "cv" / "cv.json").read_text(encoding="utf-8"))
    assert content["nll"]["nats"] == pytest.approx(np.concatenate([row_nll(fold) for fold in folds]).mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("ensemble.members=0",), "ensemble.members=0: expected a whole number of at least 1"),
        (("ensemble.members=200",), "expected at most 96"),
        (("uncertainty=laplace",), "about the parameters of one network"),
        (("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"), "trains each member on one device"),
        (("data.validation_path=d.csv",), "data.validation_path gives others"),
        (("head=poisson",), "for counts use head=poisson"),
        (("experiment=kl",), "both many fits"),
    ],
)
def test_what_is_refused(
    settings: tuple[str, ...], message: str, mlefw: Run, tmp_path: Path, table: Callable[..., Path]
) -> None:
    table("gaussian")
    done = mlefw("train", *COMMON, "ensemble=folds", *settings, "run_dir=e")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "e").exists()


def test_a_fold_that_has_a_class_to_itself_is_refused(mlefw: Run, tmp_path: Path) -> None:
    lines = [f"{k % 7},{'abc'[k % 3]}" for k in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["x,y", *lines, "1,rare", "2,rare"]), encoding="utf-8")
    common = (*COMMON, "head=categorical", "ensemble=folds", "ensemble.members=3", "data.test_fraction=0")
    done = [mlefw("train", *common, f"data.seed={seed}", f"run_dir=e{seed}") for seed in range(6)]
    refused = [seed for seed, one in enumerate(done) if one.returncode]
    assert 0 < len(refused) < 6, "two rows are in one fold with some of the seeds"
    for seed in refused:
        assert done[seed].returncode == 2 and "all rows with y=rare are in fold" in done[seed].stderr
        assert not (tmp_path / f"e{seed}").exists()
    assert mlefw("train", *common, f"data.seed={refused[0]}", "data.split=stratified", "run_dir=s").returncode == 0


def test_rows_of_a_member() -> None:
    """Folds are disjoint, cover all but the test rows, and differ in size by one at most, as scikit-learn's do."""
    from mlefw.reading.table import Table

    table = Table({"x": np.arange(50.0), "y": np.arange(50.0)}, "here")
    source = Frame(target="y")
    rows = np.arange(50)
    given = {"train": (table, rows[:30]), "validation": (table, rows[30:38]), "test": (table, rows[38:])}
    held = []
    for k in range(5):
        parts = Folds(members=5, member=k).parts(source, table, given)
        train, validation = parts["train"][1], parts["validation"][1]
        assert not set(train) & set(validation)
        assert sorted([*train, *validation]) == rows[:38].tolist()
        np.testing.assert_array_equal(parts["test"][1], rows[38:])
        held.append(validation)
    assert sorted(np.concatenate(held)) == rows[:38].tolist()
    theirs = sorted(len(test) for _, test in KFold(5).split(rows[:38]))
    assert sorted(map(len, held)) == theirs
    whole = Folds(members=5).parts(source, table, given)
    np.testing.assert_array_equal(whole["train"][1], rows[:38])
    assert "validation" not in whole
    with pytest.raises(UsageError, match="39"):
        Folds(members=39).parts(source, table, given)
    assert isinstance(source.splitter, Split)
