"""Rows beyond memory: the same run, from files, in memory that hardly grows with them."""

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import Run, summary_of
from pyarrow import parquet
from warm import Started

from mlefw.baseline.distance import paired
from mlefw.batch.base import pieces, shuffled
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import StorageError, UsageError
from mlefw.objective.objective import evaluate
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.rows.stored import Store, StoredRows, memory_limit
from mlefw.run import archive, build, trainer
from tests.interrupted import QUIET, train

N = 700


def columns(num_rows: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=num_rows), random.normal(size=num_rows) + 30
    place = np.array(["north", "south", "west"])[random.integers(0, 3, num_rows)]
    rate = np.exp(0.4 * a + 0.3 * (place == "west"))
    return {
        "a": a,
        "b": b,
        "place": place,
        "open": random.random(num_rows) < 0.4,
        "years": random.uniform(0.5, 2, num_rows),
        "count": random.poisson(rate),
        "y": a - 0.1 * b + random.normal(size=num_rows),
        "kind": np.array(["x", "y", "z"])[(a > 0.3).astype(int) + (a + random.normal(size=num_rows) > 0.8)],
        "twice": random.integers(1, 4, num_rows).astype(float),
    }


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parquet.write_table(pa.table(columns(N)), "t.parquet", row_group_size=100)
    # Groups of a few rows, so that an epoch has several.
    monkeypatch.setattr("mlefw.training.datamodule._ROWS_PER_READ", 32)
    monkeypatch.setattr("mlefw.schema.encode._CELLS", 500)


def settings(target: str, *more: str, stream: bool = True) -> tuple[str, ...]:
    return ("data=parquet", "data.path=t.parquet", f"data.target={target}", f"data.stream={str(stream).lower()}", *more)


CASES = {
    "gaussian": settings("y"),
    "laplace": settings("y", "head=laplace", "data.weight=twice"),
    "poisson": settings("count", "head=poisson", "data.exposure=years"),
    "bernoulli": settings("open", "head=bernoulli", "prior=l2"),
    "categorical": settings("kind", "head=categorical"),
    "lasso": settings("y", "prior=l1", "head=gaussian_fixed"),
    "several": settings("[y,b]", "head=multivariate_gaussian"),
}


def prepared(overrides: tuple[str, ...]) -> tuple[dict[str, Any], build.Data]:
    config = settings_of({**read_settings("train", overrides, [], []), "run_dir": "unused"})
    return config, build.build_data(config)


