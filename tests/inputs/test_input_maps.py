"""Input maps: their rules, their numbers against plain numpy, and a run that has one."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import summary_of
from interrupted import assert_same_run, train
from pyarrow import parquet

from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, learn, quantiles
from mlefw.inputs.clipped import Clipped
from mlefw.inputs.piecewise_linear import PiecewiseLinear
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized, feature_statistics
from mlefw.rows.stored import Store, StoredRows
from mlefw.run import archive
from mlefw.run.checkpoint import load
from mlefw.testing.inputs import check_inputs
from mlefw.training import datamodule

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = ("model.hidden=[6]", "trainer.max_epochs=3", "logger=none", "report=false", "plots=false")


def awkward(num_rows: int = 400) -> np.ndarray:
    """A normal column, one far from zero, an outlier, a constant, two and four values, a rare level, mostly zeros."""
    random = np.random.default_rng(0)
    columns = [
        random.normal(size=num_rows),
        1e9 + random.exponential(size=num_rows),
        np.where(np.arange(num_rows) == 7, 1e6, random.normal(size=num_rows)),
        np.full(num_rows, 3.0),
        random.integers(0, 2, num_rows),
        random.integers(0, 4, num_rows),
        np.arange(num_rows) == 3,
        np.where(random.random(num_rows) < 0.9, 0.0, random.random(num_rows)),
    ]
    return np.stack([np.asarray(column, dtype=float) for column in columns], 1)


def rows(x: np.ndarray, weight: np.ndarray | None = None) -> Rows:
    ones = torch.ones(len(x), dtype=torch.float64)
    return Rows(torch.from_numpy(x), ones, ones if weight is None else torch.from_numpy(weight), 0 * ones)


def learnt(inputs: Inputs, given: Rows) -> Standardized:
    """A map before a model that hands its inputs on."""
    mean, scale = feature_statistics(given, standardize=True)
    learn(inputs, given, mean, scale)
    return Standardized(torch.nn.Identity(), mean, scale, inputs)


def standard(x: np.ndarray) -> np.ndarray:
    spread = x.std(0)
    return (x - x.mean(0)) / np.where(spread > 1e-12 * np.abs(x.mean(0)), spread, 1.0)


@pytest.mark.parametrize("kind", [Clipped, PiecewiseLinear])
@pytest.mark.parametrize("settings", [{}, {"tail": 0.0}, {"tail": 0.1}, {"tail": 0.1, "soft": True}])
def test_every_map_keeps_the_rules(kind: type, settings: dict[str, float]) -> None:
    x = torch.from_numpy(standard(awkward(60)))
    check_inputs(kind(x.shape[1], **settings), x)
    if kind is PiecewiseLinear:
        check_inputs(PiecewiseLinear(x.shape[1], bins=3, **settings), x)


def test_quantiles_are_those_of_numpy() -> None:
    random = np.random.default_rng(1)
    x, weight = random.normal(size=(50, 3)).round(1), random.integers(1, 5, 50).astype(float)
    p = np.array([0, 0.001, 0.1, 0.25, 0.5, 0.77, 1])
    expected = np.quantile(x, p, axis=0, weights=weight, method="inverted_cdf")
    found = quantiles(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(p))
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("soft", [True, False])
def test_bounds_are_quantiles_and_a_rare_level_is_kept(soft: bool) -> None:
    x = awkward(4000)
    z = standard(x)
    low, high = np.quantile(z, [0.001, 0.999], axis=0, method="inverted_cdf")
    found = learnt(Clipped(8, soft=soft), rows(x))(torch.from_numpy(x)).numpy()
    held = z.clip(low, high)
    expected = held + soft * (z - held) / (1 + np.abs(z - held))
    for column in (0, 1, 2, 3, 4, 5, 7):
        np.testing.assert_allclose(found[:, column], expected[:, column], rtol=1e-6, atol=1e-9)
    # One row of 4000 is of this level: both quantiles are those of the others.
    assert low[6] == high[6]
    np.testing.assert_allclose(found[:, 6], z[:, 6], rtol=1e-9)
    assert abs(found[7, 2]) < 10 < z[7, 2]
    far = learnt(Clipped(8, soft=soft), rows(x))(torch.from_numpy(1e6 * x)).numpy()
    assert np.abs(far - found).max() < 1e3


def test_the_code_is_that_of_a_loop_over_columns() -> None:
    x = awkward()
    z = standard(x)
    low, high = np.quantile(z, [0.001, 0.999], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(low, z.min(0), "fewer than 1000 rows: the bounds are the range")
    blocks = [z.clip(low, high)]
    for column in z.T:
        edges = np.unique(np.quantile(column, np.linspace(0, 1, 17), method="inverted_cdf"))
        if len(edges) > 2:
            pairs = itertools.pairwise(edges)
            blocks.append(np.stack([((column - a) / (b - a)).clip(0, 1) for a, b in pairs], 1))
    expected = np.concatenate(blocks, 1)
    # Of few values few bins: three of four values, one or two where nine in ten are zero.
    assert [block.shape[1] for block in blocks[1:]][:3] == [16, 16, 16]
    assert blocks[4].shape[1] == 3
    assert len(blocks) == 6, "a constant, two values and a rare level have no code"
    whole = learnt(PiecewiseLinear(8), rows(x))
    found = whole(torch.from_numpy(x)).numpy()
    assert whole.num_inputs == found.shape[1] == expected.shape[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_an_offset_changes_no_input() -> None:
    random = np.random.default_rng(2)
    # Whole numbers of 2^-10: they are the same numbers at 2^30.
    x = (random.normal(size=(300, 2)) * 1024).round() / 1024
    near, far = (learnt(PiecewiseLinear(2), rows(x + at))(torch.from_numpy(x + at)).numpy() for at in (0, 2.0**30))
    np.testing.assert_allclose(far, near, atol=1e-4)


def test_rows_of_weight_zero_say_nothing() -> None:
    x, weight = awkward(), np.ones(400)
    weight[[3, 7]] = 0
    some = np.flatnonzero(weight)
    one, other = learnt(PiecewiseLinear(8), rows(x, weight)), learnt(PiecewiseLinear(8), rows(x[some]))
    torch.testing.assert_close(one(torch.from_numpy(x)), other(torch.from_numpy(x)), rtol=1e-6, atol=1e-9)


def test_rows_in_a_store_are_learnt_from_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = awkward()
    memory, stored = rows(x), StoredRows(*rows(x))
    stored.store = Store(str(tmp_path))
    found = [learnt(PiecewiseLinear(8), part)(memory.x) for part in (memory, stored)]
    assert torch.equal(*found)
    # Of too many numbers every other row: the map is that of these rows.
    monkeypatch.setattr("mlefw.inputs.base._MAX_CELLS", x.size // 2)
    mean, scale = feature_statistics(memory, standardize=True)
    half, all_of_half = PiecewiseLinear(8), PiecewiseLinear(8)
    learn(half, stored, mean, scale)
    monkeypatch.undo()
    learn(all_of_half, memory.take(slice(None, None, 2)), mean, scale)
    assert half.state_dict().keys() == all_of_half.state_dict().keys()
    assert all(torch.equal(value, all_of_half.state_dict()[name]) for name, value in half.state_dict().items())


@pytest.mark.parametrize("setting", ["tail=0.5", "tail=-0.1", "bins=1", "bins=0"])
def test_settings_that_mean_nothing_are_refused(setting: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "inputs=piecewise_linear", f"inputs.{setting}"]) == 2
    assert f"inputs.{setting}" in capfd.readouterr().err


def test_the_standardised_features_leave_no_trace(tmp_path: Path) -> None:
    assert train(*QUICK, "inputs=standard", f"run_dir={tmp_path / 'r'}") == 0
    assert "inputs" not in summary_of(tmp_path / "r")
    names = archive.read(tmp_path / "r" / "checkpoints" / "best.ckpt")["state_dict"]
    assert not [name for name in names if "inputs" in name]


@pytest.mark.parametrize("replay", ["true", "false"])
def test_inputs_kept_and_computed_anew_in_each_batch_are_the_same(
    replay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*QUICK, "inputs=piecewise_linear", "checkpoint.min_seconds=0")
    assert train(*settings, f"run_dir={tmp_path / 'kept'}") == 0
    monkeypatch.setattr(datamodule, "MAX_INPUTS", 0)
    assert train(*settings, f"step.replay={replay}", f"run_dir={tmp_path / 'anew'}") == 0
    assert_same_run(tmp_path / "kept", tmp_path / "anew")


def test_a_checkpoint_takes_raw_features(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    assert train(*QUICK, "inputs=piecewise_linear", f"run_dir={folder}") == 0
    summary = summary_of(folder)
    # Nine features of the diabetes data have 16 bins or a few less; the sex has none.
    assert summary["inputs"]["method"] == "piecewise_linear"
    assert 10 + 8 * 16 <= summary["inputs"]["num_inputs"] <= 10 + 9 * 16
    model = load(folder).objective.model
    assert model.num_inputs == summary["inputs"]["num_inputs"]
    assert run(["evaluate", f"run={folder}", f"output={tmp_path / 'e.json'}"]) == 0
    assert f"{summary['metrics']['test']['nll_nats']:.4f}" in capfd.readouterr().out


def test_a_position_that_no_feature_has_is_refused(tmp_path: Path) -> None:
    assert train(*QUICK, "inputs=piecewise_linear", f"run_dir={tmp_path / 'r'}") == 0
    content = archive.read(tmp_path / "r" / "checkpoints" / "best.ckpt")
    content["state_dict"]["objective.model.inputs.column"][0] = 99
    archive.write(tmp_path / "x.ckpt", content)
    with pytest.raises(UsageError, match=r"x\.ckpt: the checkpoint does not describe a model"):
        load(tmp_path / "x.ckpt")
    del content["state_dict"]["objective.model.inputs.column"]
    archive.write(tmp_path / "x.ckpt", content)
    with pytest.raises(UsageError, match=r"x\.ckpt: the stored 'column' is none of PiecewiseLinear"):
        load(tmp_path / "x.ckpt")


def test_a_linear_model_of_a_code_has_no_coefficients_to_compare(tmp_path: Path) -> None:
    for inputs in ("standard", "clipped", "piecewise_linear"):
        settings = ("model=linear", *QUICK[1:], f"inputs={inputs}", f"run_dir={tmp_path / inputs}")
        assert train(*settings) == 0
    has = {path.name: "mahalanobis" in str(summary_of(path)["distance"]) for path in tmp_path.iterdir()}
    assert has == {"standard": True, "clipped": False, "piecewise_linear": False}
    bases = [summary_of(path)["baseline"]["train"] for path in tmp_path.iterdir()]
    assert bases[0] == bases[1] == bases[2], "the exact estimate keeps the features"


def test_a_model_that_starts_at_the_linear_estimate_asks_for_the_features(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "model=residual", "inputs=clipped"]) == 2
    assert "expected inputs=standard in place of inputs=clipped" in capfd.readouterr().err


@pytest.mark.parametrize("weights", ["last_layer", "full"])
def test_uncertainty_of_the_parameters_goes_through_the_map(weights: str, tmp_path: Path) -> None:
    settings = ("inputs=piecewise_linear", "inputs.bins=3", "model.hidden=[3]", *QUICK[1:], "prior=l2")
    assert train(*settings, "uncertainty=laplace", f"uncertainty.weights={weights}", f"run_dir={tmp_path / 'r'}") == 0
    summary = summary_of(tmp_path / "r")
    assert summary["laplace"]["test"]["nll_nats"] == pytest.approx(summary["metrics"]["test"]["nll_nats"], abs=0.2)


def test_a_run_from_files_has_the_figures_of_one_in_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(300, 2))
    file = tmp_path / "d.parquet"
    parquet.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "y": np.abs(x[:, 0])}), file)
    for stream in ("true", "false"):
        data = ("data=parquet", f"data.path={file}", "data.target=y", f"data.stream={stream}")
        assert train(*QUICK, *data, "inputs=piecewise_linear", f"run_dir={tmp_path / stream}") == 0
    one, other = (summary_of(tmp_path / stream)["metrics"]["test"]["nll_nats"] for stream in ("true", "false"))
    assert one == pytest.approx(other, rel=1e-7)
