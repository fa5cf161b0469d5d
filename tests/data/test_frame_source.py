"""Frames and arrays of every kind: missing values, levels and their order, and what no column can be."""

import datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlefw.data.base import Source
from mlefw.data.frame import Frame, as_arrow, offered, with_target
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.schema.schema import Schema
from mlefw.schema.target import TargetKind

needs_polars = pytest.mark.skipif(find_spec("polars") is None, reason="polars is not installed")
Y = [1.0, 2.0, 3.0, 4.5]


def read(data: Any, target: str = "y", **settings: Any) -> Table:
    with offered(rows=as_arrow(data)):
        return Frame(target=target, **settings).read()


def schema(data: Any, target: str = "y", kind: TargetKind = "numeric", **settings: Any) -> Schema:
    return Schema.learn(read(data, target, **settings), Frame(target=target, **settings), kind)


SIZES = ["medium", "small", "large", "small"]
ORDER = ["small", "medium", "large", "huge"]


def dictionary(values: list[str], order: list[str], text: pa.DataType, index: pa.DataType, ordered: bool) -> pa.Array:
    codes = pa.array([order.index(value) for value in values], index)
    return pa.DictionaryArray.from_arrays(codes, pa.array(order, text), ordered=ordered)


def ordered() -> dict[str, Any]:
    """The sizes as every source says that they are in an order."""
    pandas = pd.Categorical(SIZES, categories=ORDER, ordered=True)
    known: dict[str, Any] = {
        "pandas": pd.DataFrame({"x": pandas, "y": Y}),
        "a series of pandas": {"x": pd.Series(pandas), "y": Y},
        "a categorical of pandas": {"x": pandas, "y": Y},
        "arrow": pa.table({"x": dictionary(SIZES, ORDER, pa.string(), pa.int8(), True), "y": Y}),
        "arrow, large": pa.table({"x": dictionary(SIZES, ORDER, pa.large_string(), pa.int32(), True), "y": Y}),
        # What an Enum of polars comes as.
        "arrow, views": pa.table({"x": dictionary(SIZES, ORDER, pa.string_view(), pa.uint8(), True), "y": Y}),
    }
    if find_spec("polars") is not None:
        import polars

        series = polars.Series(SIZES, dtype=polars.Enum(ORDER))
        known |= {"polars": polars.DataFrame({"x": series, "y": Y}), "a series of polars": {"x": series, "y": Y}}
    return known


@pytest.mark.parametrize("source", ordered())
def test_the_order_of_levels_is_that_of_the_source(source: str) -> None:
    data = ordered()[source]
    learnt = schema(data)
    assert learnt.names == ["x=medium", "x=large"]
    rows = learnt.rows(read(data), log_link=False)
    assert rows.x.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    for kind in ("ordered", "labels"):
        target = schema(data, "x", kind)
        assert target.labels == ("small", "medium", "large")
        assert target.rows(read(data, "x"), log_link=False).y.tolist() == [1, 0, 2, 0]
    # What the user states goes before it.
    stated = schema(data, "x", "ordered", labels=["large", "medium", "small"])
    assert stated.labels == ("large", "medium", "small")


def test_the_order_of_two_labels_says_which_is_one() -> None:
    data = pd.DataFrame({"x": Y, "y": pd.Categorical(["b", "a", "a", "b"], categories=["b", "a"], ordered=True)})
    assert schema(data, kind="binary").rows(read(data), log_link=False).y.tolist() == [0, 1, 1, 0]


def test_an_order_survives_a_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": pd.Categorical(SIZES * 50, categories=ORDER, ordered=True), "y": Y * 50})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "d.parquet", row_group_size=30)
    source: Source = Parquet(path=str(tmp_path / "d.parquet"), target="y")
    assert Schema.learn(source.read(), source, "numeric").names == ["x=medium", "x=large"]


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("index", [pa.int8(), pa.uint32(), pa.int64()], ids=str)
def test_dictionaries_without_an_order_are_sorted(text: pa.DataType, index: pa.DataType) -> None:
    table = pa.table({"x": dictionary(SIZES, ORDER, text, index, False), "y": Y})
    assert schema(table).names == ["x=medium", "x=small"]


@needs_polars
def test_columns_of_polars() -> None:
    import polars

    frame = polars.DataFrame(
        {
            "c": polars.Series(["b", "a", "b", "c"], dtype=polars.Categorical),
            "t": ["u", "v", "u", "u"],
            "n": polars.Series([1, 2, 3, 5], dtype=polars.UInt8),
            "d": polars.Series([Decimal("1.5"), Decimal("2.5"), Decimal("0.5"), Decimal("9.5")]),
            "b": [True, False, True, True],
            "y": Y,
        }
    )
    learnt = schema(frame)
    assert learnt.names == ["c=b", "c=c", "t=v", "n", "d", "b=True"]
    assert learnt.rows(read(frame), log_link=False).x[0].tolist() == [1, 0, 0, 1, 1.5, 1]
    holes = frame.with_columns(c=polars.Series(["b", None, "b", "c"], dtype=polars.Categorical))
    with pytest.raises(UsageError, match="column 'c': 1, row 1"):
        read(holes)


