"""The program from the outside: commands, files, exit codes, messages."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, summary_of
from pyarrow import csv, parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from warm import Started

from mlefw.cli import run

FAST = ("trainer.max_epochs=3", "model.hidden=[4]")
PLAIN = ("logger=none", "report=false", "plots=false")


def test_train_writes_a_complete_run(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "trainer.max_epochs=40", "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "linear MLE" in done.stdout
    run = tmp_path / "r"
    names = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file() and "events" not in file.name}
    assert names == {
        "summary.json",
        "baseline.json",
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "plots/learning_curves.png",
        "tensorboard/hparams.yaml",
    } or names >= {"summary.json", "baseline.json", "config.yaml", "metrics.csv", "plots/learning_curves.png"}
    summary = summary_of(run)
    assert summary["status"] == "finished"
    assert summary["num_rows"] == {"train": 266, "validation": 88, "test": 88}
    figures = summary["metrics"]["validation"]
    assert figures["nll_bits"] == pytest.approx(figures["nll_nats"] / np.log(2), rel=1e-12)
    wanted = {
        "nll_nats",
        "nll_bits",
        "nll_se",
        "objective",
        "penalty",
        "crps",
        "pit_rmse",
        "coverage_50",
        "coverage_80",
    }
    wanted |= {"coverage_90", "coverage_95", "width_90", "sharpness", "rmse", "mae", "pit_p_value", "scale_floor_rate"}
    assert wanted <= figures.keys()
    gap = summary["distance"]["gap_nats"]["test"]
    assert gap == pytest.approx(
        summary["metrics"]["test"]["nll_nats"] - summary["baseline"]["test"]["nll_nats"], abs=1e-12
    )
    assert "parameter" not in summary["distance"]


def test_the_kept_state_is_the_best_on_validation(mlefw: Run, tmp_path: Path) -> None:
    assert mlefw("train", "trainer.max_epochs=60", *PLAIN, "run_dir=r").returncode == 0
    log = csv.read_csv(tmp_path / "r" / "metrics.csv").to_pydict()
    summary = summary_of(tmp_path / "r")
    best = int(np.argmin(log["validation/nll_nats"]))
    assert summary["best_epoch"] == log["epoch"][best]
    assert summary["metrics"]["validation"]["nll_nats"] == pytest.approx(log["validation/nll_nats"][best], rel=1e-12)
    assert log["mle/validation/nll_nats"][0] == log["mle/validation/nll_nats"][-1]


def test_training_starts_at_the_null_model(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    for head in ("gaussian", "heteroscedastic", "laplace", "bernoulli", "poisson", "categorical"):
        kind = "gaussian" if head == "heteroscedastic" else head
        path = table(kind, name=f"{head}.csv")
        done = mlefw(
            *("train", f"head={head}", "data=csv", f"data.path={path}", "data.target=y", f"run_dir={head}"),
            *("trainer.max_epochs=1", "optimizer.lr=0", *PLAIN),
        )
        assert done.returncode == 0, done.stderr
        summary = summary_of(tmp_path / head)
        assert summary["metrics"]["train"]["nll_nats"] == pytest.approx(summary["null"]["train"]["nll_nats"], rel=1e-12)


COUNTED = """
import sys
from mlefw.cli import run
code = run(sys.argv[1:])
print(code, [name for name in ("pandas", "sklearn") if name in sys.modules])
"""


def test_results_do_not_depend_on_the_chunk_and_repeat_exactly(
    mlefw: Run, tmp_path: Path, table: Callable[..., Path]
) -> None:
    few = ("data=csv", f"data.path={table()}", "data.target=y", *FAST, *PLAIN, "model.dropout=0.1")
    for name, chunk in (("a", 1), ("b", 7)):
        done = mlefw("train", *few, f"step.per_chunk={chunk}", f"run_dir={name}")
        assert done.returncode == 0, done.stderr
    # A process of its own from the start on orders sets in another way, and imports no library that it does not use.
    command = [sys.executable, "-c", COUNTED, "train", *few, "step.per_chunk=32", "run_dir=c"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    apart = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert apart.stdout.splitlines()[-1] == "0 []", apart.stdout + apart.stderr
    states = [torch.load(tmp_path / n / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in "abc"]
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in states[0])


def test_sweep_runs_every_job_in_a_directory_of_its_own(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "-m", "head=gaussian,laplace", "prior=none,l2", "seed=0,1", *FAST, "run_dir=s")
    assert done.returncode == 0, done.stderr
    runs = sorted(file.parent for file in (tmp_path / "s").glob("*/summary.json"))
    assert len(runs) == 8
    settings = {(s["head"], s["prior"], s["seed"]) for s in map(summary_of, runs)}
    assert settings == {(h, p, s) for h in ("gaussian", "laplace") for p in ("none", "l2") for s in (0, 1)}
    assert "8 of 8 jobs finished" in done.stdout
    for folder in runs:
        tags = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0}).Reload().Tags()
        assert {"train/nll_nats", "mle/validation/nll_bits", "null/train/nll_nats"} <= set(tags["scalars"])
        assert {"settings/text_summary", "result/text_summary", "custom_scalars__config__"} <= set(tags["tensors"])
    ranked = mlefw("compare", "runs=s")
    assert ranked.returncode == 0
    # The runs of two seeds are one row.
    assert ranked.stdout.count("│ laplace ") == 2


@pytest.mark.slow  # tests/sweep tries a launcher of Hydra, with a job that is killed
def test_joblib_launcher(mlefw: Run, tmp_path: Path) -> None:
    """Its jobs compose heads inside heads and skip heads that are not for the target, as those of forks do."""
    grid = ("head=mixture,beta", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = mlefw("train", "-m", *grid, *FAST, "run_dir=s")
    assert done.returncode == 0, done.stderr
    found = {
        file.parent.name: json.loads(file.read_text("utf-8"))["status"]
        for file in (tmp_path / "s").glob("*/summary.json")
    }
    assert found == {"000_head-mixture": "finished", "001_head-beta": "skipped"}
    assert "1 of 2 jobs finished, 1 skipped" in done.stdout


def test_one_bad_value_in_a_grid_runs_no_job(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "-m", "head=gaussian,gausian", "run_dir=s")
    assert done.returncode == 2
    assert "Did you mean 'gaussian'" in done.stderr
    assert not (tmp_path / "s").exists()


def test_a_failed_job_does_not_end_the_sweep(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "-m", "optimizer.lr=1e30,1e-3", "step.clip_norm=0", "step.recoveries=0", *FAST, "run_dir=s")
    assert done.returncode == 5
    assert "1 of 2 jobs finished" in done.stdout
    states = sorted(summary_of(file.parent)["status"] for file in (tmp_path / "s").glob("*/summary.json"))
    assert states == ["failed", "finished"]


def test_baseline_command(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("baseline", "run_dir=b")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    assert content["num_rows"] == 442
    assert content["log_likelihood"] == pytest.approx(-2385.9924, abs=1e-3)  # published with the data set's OLS fit
    assert [row["name"] for row in content["coefficients"]["loc"]][:3] == ["(intercept)", "age", "sex"]


def test_evaluate_and_predict_agree_with_training(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("gaussian")
    source = ("data=csv", f"data.path={path}", "data.target=y")
    assert mlefw("train", *source, *FAST, *PLAIN, "run_dir=r").returncode == 0
    expected = summary_of(tmp_path / "r")["metrics"]["test"]
    done = mlefw("evaluate", "run=r", "output=e.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    assert figures == pytest.approx(expected, rel=1e-9)
    again = mlefw("evaluate", "run=r", "output=e.json")
    assert again.returncode == 2
    assert "overwrite=true" in again.stderr

    done = mlefw("predict", "run=r", f"data.path={path}", "output=p.parquet", "level=0.8")
    assert done.returncode == 0, done.stderr
    frame = parquet.read_table(tmp_path / "p.parquet").to_pandas()
    assert list(frame) == ["row", "mean", "median", "sd", "lower", "upper", "nll_nats"]
    assert len(frame) == 120
    half = 1.2815515655446004  # 90 % quantile of the standard normal
    assert np.allclose(frame.upper, frame["mean"] + half * frame.sd, rtol=1e-9)
    y = csv.read_csv(path).to_pandas().y
    nll = 0.5 * np.log(2 * np.pi) + np.log(frame.sd) + 0.5 * ((y - frame["mean"]) / frame.sd) ** 2
    assert np.allclose(frame.nll_nats, nll, rtol=1e-9)


def test_a_delimiter_needs_no_quotes_and_new_rows_are_matched_by_name(mlefw: Run, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("b;a;y\n" + "\n".join(f"{k % 7};{3 * k};{k % 5 + k}" for k in range(40)), "utf-8")
    done = mlefw(
        "train", "data=csv", "data.path=d.csv", "data.target=y", "data.delimiter=;", *FAST, *PLAIN, "run_dir=r"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "new.csv").write_text("a;extra;b\n" + "\n".join(f"{3 * k};x;{k % 7}" for k in range(40)), "utf-8")
    assert mlefw("predict", "run=r", "data.path=new.csv", "output=p.csv").returncode == 0
    assert mlefw("predict", "run=r", "data.path=d.csv", "output=q.csv").returncode == 0
    p, q = (csv.read_csv(tmp_path / f"{name}.csv").to_pandas() for name in "pq")
    assert p["row"].tolist() == list(range(40))
    assert p["mean"].tolist() == q["mean"].tolist()
    (tmp_path / "other.csv").write_text("c;d\n1;2\n3;4\n", "utf-8")
    done = mlefw("predict", "run=r", "data.path=other.csv", "output=o.csv")
    assert done.returncode == 2
    assert "'a'" in done.stderr
    assert not (tmp_path / "o.csv").exists()


def test_predict_classes_by_label(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    path = table("categorical")
    source = ("data=csv", f"data.path={path}", "data.target=y", "head=categorical")
    assert mlefw("train", *source, *FAST, *PLAIN, "run_dir=r").returncode == 0
    done = mlefw("predict", "run=r", f"data.path={path}", "output=p.csv")
    assert done.returncode == 0, done.stderr
    frame = csv.read_csv(tmp_path / "p.csv").to_pandas()
    assert list(frame) == ["row", "class", "prob_high", "prob_low", "prob_middle", "nll_nats"]
    assert np.allclose(frame[["prob_high", "prob_low", "prob_middle"]].to_numpy().sum(1), 1)


def test_separated_classes_have_no_estimate(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "head=bernoulli", "data=breast_cancer", *FAST, *PLAIN, "run_dir=r")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "r")
    assert summary["baseline"]["exists"] is False
    assert summary["baseline"]["nll_infimum"] == 0
    assert "separated" in summary["baseline"]["reason"]
    assert summary["distance"]["reference"] == "ridge"
    assert summary["distance"]["null_gap_nats"].keys() == summary["distance"]["gap_nats"].keys()
    assert any("no finite linear MLE" in warning for warning in summary["warnings"])
    assert "prior=l2" in done.stderr


def test_without_validation_rows_the_last_state_is_kept(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", *FAST, *PLAIN, "run_dir=r", "data.validation_fraction=0", "data.test_fraction=0")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "r")
    assert set(summary["metrics"]) == {"train"}
    assert summary["best_epoch"] == 2


def test_weights_are_frequencies(mlefw: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    random = np.random.default_rng(1)
    weight = random.integers(1, 4, 120)
    path = table("poisson", w=weight)
    frame = csv.read_csv(path).to_pandas()
    repeated = frame.loc[frame.index.repeat(weight)].drop(columns="w")
    repeated.to_csv(tmp_path / "repeated.csv", index=False)
    common = ("train", "head=poisson", "prior=l2", "model=linear", "batch=full", "optimizer=lbfgs", *PLAIN)
    common += ("data=csv", "data.target=y", "data.test_fraction=0", "data.validation_fraction=0")
    assert mlefw(*common, f"data.path={path}", "data.weight=w", "run_dir=a").returncode == 0
    assert mlefw(*common, f"data.path={tmp_path / 'repeated.csv'}", "run_dir=b").returncode == 0
    a, b = summary_of(tmp_path / "a"), summary_of(tmp_path / "b")
    assert a["metrics"]["train"] == pytest.approx(b["metrics"]["train"], rel=1e-7)
    one, two = (json.loads((tmp_path / n / "baseline.json").read_text(encoding="utf-8")) for n in "ab")
    rows = zip(one["coefficients"]["rate"], two["coefficients"]["rate"], strict=True)
    for left, right in rows:
        assert left["estimate"] == pytest.approx(right["estimate"], rel=1e-8, abs=1e-10)
        assert left["std_error"] == pytest.approx(right["std_error"], rel=1e-8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), "Did you mean 'train'?"),
        (("train", "haed=poisson"), "Did you mean 'head'?"),
        (("train", "+haed=poisson"), "Did you mean 'head'?"),
        (("train", "head=posson"), "Did you mean 'poisson'?"),
        (("train", "~head"), "head is missing"),
        (("train", "seed=1,2"), "-m"),
        (("train", "prior=l2", "prior.scale=-1"), "prior.scale=-1: expected a positive number"),
        (("train", "prior.scale=1"), "unknown setting prior.scale"),
        (("train", "prior=l2", "optimizer=adamw"), "weight_decay"),
        (("train", "prior=l1", "optimizer=lbfgs", "batch=full"), "not smooth"),
        (("train", "optimizer=lbfgs"), "batch=full"),
        (("train", "optimizer.lr=inf"), "optimizer.lr=inf"),
        (("train", "trainer.max_epochs=-5"), "trainer.max_epochs=-5"),
        (("train", "trainer.devices=99"), "trainer.devices=99"),
        (("train", "trainer.precision=16-tru"), "trainer.precision='16-tru'"),
        (("train", "data.validation_fraction=1.5"), "data.validation_fraction=1.5"),
        (("train", "data.validation_fraction=0.5", "data.test_fraction=0.5"), "0 training rows"),
        (("train", "head=bernoulli"), "0 and 1"),
        (("train", "head=poisson", "data=synthetic"), "0, 1, 2"),
        (("train", "data=csv", "data.path=nope.csv", "data.target=y"), "nope.csv does not exist"),
        (("train", "run_dir=taken"), "not empty"),
        (("train", "model._target_=os.system"), "refused"),
        (("train", "data.path=${oc.env:NOPE_X}"), "NOPE_X"),
        (("train", "head=null"), "head=gaussian"),
        (("train", "hydra.run.dir=x"), "run_dir="),
        (("evaluate", "run=nowhere"), "nowhere"),
        (("evaluate", "run=http://127.0.0.1:9/x.ckpt"), "only local files"),
        (("predict", "run=nowhere", "level=2"), "level=2"),
        (("compare", "runs=nowhere"), "nowhere"),
    ],
)
def test_mistakes_end_with_two_and_a_few_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    code = run(arguments)
    message = capsys.readouterr().err
    assert code == 2, message
    assert words in message
    assert "Traceback" not in message
    assert arguments[0] == "trian" or len(message.splitlines()) <= 6
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("clip", [0, 1])
def test_divergence_ends_with_three_and_keeps_no_bad_weights(mlefw: Run, tmp_path: Path, clip: int) -> None:
    done = mlefw("train", "model=linear", "optimizer.lr=1e30", f"step.clip_norm={clip}", "run_dir=r", *PLAIN)
    assert done.returncode == 3
    assert "diverged" in done.stderr
    assert summary_of(tmp_path / "r")["status"] == "failed"
    for file in (tmp_path / "r" / "checkpoints").glob("*.ckpt"):
        state = torch.load(file, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_help_is_short_and_imports_no_torch(mlefw: Run) -> None:
    done = mlefw("--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 43
    for word in (
        "train",
        "baseline",
        "evaluate",
        "predict",
        "explain",
        "export",
        "sample",
        "compare",
        "anova",
        "check",
        "head=",
        "poisson",
        "examples",
    ):
        assert word in done.stdout
    code = "import sys; from mlefw.cli import run; run(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_mistakes_that_the_source_shows_are_told_without_importing_torch() -> None:
    code = """
