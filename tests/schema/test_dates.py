"""Dates in formulas are days since 1970-01-01, in any source and of new rows; in `C(…)` and groups they are names."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.frame import Frame, as_arrow, offered
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.schema.schema import Schema

RANDOM = np.random.RandomState(4)
NUMBER = 18266 + np.sort(RANDOM.choice(700, 40, replace=False))
DAYS = [date(1970, 1, 1) + timedelta(int(day)) for day in NUMBER]
NOONS = [datetime(one.year, one.month, one.day, 12) for one in DAYS]
Y = (0.01 * NUMBER + RANDOM.normal(size=40)).round(2)
NEW = [date(2020, 6, 1), date(2020, 12, 24)]
OF_NEW = np.array([18414.0, 18620.0])
KINDS = ("csv", "parquet", "frame", "strings")


def source(kind: str, folder: Path, days: list[Any], y: Any = Y, **own: Any) -> Source:
    """The columns y and day as a file, a frame of dates, or a frame of their texts."""
    frame = pd.DataFrame({"y": y, "day": days})
    if kind == "csv":
        frame.to_csv(folder / "rows.csv", index=False)
        return Csv(path=str(folder / "rows.csv"), **own)
    if kind == "parquet":
        parquet.write_table(pa.table({"y": frame["y"], "day": pa.array(days)}), folder / "rows.parquet")
        return Parquet(path=str(folder / "rows.parquet"), **own)
    return Frame(**own)


def read(kind: str, given: Source, days: list[Any], y: Any = Y) -> Table:
    """The table of such a source."""
    written = [None if one is None else one.isoformat() for one in days] if kind == "strings" else days
    with offered(rows=as_arrow({"y": y, "day": pa.array(written)})):
        return given.read()


def learnt(kind: str, folder: Path, term: str, days: list[Any], y: Any = Y, **own: Any) -> tuple[Schema, np.ndarray]:
    """The schema of a formula, and its design columns in the training rows."""
    given = source(kind, folder, days, y, target="y", terms={"loc": term}, **own)
    table = read(kind, given, days, y)
    schema = Schema.learn(table, given, "numeric").of_training(table, np.arange(table.num_rows))
    return Schema.from_dict(schema.to_dict()), schema.rows(table, False).x.numpy()


def new(kind: str, folder: Path, schema: Schema, days: list[Any]) -> np.ndarray:
    """The design columns of new rows, which a model of this schema makes."""
    given = schema.reading(source(kind, folder, days, np.zeros(len(days))), prediction=True)
    return schema.rows(read(kind, given, days, np.zeros(len(days))), False, target_required=False).x.numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("days", "start"), [(DAYS, 0.0), (NOONS, 0.5)])
def test_a_date_is_its_number_of_days(kind: str, days: list[Any], start: float, tmp_path: Path) -> None:
    schema, x = learnt(kind, tmp_path, "day + I((day - 18266)/365.25)", days)
    np.testing.assert_allclose(x.T, [NUMBER + start, (NUMBER + start - 18266) / 365.25], rtol=1e-15)
    assert schema.names[0] == "day"
    # New rows may come in another way, with or without a time of day.
    for other in KINDS:
        np.testing.assert_array_equal(new(other, tmp_path, schema, NEW)[:, 0], OF_NEW)
        with_hours = [datetime(one.year, one.month, one.day, 6) for one in NEW]
        np.testing.assert_array_equal(new(other, tmp_path, schema, with_hours)[:, 0], OF_NEW + 0.25)


@pytest.mark.parametrize("term", ["bs(day, df=4)", "poly(day, 2)", "s(day)", "log(day)", "cr(day, df=4)", "."])
def test_terms_of_dates_are_those_of_the_numbers(term: str, tmp_path: Path) -> None:
    schema, x = learnt("csv", tmp_path, term, DAYS)
    numbers, same = learnt("csv", tmp_path, term, list(map(float, NUMBER)))
    np.testing.assert_array_equal(x, same)
    of_numbers = new("csv", tmp_path, numbers, OF_NEW.tolist())
    np.testing.assert_array_equal(new("parquet", tmp_path, schema, NEW), of_numbers)


@pytest.mark.parametrize("term", ["C(day)", "(1 | day)"])
@pytest.mark.parametrize("kind", KINDS)
def test_as_categories_and_groups_dates_are_names(term: str, kind: str, tmp_path: Path) -> None:
    days = [NEW[k % 2] for k in range(10)]
    schema, x = learnt(kind, tmp_path, term, days, np.arange(10.0))
    assert "2020-12-24" in schema.names[-1]
    np.testing.assert_array_equal(x[:, -1], np.arange(10) % 2)
    np.testing.assert_array_equal(new("csv", tmp_path, schema, NEW)[:, -1], [0, 1])


def test_the_column_of_times_may_be_a_term(tmp_path: Path) -> None:
    given = source("csv", tmp_path, DAYS, target="y", terms={"loc": "day"}, time="day", test_fraction=0.25)
    parts = given.splits(given.read())
    assert parts["train"].columns["day"].max() < parts["test"].columns["day"].min()
    np.testing.assert_array_equal(np.sort(np.concatenate([one.columns["day"] for one in parts.values()])), NUMBER)


@pytest.mark.parametrize("role", ["cluster", "group"])
def test_a_term_keeps_its_type_where_it_names_clusters_or_groups(role: str, tmp_path: Path) -> None:
    schema, x = learnt("csv", tmp_path, "day", DAYS, **{role: "day"})
    assert schema.names == ["day"]
    np.testing.assert_array_equal(x[:, 0], NUMBER)


def test_missing_dates_are_filled_by_their_mean(tmp_path: Path) -> None:
    days = [None, *DAYS[1:]]
    for kind in KINDS:
        _, x = learnt(kind, tmp_path, "day", days, missing="impute")
        assert x[0, 0] == pytest.approx(NUMBER[1:].mean())
        with pytest.raises(UsageError, match=r"missing values\n  column 'day'"):
            learnt(kind, tmp_path, "day", days)


def test_what_is_no_date_is_refused(tmp_path: Path) -> None:
    schema, _ = learnt("csv", tmp_path, "bs(day, df=4)", DAYS)
    with pytest.raises(UsageError, match=r"'day' holds no dates, and in training it did\n  expected: dates, such as"):
        new("csv", tmp_path, schema, [18300.0, 18400.0])
    with pytest.raises(UsageError, match=r"from 2020-02-16 to 2021-11-27 alone; outside lies row 3"):
        new("csv", tmp_path, schema, [NEW[0], date(2030, 1, 1)])
    wrong = [*map(str, DAYS[1:]), "2020-13-45"]
    with pytest.raises(
        UsageError, match=r"'day' holds dates, and what is none\n  row 41: '2020-13-45'\n  expected: dates"
    ):
        source("csv", tmp_path, wrong, target="y", terms={"loc": "day"}).read()
    numbers, _ = learnt("csv", tmp_path, "day", list(map(float, NUMBER)))
    with pytest.raises(UsageError, match="'day'"):
        new("parquet", tmp_path, numbers, NEW)
    with pytest.raises(UsageError, match="as a number of days: a formula with the term day"):
        source("csv", tmp_path, DAYS, target="y").read()
