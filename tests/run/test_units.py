"""Standard errors over groups of rows: of figures, gaps, evaluations and comparisons, against statsmodels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from conftest import Run, summary_of
from pyarrow import parquet

from mlefw.configuration.read import read_settings, settings_of
from mlefw.data.synthetic import Synthetic
from mlefw.objective.objective import evaluate
from mlefw.report.misfit import departures
from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import windows
from mlefw.run.last_layer import at_end
from mlefw.run.prepare import prepare
from mlefw.run.units import units_of
from mlefw.score.yardstick import ExactEstimates, Yardstick

QUIET = ("report=false", "plots=false", "logger=none", "callback=none")


def cluster(value: np.ndarray, weight: np.ndarray, group: np.ndarray) -> float:
    """The error of a weighted mean over groups, by weighted least squares on a constant."""
    fit = sm.WLS(value, np.ones(len(value)), weights=weight).fit(cov_type="cluster", cov_kwds={"groups": group})
    return float(fit.bse[0])


def panel(path: Path, positions: bool) -> dict[str, np.ndarray]:
    """Rows of 24 groups with an effect of their own each; images with a number, or series with one at each step."""
    random = np.random.default_rng(4)
    group = np.sort(random.integers(0, 24, 150))
    own = random.normal(size=24)[group]
    if positions:
        x = random.normal(size=(150, 5, 2))
        weight = random.integers(0, 3, (150, 5)).astype(float)
        weight[7] = 0
        y = own[:, None] + x[..., 0] + random.normal(size=(150, 5))
    else:
        x, weight = random.normal(size=(150, 1, 3, 3)), np.ones(150)
        y = own + x[:, 0, 1, 1] + random.normal(size=150)
    arrays = {"x": x, "y": y, "w": weight, "person": np.array([f"p{one}" for one in group]), "id": np.arange(150)}
    np.savez(path, **arrays)
    return arrays


def settings(file: str, *more: str) -> list[str]:
    few = ["trainer.max_epochs=3", "head=gaussian", "model=linear", *QUIET]
    return ["train", "data=npz", f"data.path={file}", "data.weight=w", "data.group=person", *few, *more]


def scores(run: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NLL, weight and unit of each row, as they are stored."""
    with np.load(run / "row_nll.npz") as arrays:
        nll = arrays[f"{split}_nll_nats"]
        return nll, arrays.get(f"{split}_weight", np.ones(len(nll))), arrays[f"{split}_unit"]


@pytest.mark.parametrize("positions", [False, True])
def test_errors_of_a_run_are_over_its_groups(mlefw: Run, tmp_path: Path, positions: bool) -> None:
    arrays = panel(tmp_path / "d.npz", positions)
    # A linear model has one output a row: at each step there is nothing but the null model to compare with.
    model = ["model=steps", "baseline=none", "--plugin", "nets", "--config-dir", "conf"] if positions else []
    if positions:
        plugin(tmp_path)
    done = mlefw(*settings("d.npz", "run_dir=r", *model))
    assert done.returncode == 0, done.stderr
    found = summary_of(tmp_path / "r")
    assert found["observation"] == ("position" if positions else "row")
    for split, name in found["nll_se_unit"].items():
        nll, weight, unit = scores(tmp_path / "r", split) if split != "train" else (np.zeros(0),) * 3
        assert name.endswith(" groups") and 1 < int(name.split()[0]) < 24
        if split == "train":
            continue
        assert int(name.split()[0]) == len(np.unique(unit[weight > 0]))
        error = cluster(nll, weight, unit)
        assert found["metrics"][split]["nll_se"] == pytest.approx(error, rel=1e-10)
        assert abs(error / cluster(nll, weight, np.arange(len(nll))) - 1) > 0.03
        assert not [key for key in found["metrics"][split] if key.endswith(("_p_value", "_z", "_null"))]
    splits = {split: int(name.split()[0]) for split, name in found["nll_se_unit"].items()}
    assert sum(splits.values()) == 24 == len(np.unique(arrays["person"]))
    assert evaluated(mlefw, tmp_path, "run=r", positions)["metrics"]["nll_se"] == pytest.approx(
        found["metrics"]["test"]["nll_se"], rel=1e-9
    )


def evaluated(mlefw: Run, folder: Path, run: str, plugged: bool, *more: str) -> dict[str, Any]:
    plugin = ["--plugin", "nets"] if plugged else []
    done = mlefw("evaluate", run, "output=e.json", "overwrite=true", *more, *plugin)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads((folder / "e.json").read_text(encoding="utf-8"))
    return content | {"said": done.stdout + done.stderr}


def plugin(folder: Path) -> None:
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "steps.yaml").write_text("# A plugin.\n_target_: nets.Steps\n", encoding="utf-8")
    text = (
        "import torch\nfrom torch import nn\n\n\nclass Steps(nn.Linear):\n"
        "    def __init__(self, input_shape: tuple[int, ...], positions: tuple[int, ...], eta_dim: int) -> None:\n"
        "        super().__init__(input_shape[1], eta_dim)\n"
    )
    (folder / "nets.py").write_text(text, encoding="utf-8")