import sys
from mlefw.cli import run
for words in (["--cfg", "job"], *([word] for word in sys.argv[1:])):
    print(run(["train", *words]), "torch" in sys.modules, file=sys.stderr)
"""
    wrong = {
        "haed=poisson": "Did you mean 'head'",
        "head=poison": "Did you mean 'poisson'",
        "optimizer.lr=abc": "optimizer.lr='abc': expected a finite number",
        "optimizer.lr=-1": "optimizer.lr=-1: expected a finite number",
        "optimizer.lrr=1": "Did you mean 'lr'",
        "trainer.max_epochs=abc": "expected null or -1 or a whole number of at least 1",
        "data.test_fraction=abc": "expected a finite number of at least 0 and below 1",
        "model.hidden=abc": "expected a list of",
        "seed=abc": "expected a whole number",
    }
    done = subprocess.run([sys.executable, "-c", code, *wrong], capture_output=True, text=True, check=True)
    page, *lines = done.stderr.splitlines()
    assert page == "0 False"
    assert [line for line in lines if not line.startswith("mlefw: error:")] == ["2 False"] * len(wrong)
    for line, message in zip(lines[::2], wrong.values(), strict=True):
        assert message in line


def test_the_working_directory_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')", encoding="utf-8")
    program = Path(sys.executable).with_name("mlefw")
    # Whatever composes settings imports it.
    done = subprocess.run([program, "train", "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_runs_started_at_once_have_two_directories(tmp_path: Path, started: Callable[..., Started]) -> None:
    both = [started("train", *FAST, "report=false", "plots=false") for _ in range(2)]
    assert [one.wait().returncode for one in both] == [0, 0]
    runs = [file.parent for file in (tmp_path / "outputs").glob("*/*/summary.json")]
    assert len(runs) == 2
    # Everything a run writes lies in its own directory, also where run_dir was left to mlefw.
    assert [folder.name for folder in tmp_path.iterdir()] == ["outputs"]
    assert all(list((folder / "tensorboard").glob("events*")) for folder in runs)
    both = [started("train", *FAST, *PLAIN, "run_dir=same") for _ in range(2)]
    assert sorted(one.wait().returncode for one in both) == [0, 2]
    assert time.localtime(summary_of(tmp_path / "same")["time"]["total_s"])
