"""The schema: roles, codes and levels, and what a table that does not fit is told."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.errors import UsageError
from mlefw.reading.table import Table
from mlefw.schema.schema import Schema
from mlefw.schema.target import TargetKind


@dataclass(kw_only=True)
class Given(Source):
    """Rows given as lists."""

    target: str | None = "y"
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def read(self) -> Table:
        """The lists as columns; strings as objects."""
        return make(self.columns)


def make(columns: dict[str, list[Any]]) -> Table:
    arrays = {}
    for name, values in columns.items():
        kind = {str: object, bool: bool}.get(type(values[0]), np.float64)
        arrays[name] = np.array(values, dtype=kind)
    return Table(arrays, "rows", first_row=2)


def learn(columns: dict[str, list[Any]], kind: TargetKind = "numeric", **settings: Any) -> Schema:
    source = Given(columns=columns, **settings)
    return Schema.learn(source.read(), source, kind)


COLUMNS: dict[str, list[Any]] = {
    "x": [0.5, 1.5, 2.5, 3.5],
    "c": ["b", "a", "c", "a"],
    "b": [True, False, False, True],
    "w": [1, 2, 0, 1],
    "o": [0.25, 0, 0, 1],
    "e": [1, np.e, 1, np.e],
    "y": [1, 2, 3, 4],
}


def test_codes_every_role() -> None:
    schema = learn(COLUMNS, weight="w", offset="o", exposure="e")
    assert schema.names == ["x", "c=b", "c=c", "b=True"]
    assert schema.num_features == 4
    rows = schema.rows(make(COLUMNS), log_link=True)
    assert rows.x.tolist() == [[0.5, 1, 0, 1], [1.5, 0, 0, 0], [2.5, 0, 1, 0], [3.5, 0, 0, 1]]
    assert rows.y.tolist() == [1, 2, 3, 4]
    assert rows.weight.tolist() == [1, 2, 0, 1]
    torch.testing.assert_close(rows.offset, torch.tensor([0.25, 1, 0, 2], dtype=torch.float64))
    assert {column.dtype for column in rows} == {torch.float64}


def test_defaults() -> None:
    rows = learn({"x": [1, 2], "y": [3, 4]}).rows(
        make({"y": [5, 6, 7], "x": [1, 2, 3], "z": [0, 0, 0]}), log_link=False
    )
    assert rows.x.tolist() == [[1], [2], [3]]
    assert rows.y.tolist() == [5, 6, 7]
    assert rows.weight.tolist() == [1, 1, 1]
    assert rows.offset.tolist() == [0, 0, 0]


def test_features_in_the_order_named() -> None:
    assert learn(COLUMNS, features=["b", "x"]).names == ["b=True", "x"]


LEVELS = [
    (["b", "a", "b"], {}, ["f=b"]),
    (["10", "9", "9"], {}, ["f=10"]),
    (["1", "01", "2"], {}, ["f=1", "f=2"]),
    ([10, 9, 2.5], {"categorical": ["f"]}, ["f=9", "f=10"]),
    ([True, True, False], {"categorical": ["f"]}, ["f=True"]),
]


@pytest.mark.parametrize(("column", "settings", "expected"), LEVELS)
def test_levels(column: list[Any], settings: dict[str, Any], expected: list[str]) -> None:
    assert learn({"f": column, "y": [1, 2, 3]}, **settings).names == expected


TARGETS: list[tuple[TargetKind, list[Any], tuple[str, ...] | None, list[float], torch.dtype]] = [
    ("numeric", [1.5, 2], None, [1.5, 2], torch.float64),
    ("numeric", [True, False], None, [1, 0], torch.float64),
    ("binary", [1, 0], ("0", "1"), [1, 0], torch.float64),
    ("binary", [1, 1], ("0", "1"), [1, 1], torch.float64),
    ("binary", [True, False], ("False", "True"), [1, 0], torch.float64),
    ("binary", ["yes", "no"], ("no", "yes"), [1, 0], torch.float64),
    ("labels", [0, 5, 2], ("0", "2", "5"), [0, 2, 1], torch.int64),
    ("labels", [10, 9, 9.5], ("9", "9.5", "10"), [2, 0, 1], torch.int64),
    ("labels", ["10", "9", "9"], ("9", "10"), [1, 0, 0], torch.int64),
    ("labels", ["狐", "cat", "dog"], ("cat", "dog", "狐"), [2, 0, 1], torch.int64),
    ("labels", [True, False], ("False", "True"), [1, 0], torch.int64),
]


@pytest.mark.parametrize(("kind", "target", "labels", "expected", "dtype"), TARGETS)
def test_targets(
    kind: TargetKind, target: list[Any], labels: tuple[str, ...] | None, expected: list[float], dtype: torch.dtype
) -> None:
    columns = {"x": [float(i) for i in range(len(target))], "y": target}
    schema = learn(columns, kind)
    rows = schema.rows(make(columns), log_link=False)
    assert schema.labels == labels
    assert rows.y.tolist() == expected
    assert rows.y.dtype == dtype


BAD_TARGETS: list[tuple[TargetKind, list[Any], list[str]]] = [
    ("numeric", ["abc", "def", "ghi"], ["'y'", "row", "'abc'", "head=categorical"]),
    ("numeric", ["no", "yes", "no"], ["head=bernoulli"]),
    ("numeric", ["1", "2", "three"], ["row 4", "'three'"]),
    ("numeric", [1, 2, np.nan], ["row 4", "nan", "finite"]),
    ("binary", [0, 1, 0, 1.5], ["'y'", "1.5", "row 5"]),
    ("binary", [-1, 1, 1], ["row 2", "-1", "recode"]),
    ("binary", [1, 2, 1], ["row 3", "holds 2", "recode"]),
    ("binary", [0, 1, 2], ["row 4", "head=categorical"]),
    ("binary", ["a", "b", "c"], ["3 labels", "'c' in row 4", "head=categorical"]),
    ("binary", ["a", "a"], ["1 labels", "expected: two labels"]),
    ("labels", [1, 1], ["one label", "'1'"]),
    ("labels", [i + 0.5 for i in range(101)], ["101 distinct", "head=gaussian"]),
]


@pytest.mark.parametrize(("kind", "target", "expected"), BAD_TARGETS)
def test_refuses_targets(kind: TargetKind, target: list[Any], expected: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        learn({"x": [float(i) for i in range(len(target))], "y": target}, kind)
    assert [part for part in expected if part not in str(caught.value)] == []


BAD_ROLES = [
    ({"target": "Y"}, ["'Y' (data.target)", "'y'"]),
    ({"target": None}, ["data.target is not set", "'x'"]),
    ({"target": "yy"}, ["did you mean 'y'"]),
    ({"features": ["x", "xx"]}, ["'xx' (data.features)", "did you mean 'x'"]),
    ({"features": ["x", "y"]}, ["'y' in data.features is the target"]),
    ({"features": ["x", "x"]}, ["'x' in data.features occurs twice"]),
    ({"weight": "weigth"}, ["'weigth' (data.weight)"]),
    ({"weight": "y"}, ["data.target and data.weight"]),
    ({"offset": "o", "exposure": "o"}, ["data.offset and data.exposure"]),
    ({"categorical": ["w"], "weight": "w"}, ["'w' (data.categorical, not a feature)"]),
]


@pytest.mark.parametrize(("settings", "expected"), BAD_ROLES)
def test_refuses_roles(settings: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        learn(COLUMNS, **settings)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_a_table_with_the_target_alone_has_an_intercept() -> None:
    with pytest.warns(UserWarning, match="no feature"):
        schema = learn({"y": [1, 2]})
    assert schema.rows(make({"y": [1, 2]}), log_link=False).x.shape == (2, 0)


def test_refuses_free_text_as_category() -> None:
    with pytest.raises(UsageError, match=r"'t' has 120 levels in 120 rows"):
        learn({"t": [f"name {i}" for i in range(120)], "y": [float(i) for i in range(120)]})


@pytest.mark.parametrize("column", [[3, 3], ["a", "a"], [True, True]])
def test_constant_features_warn(column: list[Any]) -> None:
    with pytest.warns(UserWarning, match="constant features 'k'"):
        schema = learn({"x": [1, 2], "k": column, "y": [1, 2]})
    assert schema.names[0] == "x"


BAD_ROWS = [
    ({"x": ["1", "2", "q", "4"]}, ["'x'", "row 4", "'q'"]),
    ({"x": [1, np.inf, 1, 1]}, ["'x'", "row 3", "inf", "finite"]),
    ({"c": ["a", "b", "d", "d"]}, ["'c'", "rows 4, 5", "'d'", "known: 'a', 'b', 'c'"]),
    ({"w": [1, 1, 1, -2]}, ["'w' (data.weight)", "-2", "row 5"]),
    ({"w": [1, np.nan, 1, 1]}, ["'w' (data.weight)", "row 3"]),
    ({"w": [0, 0, 0, 0]}, ["'w' (data.weight)", "zero in every row"]),
    ({"e": [1, 1, 0, -1]}, ["'e' (data.exposure)", "rows 4, 5", "positive"]),
    ({"o": ["a", "b", "c", "d"]}, ["'o' (data.offset)", "'a'"]),
    ({"y": ["a", "b", "c", "d"]}, ["'y' (data.target)", "'a'"]),
]


@pytest.mark.parametrize(("change", "expected"), BAD_ROWS)
def test_refuses_rows(change: dict[str, list[Any]], expected: list[str]) -> None:
    schema = learn(COLUMNS, weight="w", offset="o", exposure="e")
    with pytest.raises(UsageError) as caught:
        schema.rows(make({**COLUMNS, **change}), log_link=True)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_refuses_an_unknown_label() -> None:
    schema = learn({"x": [1, 2], "y": ["cat", "dog"]}, "labels")
    with pytest.raises(UsageError, match=r"row 3: 'owl'\n  known: 'cat', 'dog'"):
        schema.rows(make({"x": [1, 2], "y": ["dog", "owl"]}), log_link=False)


def test_exposure_needs_a_log_link() -> None:
    schema = learn(COLUMNS, exposure="e")
    with pytest.raises(UsageError, match=r"data.exposure=e.*log link"):
        schema.rows(make(COLUMNS), log_link=False)


def test_missing_columns_and_the_nearest_present() -> None:
    schema = learn({"height": [1, 2], "width": [1, 3], "y": [1, 2]})
    with pytest.raises(UsageError, match=r"'height'.*did you mean 'hieght'"):
        schema.rows(make({"hieght": [1, 2], "width": [1, 2], "y": [1, 2]}), log_link=False)


@pytest.mark.parametrize(("kind", "target"), [("numeric", [1.0, 2]), ("binary", [0.0, 1]), ("labels", ["a", "b"])])
def test_target_may_be_absent_in_prediction(kind: TargetKind, target: list[Any]) -> None:
    schema = learn({"x": [1, 2], "w": [1, 2], "y": target}, kind, weight="w")
    table = make({"x": [3, 4]})
    rows = schema.rows(table, log_link=False, target_required=False)
    assert rows.x.tolist() == [[3], [4]]
    assert rows.weight.tolist() == [1, 1]
    assert rows.y.tolist() == [-1, -1] if kind == "labels" else bool(rows.y.isnan().all())
    with pytest.raises(UsageError, match=r"'y'"):
        schema.rows(table, log_link=False)


def test_survives_json() -> None:
    schema = learn({**COLUMNS, "y": ["a", "b", "c", "a"]}, "labels", weight="w", offset="o", exposure="e", id="x")
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_levels_of_every_row_so_that_a_split_meets_none_unseen() -> None:
    columns: dict[str, list[Any]] = {"c": [f"level {i}" for i in range(20)], "y": [float(i) for i in range(20)]}
    source = Given(columns=columns, features=["c"])
    table = source.read()
    schema = Schema.learn(table, source, "numeric")
    parts = [schema.rows(part, log_link=False).x for part in source.splits(table).values()]
    assert torch.cat(parts).sum(dim=0).tolist() == [1.0] * 19


def test_reads_new_files_as_training_read_them(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("zip,x,y\n01,1,1\n1,2,2\nA,3,3\n1,4,4\n")
    (tmp_path / "new.csv").write_text("x,zip,note\n5,01,\n6,1,\n")
    source = Csv(path=str(tmp_path / "old.csv"), target="y")
    schema = Schema.learn(source.read(), source, "numeric")
    assert schema.names == ["zip=1", "zip=A", "x"]
    new = schema.reading(Csv(path=str(tmp_path / "new.csv"))).read()
    rows = schema.rows(new, log_link=False, target_required=False)
    assert rows.x.tolist() == [[0, 0, 5], [1, 0, 6]]


ALIKE: dict[str, tuple[dict[str, list[Any]], str]] = {
    "a level and a column": ({"c": ["a", "b", "a", "b"], "c=b": [1.0, 2.0, 4.0, 3.0]}, "'c=b'"),
    "levels of two columns": ({"a": ["a", "b=c", "a", "b=c"], "a=b": ["b", "c", "c", "b"]}, "'a=b=c'"),
    "a boolean and a column": ({"f": [True, False, True, False], "f=True": [1.0, 2.0, 4.0, 3.0]}, "'f=True'"),
    "the intercept": ({"(intercept)": [1.0, 2.0, 4.0, 3.0]}, "'(intercept)'"),
    "a parameter of all rows": ({"(shared)": [1.0, 2.0, 4.0, 3.0]}, "'(shared)'"),
    "an indicator and a column": (
        {"x": [1.0, np.nan, 4.0, 3.0], "x is missing": [1.0, 2.0, 4.0, 2.0]},
        "'x is missing'",
    ),
    "an indicator and a level": ({"x": ["a", "", "b", "a"], "x is missing": [1.0, 2.0, 4.0, 2.0]}, "'x is missing'"),
}


@pytest.mark.parametrize("case", ALIKE)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_design_columns_of_one_name_are_refused(case: str, is_reversed: bool) -> None:
    columns, name = ALIKE[case]
    columns = dict(reversed(columns.items())) if is_reversed else columns
    plain = make({**columns, "y": [1.0, 2.0, 3.0, 5.0]})
    holes = {n: np.array([v != v or v == "" for v in c]) for n, c in columns.items()}
    table = replace(plain, holes={n: hole for n, hole in holes.items() if hole.any()})
    schema = Schema.learn(table, Given(missing="impute"), "numeric")
    with pytest.raises(UsageError) as caught:
        schema.of_training(table, np.arange(4))
    assert f"called {name}" in str(caught.value)
    assert "rename a column" in str(caught.value)