def masked(values: Any, hidden: int = 1) -> Any:
    return np.ma.masked_array(values, np.arange(4) == hidden)


MASKED = {
    "a column": lambda: as_arrow({"x": masked([1.0, 1e9, 2.0, 3.0]), "y": Y}),
    "whole numbers": lambda: as_arrow({"x": masked([1, 999, 2, 3]), "y": Y}),
    "text": lambda: as_arrow({"x": masked(np.array(["a", "?", "b", "a"])), "y": Y}),
    "a matrix": lambda: as_arrow(
        np.ma.masked_array([[1.0, 1], [7, 1e9], [2, 2], [3, 4.5]], np.eye(4)[:, :2] * [[0, 1]]), ["y", "x"]
    ),
    "a target": lambda: with_target({"x": Y}, masked([1.0, 1e9, 2.0, 3.0]), "y"),
    "weights": lambda: as_arrow({"x": Y, "y": Y, "w": masked([1.0, 1e9, 2.0, 3.0])}),
    "a structured array": lambda: as_arrow(
        np.ma.masked_array(np.array([(1.0, 2.0)] * 4, [("x", float), ("y", float)]), [(0, 0), (1, 0), (0, 0), (0, 0)])
    ),
    "integers of pandas": lambda: as_arrow(pd.DataFrame({"x": pd.array([1, None, 2, 3], dtype="Int64"), "y": Y})),
    "booleans of pandas": lambda: as_arrow(
        pd.DataFrame({"x": pd.array([True, None, False, True], dtype="boolean"), "y": Y})
    ),
    "floats of pandas": lambda: as_arrow({"x": pd.array([1.5, None, 2, 3], dtype="Float64"), "y": Y}),
    "strings of pandas": lambda: as_arrow(pd.DataFrame({"x": pd.array(["a", None, "b", "a"], dtype="string"), "y": Y})),
    "a categorical of pandas": lambda: as_arrow(pd.DataFrame({"x": pd.Categorical(["a", None, "b", "a"]), "y": Y})),
    "decimals": lambda: as_arrow({"x": np.array([Decimal("1.5"), None, Decimal("2"), Decimal("3")]), "y": Y}),
    "a target of pandas": lambda: with_target({"x": Y}, pd.Series([1, None, 2, 3], dtype="Int64"), "y"),
}


@pytest.mark.parametrize("case", MASKED)
def test_what_is_masked_is_missing(case: str) -> None:
    with offered(rows=MASKED[case]()):
        with pytest.raises(UsageError, match=r"has missing values\n  column '.': 1, row 1"):
            Frame(target="y").read()
        with pytest.warns(UserWarning, match="1 rows with missing values are dropped"):
            assert Frame(target="y", missing="drop").read().num_rows == 3


def test_arrays_of_numpy_and_pandas_are_read_as_they_are() -> None:
    columns = {
        "half": np.array([0.5, 1, 2, 3], np.float16),
        "bytes": np.array([1, 2, 3, 5], np.uint8),
        "flags": np.array([True, False, False, True]),
        "money": np.array([Decimal("1.25"), Decimal("2.5"), Decimal("3"), Decimal("4")]),
        "text": np.array(["b", "a", "b", "b"]),
        "backwards": np.array(Y)[::-1],
        "big-endian": np.array(Y).astype(">f8"),
        "y": Y,
    }
    learnt = schema(columns)
    first = learnt.rows(read(columns), log_link=False).x[0].tolist()
    assert dict(zip(learnt.names, first, strict=True)) == {
        "half": 0.5, "bytes": 1, "flags=True": 1, "money": 1.25, "text=b": 1, "backwards": 4.5, "big-endian": 1,
    }  # fmt: skip


def test_intervals_of_pandas_are_levels_in_their_order() -> None:
    frame = pd.DataFrame({"x": pd.cut([1, 5, 11, 5], [0, 2, 10, 20]), "y": Y})
    assert schema(frame).names == ["x=(2, 10]", "x=(10, 20]"]


REFUSED = {
    "moments": ({"x": np.array(["2020-01-01"] * 4, "datetime64[s]")}, ["'x' holds timestamp", "data.categorical=[x]"]),
    "days": ({"x": [datetime.date(2020, 1, 1)] * 4}, ["'x' holds date32"]),
    "durations": ({"x": pd.Series(pd.to_timedelta([1, 2, 3, 4], unit="h"))}, ["'x' holds duration"]),
    "complex": ({"x": np.array([1j, 2, 3, 4])}, ["cannot be read"]),
    "a matrix as a column": ({"x": np.zeros((4, 2))}, ["column 'x' has shape (4, 2)"]),
    "lists": ({"x": pa.array([[1.0], [2.0], [3.0], [4.0]])}, ["'x' holds list"]),
    "mixed objects": ({"x": np.array([1, "a", 2.5, None], dtype=object)}, ["cannot be read"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_column_can_be_is_refused(case: str) -> None:
    columns, words = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        read({**columns, "y": Y})
    assert [word for word in words if word not in str(caught.value)] == []
