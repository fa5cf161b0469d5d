"""Rows beyond all training rows by orders of magnitude are named once, and told to whoever judges the figures."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlefw.configuration.read import read_settings, settings_of
from mlefw.run.build import Data, build_data

N = 60


def table(**cells: tuple[int, float]) -> dict[str, np.ndarray]:
    """Ordinary rows, in which some cells are replaced: (row, value) by column."""
    random = np.random.default_rng(5)
    columns = {"x": random.normal(size=N), "c": np.repeat([0.0, 1.0], N // 2), "o": random.normal(size=N)}
    columns["y"] = columns["x"] + random.normal(size=N)
    for name, (row, value) in cells.items():
        columns[name][row] = value
    return columns


def write(file: Path, columns: dict[str, np.ndarray]) -> str:
    lines = [",".join(columns), *(",".join(map(repr, map(float, row))) for row in zip(*columns.values(), strict=True))]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def built(folder: Path, train: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> Data:
    settings = [f"data.path={write(folder / 'a.csv', train)}", f"data.test_path={write(folder / 'b.csv', test)}"]
    given = ["data=csv", "data.target=y", "data.offset=o", "data.validation_fraction=0", "head=gaussian", *settings]
    return build_data(settings_of(read_settings("train", given, [], ())))


@pytest.mark.filterwarnings("ignore:.*integers above 2")
@pytest.mark.parametrize("name", ["x", "y", "o", "c"])
@pytest.mark.parametrize("value", [1e30, -1e30, 9999999.0, 1e300])
def test_a_value_far_out_is_named(tmp_path: Path, name: str, value: float) -> None:
    if name == "y" and abs(value) > 1e100:
        pytest.skip("a target of this size is refused")
    with pytest.warns(UserWarning, match=rf"b\.csv .*column '{name}', row 9: {value:.6g}".replace("+", r"\+")):
        data = built(tmp_path, table(), table(**{name: (7, value)}))
    assert np.flatnonzero(data.far("test")).tolist() == [7]
    assert not data.far("train").any()
    with pytest.warns(UserWarning, match=rf"a\.csv .*column '{name}', row 9: "):
        data = built(tmp_path, table(**{name: (7, value)}), table())
    assert np.flatnonzero(data.far("train")).tolist() == [7]
    assert not data.far("test").any()


HONEST: dict[str, Any] = {
    "as the others": table(),
    "three times as far": table(x=(3, 9.0), y=(3, -9.0)),
    "ten times as far": table(x=(3, 30.0)),
}


@pytest.mark.parametrize("case", HONEST)
def test_ordinary_rows_are_not(tmp_path: Path, case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = built(tmp_path, table(), HONEST[case])
    assert not data.far("test").any()


@pytest.mark.parametrize("draw", ["standard_cauchy", "lognormal", "sparse"])
def test_heavy_tails_are_no_outlying_training_rows(tmp_path: Path, draw: str) -> None:
    random = np.random.default_rng(1)
    x = {
        "standard_cauchy": random.standard_cauchy(3000),
        "lognormal": random.lognormal(0, 2, 3000),
        "sparse": (np.arange(3000) == 17).astype(float),
    }[draw]
    columns = {"x": x, "z": random.normal(size=3000), "o": np.zeros(3000), "y": random.normal(size=3000)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = built(tmp_path, columns, table() | {"z": np.zeros(N)})
    assert not data.far("train").any()


def test_the_message_is_bounded_and_said_once(tmp_path: Path) -> None:
    train, test = ({f"x{k}": np.random.default_rng(k + s).normal(size=N) for k in range(20)} for s in (0, 100))
    for columns in (train, test):
        columns |= {"o": np.zeros(N), "y": np.sin(np.arange(N))}
    for name in list(test)[:20]:
        test[name][:50] = 1e30
    with pytest.warns(UserWarning) as said:
        built(tmp_path, train, test)
    assert len(said) == 1
    assert "rows 2, 3, 4, 5, 6 and 45 more" in str(said[0].message)
    assert "17 more columns" in str(said[0].message)
    assert len(str(said[0].message)) < 1000


@pytest.mark.filterwarnings("default")
def test_new_rows_far_out_are_named(tmp_path: Path) -> None:
    from mlefw.fit import fit

    quick = ("model=linear", "trainer.max_epochs=2", "report=false", "plots=false", "logger=none")
    columns = {name: values for name, values in table().items() if name in ("x", "y")}
    model = fit(columns, "y", *quick, run_dir=tmp_path / "run")
    for door in (model.predict, model.evaluate):
        with pytest.warns(UserWarning, match=r"column 'x', row 2: 1e\+06"):
            door({"x": [0.0, 1.0, 1e6 + 0.5], "y": [0.0, 1.0, 0.5]})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            door({"x": [0.0, 1.0, 3.0], "y": [0.0, 1.0, 0.5]})


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_rows_far_out_in_many_blocks_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    from mlefw.cli import run
    from mlefw.reading.csv_blocks import read_blocks
    from mlefw.trained import load

    monkeypatch.chdir(tmp_path)
    random, num_rows = np.random.default_rng(2), 3000
    train = {"x": random.normal(size=num_rows), "y": random.normal(size=num_rows)}
    new = {name: values.copy() for name, values in train.items()}
    places = np.sort(random.choice(num_rows, 40, replace=False))
    new["x"][places] = 12345.5
    (tmp_path / "folder").mkdir()
    csv.write_csv(pa.table(train), "train.csv")
    csv.write_csv(pa.table(new), "new.csv")
    parquet.write_table(pa.table(new), "new.parquet", row_group_size=100)
    for start in range(0, num_rows, 1000):
        csv.write_csv(pa.table(new).slice(start, 1000), f"folder/p{start:04}.csv")
    monkeypatch.setattr(read_blocks, "__defaults__", (4000,))
    monkeypatch.setattr("mlefw.data.parquet.BLOCK_CELLS", 200)
    monkeypatch.setattr("mlefw.run.from_memory.BLOCK_ROWS", 100)
    quick = ("model=linear", "trainer.max_epochs=1", "report=false", "plots=false", "logger=none", "run_dir=r")
    assert run(["train", "data=csv", "data.path=train.csv", "data.target=y", *quick]) == 0
    path = "folder" if kind == "folder" else f"new.{kind}"
    for way in (["evaluate"], ["predict", "output=p.csv"], ["predict", "output=q.csv", "uncertainty=laplace"]):
        capsys.readouterr()
        assert run([*way, "run=r", f"data.path={path}"]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "far beyond" in line]
        assert len(lines) == 1, lines
        assert "and 35 more: 12345.5" in lines[0]
        assert ("p0000.csv and 2 more has" in lines[0]) == (kind == "folder")
        if kind != "folder":
            named = [int(number) for number in lines[0].split("rows ")[1].split(" and")[0].split(", ")]
            assert named == [int(place) + (2 if kind == "csv" else 0) for place in places[:5]]
    with pytest.warns(UserWarning, match="and 35 more: 12345.5") as said:
        load("r").predict(new)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("rows", "share", "words"), [(2, 0.2, "fraction=0.2 of 2 rows"), (20, 0.01, "0.01 of 20 rows")]
)
def test_a_share_that_is_no_row_is_said(tmp_path: Path, rows: int, share: float, words: str) -> None:
    path = write(tmp_path / "a.csv", {"x": np.arange(rows) / 2, "y": np.arange(rows) * 2.0})
    given = [
        "data=csv",
        f"data.path={path}",
        "data.target=y",
        f"data.validation_fraction={share}",
        "data.test_fraction=0",
    ]
    with pytest.warns(UserWarning, match=words):
        data = build_data(settings_of(read_settings("train", given, [], ())))
    assert set(data.splits) == {"train"}