def test_gaps_and_comparisons_are_over_groups(mlefw: Run, tmp_path: Path) -> None:
    arrays = panel(tmp_path / "d.npz", positions=False)
    for seed in (0, 1):
        more = (f"seed={seed}", f"optimizer.lr=0.0{1 + seed}", "data.id=id", f"run_dir=s/{seed}")
        assert mlefw(*settings("d.npz", *more)).returncode == 0
    first, second = (scores(tmp_path / "s" / str(seed), "test") for seed in (0, 1))
    summaries = [summary_of(tmp_path / "s" / str(seed)) for seed in (0, 1)]
    # The exact estimate on test rows, from its coefficients by hand.
    table = json.loads((tmp_path / "s" / "0" / "baseline.json").read_text(encoding="utf-8"))["coefficients"]
    slopes = {one["name"]: one["estimate"] for one in table["loc"]}
    names = [f"x[0,{i},{j}]" for i in range(3) for j in range(3)]
    mean = slopes["(intercept)"] + arrays["x"].reshape(150, 9) @ [slopes[name] for name in names]
    (sigma,) = (one["estimate"] for one in table["scale"])
    exact = 0.5 * np.log(2 * np.pi * sigma**2) + 0.5 * ((arrays["y"] - mean) / sigma) ** 2
    done = mlefw("predict", "run=s/0", "data.path=d.npz", "output=p.csv")
    assert done.returncode == 0, done.stderr
    nll = np.genfromtxt(tmp_path / "p.csv", delimiter=",", names=True)["nll_nats"]
    held = np.abs(nll[:, None] - first[0]).min(1) < 1e-7
    assert held.sum() == len(first[0])
    difference = (nll - exact)[held]
    gap = summaries[0]["distance"]
    assert gap["gap_nats"]["test"] == pytest.approx(difference.mean(), rel=1e-6)
    error = cluster(difference, np.ones(held.sum()), np.unique(arrays["person"][held], return_inverse=True)[1])
    assert gap["gap_se"]["test"] == pytest.approx(error, rel=1e-6)
    again = evaluated(mlefw, tmp_path, "run=s/0", False)["distance"]
    assert again["gap_se"] == pytest.approx(gap["gap_se"]["test"], rel=1e-9)
    done = mlefw("compare", "runs=s", "split=test")
    assert done.returncode == 0, done.stderr
    worse, better = sorted((first, second), key=lambda one: -one[0].mean())
    error = cluster(worse[0] - better[0], np.ones(len(worse[0])), worse[2])
    assert f"{error:.4f}" in done.stdout.replace("\n", "")
    assert f"{cluster(worse[0] - better[0], np.ones(len(worse[0])), np.arange(len(worse[0]))):.4f}" not in done.stdout


def test_new_rows_have_groups_or_none(mlefw: Run, tmp_path: Path) -> None:
    arrays = panel(tmp_path / "d.npz", positions=False)
    assert mlefw(*settings("d.npz", "run_dir=r")).returncode == 0
    whole = evaluated(mlefw, tmp_path, "run=r", False, "data.path=d.npz")
    assert whole["nll_se_unit"] == "24 groups" and whole["num_observations"] == 150
    assert mlefw("predict", "run=r", "data.path=d.npz", "output=p.csv").returncode == 0
    nll = np.genfromtxt(tmp_path / "p.csv", delimiter=",", names=True)["nll_nats"]
    error = cluster(nll, np.ones(150), np.unique(arrays["person"], return_inverse=True)[1])
    assert whole["metrics"]["nll_se"] == pytest.approx(error, rel=1e-10)
    np.savez(tmp_path / "alone.npz", **{name: arrays[name] for name in ("x", "y", "w")})
    alone = evaluated(mlefw, tmp_path, "run=r", False, "data.path=alone.npz")
    assert alone["nll_se_unit"] == "rows" and "it has no array 'person' (data.group)" in alone["said"]
    assert alone["metrics"]["nll_nats"] == whole["metrics"]["nll_nats"]
    assert alone["metrics"]["nll_se"] == pytest.approx(nll.std(ddof=1) / np.sqrt(150), rel=1e-10)


