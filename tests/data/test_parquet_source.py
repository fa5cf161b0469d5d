"""Parquet files: which types are read, and which are refused."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlefw.data import parquet
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError


def source(folder: Path, column: Any, name: str = "x", **settings: Any) -> Parquet:
    file = folder / "k=v,1" / "d.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({name: column, "y": pa.array(np.arange(len(column)) * 2.0)}), file)
    return Parquet(path=str(file), target="y", **settings)


READS = {
    "float32": (pa.array([0.5, 2], pa.float32()), [0.5, 2.0], "f"),
    "int8": (pa.array([3, -4], pa.int8()), [3.0, -4.0], "f"),
    "decimal": (pa.array([Decimal("1.25"), Decimal("2.50")]), [1.25, 2.5], "f"),
    "boolean": (pa.array([True, False]), [True, False], "b"),
    "text": (pa.array(["b", "a"]), ["b", "a"], "O"),
    "large text": (pa.array(["b", "a"], pa.large_string()), ["b", "a"], "O"),
    "numbers as text": (pa.array(["01", "1"]), ["01", "1"], "O"),
    "dictionary": (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"], "O"),
    "dictionary of integers, which Parquet keeps as integers": (
        pa.array([10, 2]).dictionary_encode(),
        [10.0, 2.0],
        "f",
    ),
}


@pytest.mark.parametrize("case", READS)
def test_reads(tmp_path: Path, case: str) -> None:
    column, expected, kind = READS[case]
    table = source(tmp_path, column).read()
    assert table.columns["x"].tolist() == expected
    assert table.columns["x"].dtype.kind == kind
    assert table.columns["y"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize("name", ["a.b", "😀", "a b"])
def test_names(tmp_path: Path, name: str) -> None:
    assert source(tmp_path, pa.array([1.0, 5.0]), name).read().columns[name].tolist() == [1.0, 5.0]


BROKEN = {
    "timestamp": (pa.array([datetime.datetime(2020, 1, 1)]), ["'x'", "timestamp"]),
    "date": (pa.array([datetime.date(2020, 1, 1)]), ["'x'", "date32"]),
    "list": (pa.array([[1.0, 2.0]]), ["'x'", "list"]),
    "struct": (pa.array([{"a": 1.0}]), ["'x'", "struct"]),
    "binary": (pa.array([b"a"]), ["'x'", "binary"]),
    "null": (pa.array([1.0, None]), ["'x': 1, row 1", "data.missing=drop"]),
    "nan": (pa.array([1.0, 2.0, np.nan]), ["'x': 1, row 2"]),
    "null text": (pa.array(["a", None]), ["'x': 1, row 1"]),
    "null dictionary": (pa.array(["a", None]).dictionary_encode(), ["'x': 1, row 1"]),
    "infinite": (pa.array([1.0, np.inf]), ["'x'", "infinite", "row 1"]),
    "no rows": (pa.array([], pa.float64()), ["0 data rows"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refuses(tmp_path: Path, case: str) -> None:
    column, expected = BROKEN[case]
    with pytest.raises(UsageError) as caught:
        source(tmp_path, column).read()
    message = str(caught.value)
    assert [part for part in [*expected, "k=v,1/d.parquet"] if part not in message] == []


def test_dates_are_levels_where_listed(tmp_path: Path) -> None:
    column = pa.array([datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)])
    assert source(tmp_path, column, categorical=["x"]).read().columns["x"].tolist() == ["2020-01-02", "2020-01-01"]


def test_identifiers_stay_exact(tmp_path: Path) -> None:
    table = source(tmp_path, pa.array([2**53 + 1, 2**53 + 3]), id="x").read()
    assert table.columns["x"].tolist() == [2**53 + 1, 2**53 + 3]


def test_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="counts the rows"):
        table = source(tmp_path, pa.array([0, 1]), "__index_level_0__").read()
    assert list(table.columns) == ["y"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"x,y\n1,2\n", "data=csv"), (b"", "not a Parquet file"), (b"PAR1junkPAR1", "cannot be read")],
)
def test_refuses_other_files(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "d.parquet"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=expected):
        Parquet(path=str(file), target="y").read()


def test_reads_a_folder_and_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": pa.array([1, 2, 3]), "y": [1.0, 2, 3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"y": [4.0, 5], "x": pa.array([4.5, None])}), tmp_path / "b.parquet")
    whole = Parquet(path=str(tmp_path), target="y", missing="impute").read()
    assert whole.columns["x"][:4].tolist() == [1, 2, 3, 4.5]
    assert whole.holes["x"].tolist() == [False] * 4 + [True]
    assert whole.where(whole.holes["x"]) == "row 1 of b.parquet"
    monkeypatch.setattr(parquet, "BLOCK_CELLS", 4)
    with pytest.warns(UserWarning, match="dropped"):
        blocks = list(Parquet(path=str(tmp_path / "*.parquet"), target="y", missing="drop").read_blocks())
    assert [block.row.tolist() for block in blocks] == [[0, 1], [2], [3]]
    assert np.concatenate([block.table.columns["y"] for block in blocks]).tolist() == [1, 2, 3, 4]
    assert blocks[-1].share == 1