def in_memory(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("data.stream=false" if item == "data.stream=true" else item for item in overrides)


@pytest.mark.parametrize("name", CASES)
def test_the_schema_and_the_rows_are_those_of_memory(name: str) -> None:
    stored, plain = prepared(CASES[name])[1], prepared(in_memory(CASES[name]))[1]
    assert stored.schema == plain.schema
    assert [*stored.splits] == [*plain.splits]
    for split, rows in stored.splits.items():
        assert isinstance(rows, StoredRows)
        assert not isinstance(plain.splits[split], StoredRows)
        for column, other in zip(rows, plain.splits[split], strict=True):
            assert torch.equal(column, other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_run_in_full_batches_is_the_one_of_memory(name: str) -> None:
    few = ("batch=full", "trainer.max_epochs=3", "model.hidden=[4]", *QUIET)
    for run_dir, overrides in (("stored", CASES[name]), ("plain", in_memory(CASES[name]))):
        assert train(*overrides, *few, f"run_dir={run_dir}") == 0
    exact = [json.loads(Path(run_dir, "baseline.json").read_text("utf-8")) for run_dir in ("stored", "plain")]
    assert exact[0] == exact[1]
    found, expected = (json.loads(Path(one, "summary.json").read_text("utf-8")) for one in ("stored", "plain"))
    for part in ("metrics", "null", "baseline", "distance"):
        assert flat(found[part]) == pytest.approx(flat(expected[part]), rel=1e-6, abs=1e-9)


def flat(node: Any) -> dict[str, float]:
    if not isinstance(node, dict):
        return {"": float(node)} if isinstance(node, int | float) else {}
    return {f"{key}.{rest}": value for key, part in node.items() for rest, value in flat(part).items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("regime", ["mini", "growing", "replacement"])
def test_a_run_goes_on_where_it_was_stopped(regime: str) -> None:
    few = (f"batch={regime}", "batch.size=40", "trainer.max_epochs=3", "model.dropout=0.2", "model.hidden=[4]", *QUIET)
    assert train(*CASES["gaussian"], *few, "run_dir=whole") == 0
    assert train(*CASES["gaussian"], *few, "run_dir=part", "trainer.max_steps=15") == 0
    assert train("resume=part", "trainer.max_steps=-1") == 0
    states = [archive.read(Path(one, "checkpoints", "last.ckpt"))["state_dict"] for one in ("whole", "part")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("regime", ["mini", "full"])
def test_processes_share_them(regime: str, mlefw: Run, tmp_path: Path) -> None:
    few = (f"batch={regime}", "trainer.max_epochs=2", "model.hidden=[4]", "trainer.precision=64-true", *QUIET)
    for devices in (1, 2):
        shared = ("trainer.strategy=ddp", f"trainer.devices={devices}", f"run_dir=r{devices}")
        done = mlefw("train", *CASES["gaussian"], *few, *shared)
        assert done.returncode == 0, done.stderr
    one, two = (summary_of(tmp_path / f"r{devices}") for devices in (1, 2))
    assert flat(one["metrics"]) == pytest.approx(flat(two["metrics"]), rel=1e-8)


def test_jobs_of_a_sweep_share_them(mlefw: Run, tmp_path: Path) -> None:
    few = ("trainer.max_epochs=2", "model.hidden=[4]", *QUIET)
    done = mlefw("train", "-m", "seed=1,2,3", *CASES["gaussian"], *few, "run_dir=s")
    assert done.returncode == 0, done.stderr
    assert mlefw("train", *CASES["gaussian"], *few, "seed=2", "run_dir=r").returncode == 0
    (job,) = tmp_path.glob("s/*seed-2")
    assert summary_of(job)["metrics"] == summary_of(tmp_path / "r")["metrics"]


@pytest.mark.filterwarnings("ignore")
def test_rows_that_were_in_files_are_to_be_there_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*CASES["gaussian"], *QUIET, "trainer.max_epochs=1", "model.hidden=[4]", "run_dir=r") == 0
    assert train("resume=r", "trainer.max_epochs=2", "data.stream=false") == 2
    assert "its rows were in files, which have an order of their own: data.stream=true" in capsys.readouterr().err
    assert train("resume=r", "trainer.max_epochs=2") == 0


@pytest.mark.filterwarnings("ignore")
def test_evaluate_and_predict_take_its_run() -> None:
    few = ("trainer.max_epochs=2", "model.hidden=[4]", *QUIET)
    for run_dir, overrides in (("stored", CASES["gaussian"]), ("plain", in_memory(CASES["gaussian"]))):
        assert train(*overrides, *few, "batch=full", f"run_dir={run_dir}") == 0
        assert called("evaluate", f"run={run_dir}", f"output={run_dir}.json") == 0
        assert called("predict", f"run={run_dir}", f"output={run_dir}.csv") == 0
    scores = [json.loads(Path(f"{one}.json").read_text("utf-8"))["metrics"] for one in ("stored", "plain")]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    texts = [Path(f"{one}.csv").read_text("utf-8").splitlines() for one in ("stored", "plain")]
    tables = [[*csv.DictReader(text)] for text in texts]
    assert [row["row"] for row in tables[0]] == [row["row"] for row in tables[1]]
    means = [[float(row["mean"]) for row in table] for table in tables]
    assert means[0] == pytest.approx(means[1], rel=1e-6)


def called(*arguments: str) -> int:
    from mlefw.cli import run

    return run(arguments)


def test_files_that_lie_together_are_one_table() -> None:
    table = parquet.read_table("t.parquet")
    Path("parts").mkdir()
    for number in range(4):
        parquet.write_table(table.slice(number * 200, 200), f"parts/p{number}.parquet")
    some = tuple("data.path=parts" if item.startswith("data.path") else item for item in CASES["poisson"])
    found, expected = prepared(some)[1], prepared(CASES["poisson"])[1]
    assert all(torch.equal(one, other) for one, other in zip(found.train, expected.train, strict=True))


def test_files_of_other_types_are_one_table_where_that_is_safe() -> None:
    table = parquet.read_table("t.parquet")
    first, last = table.slice(0, 300), table.slice(300)
    last = last.set_column(last.column_names.index("count"), "count", last["count"].cast(pa.int16()))
    last = last.set_column(last.column_names.index("twice"), "twice", last["twice"].cast(pa.int64()))
    Path("parts").mkdir()
    parquet.write_table(first, "parts/p0.parquet")
    parquet.write_table(last, "parts/p1.parquet")
    some = tuple("data.path=parts" if item.startswith("data.path") else item for item in CASES["laplace"])
    found, expected = prepared(some)[1], prepared(CASES["laplace"])[1]
    assert found.schema == expected.schema
    assert all(torch.equal(one, other) for one, other in zip(found.train, expected.train, strict=True))
    parquet.write_table(last.set_column(0, "a", pa.array(["text"] * len(last))), "parts/p1.parquet")
    with pytest.raises(UsageError, match="the types of its files differ"):
        prepared(some)


def test_missing_rows_are_dropped() -> None:
    table = columns(N)
    table["a"] = np.where(np.arange(N) % 50 == 3, np.nan, table["a"])
    parquet.write_table(pa.table(table), "t.parquet")
    with pytest.warns(UserWarning, match="14 rows with missing values are dropped"):
        stored = prepared((*CASES["gaussian"], "data.missing=drop"))[1]
    with pytest.warns(UserWarning, match="14 rows"):
        plain = prepared((*in_memory(CASES["gaussian"]), "data.missing=drop"))[1]
    assert sum(rows.num_rows for rows in stored.splits.values()) == N - 14
    assert torch.equal(stored.train.x, plain.train.x)


def test_auto_asks_how_much_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = tuple("data.stream=auto" if item == "data.stream=true" else item for item in CASES["gaussian"])
    assert 10**8 < memory_limit() < 10**14
    for memory, is_stored in ((10**12, False), (N * 9 * 24, True)):
        monkeypatch.setattr("mlefw.data.parquet.memory_limit", lambda memory=memory: memory)
        assert isinstance(prepared(auto)[1].train, StoredRows) == is_stored


# ------------------------------------------------------------------------------------------------- order of rows


@pytest.mark.parametrize("num_rows", [1, 31, 32, 700])
def test_every_row_comes_once_and_near_its_neighbours(num_rows: int) -> None:
    order = torch.cat([*pieces(num_rows, torch.Generator().manual_seed(1), 32)])
    assert torch.equal(order.sort().values, torch.arange(num_rows))
    # Four groups at a time are read.
    starts = [order[start : start + 128].div(32, rounding_mode="floor").unique() for start in range(0, num_rows, 128)]
    # The last group may be short, wherever it comes: from there on a stretch begins a little earlier.
    assert all(len(some) <= 2 * 4 for some in starts)
    assert num_rows < 128 or len(starts[0]) < len(order.div(32, rounding_mode="floor").unique())


def test_batches_of_groups_hold_every_row_once() -> None:
    for size in (1, 7, 40, 128, 129, 700, 1000):
        batches = [*shuffled(N, size, torch.Generator().manual_seed(2), 32)]
        assert torch.equal(torch.cat([index for index, _ in batches]).sort().values, torch.arange(N))
        assert [len(index) for index, _ in batches[:-1]] == [size] * (len(batches) - 1)
        assert {scale for _, scale in batches} == {float(-(-N // size))}


def test_an_epoch_has_its_own_order_and_every_row_once() -> None:
    config, data = prepared((*CASES["gaussian"], "batch.size=50"))
    module = trainer.build_datamodule(config, data, build.head_of(config.head, data.schema.targets))
    epochs = [torch.cat([batch.rows.y for batch in module.batches(epoch)]) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    for order in epochs:
        assert torch.equal(order.sort().values, data.train.y.sort().values)


# ---------------------------------------------------------------------------------------------------- the files


def test_nothing_is_left_in_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    data = prepared((*CASES["gaussian"], f"data.cache={folder}"))[1]
    assert data.train.num_rows == 420
    assert [*folder.iterdir()] == []


def test_a_directory_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a directory that can be written to"):
        prepared((*CASES["gaussian"], "data.cache=nowhere"))


def test_without_room_it_says_where_to_put_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        prepared(CASES["gaussian"])
    assert "data.cache=DIR" in str(caught.value)


def test_a_full_disk_says_so_as_a_column_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"found no room in .*No space left on device"):
        Store().keep(iter([np.zeros(10), np.zeros(5)]))


def test_an_array_that_nobody_uses_leaves_the_disk() -> None:
    store = Store()
    kept, array = store.keep(iter([np.zeros(2), np.zeros(0), np.ones(3)])), store.array((4,))
    assert kept.tolist() == [0, 0, 1, 1, 1]
    assert len(store.maps) == 2
    del array
    assert len(store.maps) == 1


def test_what_is_computed_of_rows_lies_where_they_do() -> None:
    data = prepared(CASES["gaussian"])[1]
    train = data.train
    assert isinstance(train, StoredRows)
    before = len(train.store.maps) if train.store is not None else 0
    objective = build.build_estimand(prepared(CASES["gaussian"])[0], data).objective
    found = evaluate(objective, train)
    assert train.store is not None
    assert len(train.store.maps) == before + 2
    plain = evaluate(objective, Rows(*train))
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_a_part_of_the_rows_is_in_their_store() -> None:
    train = prepared(CASES["gaussian"])[1].train
    part = train.take(slice(0, None, 3))
    assert isinstance(part, StoredRows)
    assert part.store is train.store  # type: ignore[attr-defined]
    assert torch.equal(torch.cat([block.x for block in part.blocks(10)]), torch.cat([*train.x[::3].split(10)]))
    assert not isinstance(train.take(torch.tensor([3, 1])), StoredRows)


def test_sums_over_pieces_of_rows_are_those_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, value = torch.arange(100.0), torch.linspace(-1, 2, 100)
    value[0] = float("inf")
    expected = float(weight[1:] @ value[1:])
    monkeypatch.setattr("mlefw.rows.rows._BLOCK", 7)
    monkeypatch.setattr("mlefw.baseline.distance._PIECE", 9)
    assert float(weighted_sum(weight, value)) == pytest.approx(expected)
    mean, error = paired(value, weight)
    spread = np.cov(value[1:], fweights=weight[1:].int())
    assert (mean, error) == pytest.approx((expected / 4950, (spread / 4950) ** 0.5), rel=1e-5)


def test_pages_that_were_let_go_come_back() -> None:
    store = Store()
    array = store.array((1000, 3))
    array[:] = np.arange(3000).reshape(1000, 3)
    rows = StoredRows(*(torch.from_numpy(part) for part in (array, array[:, 0], array[:, 1], array[:, 2])))
    rows.store = store
    blocks = [*rows.blocks(300)]
    assert [block.num_rows for block in blocks] == [300, 300, 300, 100]
    assert torch.equal(Rows(*map(torch.cat, zip(*blocks, strict=True))).x, torch.arange(3000.0).view(1000, 3).double())


def test_it_is_a_setting_of_parquet_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("a,y\n1,2\n2,3\n3,5\n", "utf-8")
    assert train("data=csv", "data.path=t.csv", "data.target=y", "data.stream=true", "run_dir=r") == 2
    assert "data.stream" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- memory

Start = Callable[..., Started]


def peak_bytes(started: Start, name: str, *overrides: str, command: str = "train") -> int:
    """The most memory of its own that a whole command has taken: pages of files are the system's to take back."""
    few = ("data=parquet", f"data.path={name}", "data.target=y", "report=false", "plots=false")
    process, peak = started(command, *few, *overrides), 0
    status = Path(f"/proc/{process.pid}/status")
    while process.is_alive():
        lines = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("RssAnon")]
        peak = max(peak, *(1024 * int(line.split()[1]) for line in lines), 0)
        time.sleep(0.01)
    assert process.wait().returncode == 0
    return peak


def wide(name: str, num_rows: int, num_features: int = 20) -> None:
    random = np.random.default_rng(0)
    writer = None
    for start in range(0, num_rows, 200_000):
        x = random.normal(size=(min(200_000, num_rows - start), num_features))
        y = np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.3 * random.normal(size=len(x))
        table = pa.table({**{f"x{k}": x[:, k] for k in range(num_features)}, "y": y})
        writer = writer or parquet.ParquetWriter(name, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what is a process's own")
@pytest.mark.parametrize("regime", ["mini", pytest.param("full", marks=pytest.mark.slow)])
def test_memory_grows_by_a_few_numbers_a_row(started: Start, regime: str) -> None:
    small, large = 100_000, 400_000
    wide("small.parquet", small), wide("large.parquet", large)
    few = (f"batch={regime}", "model.hidden=[8]", "trainer.max_epochs=1", "data.stream=true")
    few += ("batch.size=1024",) if regime == "mini" else ("batch.max_rows=20000",)
    peaks = [peak_bytes(started, name, *few, f"run_dir={regime}_{name}") for name in ("small.parquet", "large.parquet")]
    # In memory 570 bytes a row are measured. Here it is 110 (the split, and buffers that grow until there are some
    # millions of rows), and up to 60 more by what threads happen to hold at the peak. The features of a row alone are
    # 160: one copy of them would come to 270.
    assert (peaks[1] - peaks[0]) / (large - small) < 240


@pytest.mark.slow
@pytest.mark.parametrize(("regime", "num_rows"), [("mini", 10_000_000), ("full", 5_000_000)])
def test_the_sizes_that_are_promised(started: Start, regime: str, num_rows: int) -> None:
    wide("huge.parquet", num_rows)
    few = (f"batch={regime}", "trainer.max_epochs=1", "data.stream=true", "run_dir=r")
    few += ("batch.size=1024",) if regime == "mini" else ()
    assert peak_bytes(started, "huge.parquet", *few) <= 3 * num_rows * 20 * 8 + 10**9
    summary = json.loads(Path("r/summary.json").read_text("utf-8"))
    assert summary["status"] == "finished"
    assert sum(summary["num_rows"].values()) == num_rows