def test_groups_of_a_table_only_say_how_it_is_split(mlefw: Run, tmp_path: Path) -> None:
    arrays = panel(tmp_path / "d.npz", positions=False)
    lines = ["a,b,y,person"]
    lines += [
        f"{x[0, 1, 1]},{x[0, 0, 0]},{y},{who}"
        for x, y, who in zip(arrays["x"], arrays["y"], arrays["person"], strict=True)
    ]
    (tmp_path / "d.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = ("data=csv", "data.path=d.csv", "data.target=y", "data.group=person")
    assert mlefw("train", *data, "trainer.max_epochs=2", "model=linear", *QUIET, "run_dir=r").returncode == 0
    found = summary_of(tmp_path / "r")
    assert not {"nll_se_unit", "observation", "num_observations", "input_shape"} & found.keys()
    with np.load(tmp_path / "r" / "row_nll.npz") as stored:
        nll = stored["test_nll_nats"]
        assert not [name for name in stored.files if name.endswith("_unit")]
    assert found["metrics"]["test"]["nll_se"] == pytest.approx(nll.std(ddof=1) / np.sqrt(len(nll)), rel=1e-12)


def test_units_of_a_text_are_documents_or_blocks() -> None:
    stream, spans = torch.zeros(900, dtype=torch.uint8), torch.tensor([[0, 500], [500, 900]])
    few = TokenRows(stream, windows(spans, 10), 10)
    many = TokenRows(stream, windows(torch.arange(0, 900, 20)[:, None] + torch.tensor([0, 20]), 10), 10)
    found = units_of(Synthetic(num_rows=10), {}, {"train": few, "test": many})
    assert found["train"].name == "9 blocks" and few.num_rows == 90
    assert torch.equal(found["train"].of_row.bincount(), torch.full((9,), 10))
    assert found["test"].name == "45 documents" and len(found["test"].of_row.unique()) == 45


def test_dependent_positions_are_no_evidence_of_their_own(mlefw: Run, tmp_path: Path) -> None:
    """Rows of nearly equal positions: the coverage of eight of them is chance, that of 1,600 observations is not."""
    plugin(tmp_path)
    random = np.random.default_rng(2)
    x, own = random.normal(size=(40, 200, 1)), random.normal(size=(40, 1))
    np.savez(tmp_path / "d.npz", x=x, y=own + 0.05 * random.normal(size=(40, 200)))
    more = (
        "head=gaussian",
        "model=steps",
        "baseline=none",
        "trainer.max_epochs=20",
        "optimizer.lr=0.05",
        "data.validation_fraction=0",
    )
    arguments = ("data=npz", "data.path=d.npz", *more, *QUIET, "--plugin", "nets", "--config-dir", "conf")
    done = mlefw("train", *arguments, "run_dir=r")
    assert done.returncode == 0, done.stderr
    found = summary_of(tmp_path / "r")
    figures = found["metrics"]["test"]
    assert departures(figures, 1600.0, 6400.0) and not departures(figures, 8.0, 32.0)
    assert "misfit" not in found
    assert "misfit" not in evaluated(mlefw, tmp_path, "run=r", True)


def test_a_row_of_a_series_is_one_unit_of_a_cross_validation(mlefw: Run, tmp_path: Path) -> None:
    plugin(tmp_path)
    panel(tmp_path / "d.npz", positions=True)
    data = ("data=npz", "data.path=d.npz", "data.weight=w", "head=gaussian", "model=steps", "trainer.max_epochs=1")
    arguments = (*data, "cv=kfold", "cv.folds=3", "run_dir=r", *QUIET, "--plugin", "nets", "--config-dir", "conf")
    done = mlefw("train", *arguments)
    assert done.returncode == 0, done.stderr
    assert "nats per position" in done.stdout.replace("\n", " ") and "per row" not in done.stdout
    rows = parquet.read_table(tmp_path / "r" / "rows.parquet").to_pydict()
    nll, weight = np.array(rows["nll_nats"]), np.array(rows["weight"])
    assert sorted(rows["row"]) == list(range(150)) and (weight == 0).sum() == 1
    seen = weight > 0
    found = json.loads((tmp_path / "r" / "cv.json").read_text(encoding="utf-8"))["nll"]
    assert found["nats"] == pytest.approx(np.average(nll[seen], weights=weight[seen]), rel=1e-12)
    error = cluster(nll[seen], weight[seen], np.arange(seen.sum()))
    assert found["naive_se"] == pytest.approx(error, rel=1e-10)


def test_estimates_on_the_last_layer_are_over_groups(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    x, group = random.integers(0, 255, (90, 1, 4, 4)).astype(np.uint8), np.repeat(np.arange(30), 3)
    np.savez(tmp_path / "d.npz", x=x, y=(x.mean((1, 2, 3)) > 127).astype(int), g=group)
    given = ("data=npz", f"data.path={tmp_path / 'd.npz'}", "data.group=g", "head=categorical", "model=cnn")
    more = ("model.channels=[4]", "baseline.features=last_layer", "prior=l2")
    config = settings_of(read_settings("train", [*given, *more], [], []))
    prepared = prepare(config, None)
    objective, data = prepared.estimand.objective, prepared.data
    before = Yardstick(ExactEstimates(prepared.estimand.null), objective, data.splits, data.units)
    after = at_end(config, prepared, before)
    rows, unit = data.splits["train"], data.units["train"].of_row.numpy()
    null = evaluate(after.null, rows).nll.numpy()
    gap = null - after.at_reference("train", rows).nll.numpy()
    residual = np.array([(gap[unit == one] - gap.mean()).sum() for one in np.unique(unit)])
    error = np.sqrt(len(residual) / (len(residual) - 1) * (residual**2).sum()) / len(gap)
    assert after.null_gap["train"] == pytest.approx((gap.mean(), error), rel=1e-10)
