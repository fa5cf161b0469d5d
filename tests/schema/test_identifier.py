"""Row numbers and keys are no features, unless they are listed; what only looks like one is kept."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlefw.data.csv import Csv
from mlefw.errors import UsageError
from mlefw.schema.schema import Schema

N = 40
COUNT = np.arange(1, N + 1)
SHUFFLED = np.random.default_rng(0).permutation(COUNT)
OTHER = np.random.default_rng(1).normal(size=N).round(2)


def names(folder: Path, column: str, cells: Any, num_rows: int = N, others: bool = True, **settings: Any) -> list[str]:
    """The design columns of a table with a column of some name, which may be refused."""
    header = [column, *(["x"] if others else []), "y", *(["w"] if "weight" in settings else [])]
    numbers = [*([OTHER] if others else []), OTHER[::-1] * 2, *([COUNT] if "weight" in settings else [])]
    rows = zip(list(cells)[:num_rows], *(n[:num_rows] for n in numbers), strict=True)
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    (folder / "d.csv").write_text("\n".join(lines) + "\n")
    source = Csv(path=str(folder / "d.csv"), target="y", **settings)
    return Schema.learn(source.read(), source, "numeric").names


REFUSED: dict[str, tuple[str, Any]] = {
    "rownames": ("rownames", COUNT),
    "from zero": ("k", COUNT - 1),
    "no telling name": ("V1", COUNT),
    "shuffled": ("k", SHUFFLED),
    "backwards": ("k", COUNT[::-1]),
    "with points": ("k", [f"{k}.0" for k in COUNT]),
    "of pandas": ("Unnamed: 0", COUNT - 1),
    "customers from a thousand on": ("customer_id", COUNT + 1000),
    "camel case": ("PassengerId", SHUFFLED + 500),
    "observations": ("obs", COUNT),
    "numbers of cases": ("Case No", COUNT + 17),
    "an index with gaps": ("index", COUNT * 3),
    "identifiers in no order": ("userid", SHUFFLED * 7919 % 10007),
    "a key": ("key", SHUFFLED * 7919 % 10007),
    "text": ("key", [f"K{k}" for k in COUNT]),
    "text of no telling name": ("c", [f"R-{k:03}" for k in SHUFFLED]),
    "text, nearly all different": ("c", [f"name {min(k, N - 2)}" for k in COUNT]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_tells_rows_apart_is_refused(tmp_path: Path, case: str) -> None:
    name, cells = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        names(tmp_path, name, cells)
    assert repr(name) in str(caught.value)
    assert "data.id" in str(caught.value)
    # What the message says mends it.
    assert names(tmp_path, name, cells, id=name) == ["x"]
    assert names(tmp_path, name, cells, features=["x"]) == ["x"]
    assert names(tmp_path, name, cells, features=[name, "x"])[-1] == "x"
    assert len(names(tmp_path, name, cells, features=[name, "x"])) > 1


KEPT: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "years": ("YEAR", COUNT + 1946, {}),
    "the only feature": ("k", COUNT, {"others": False}),
    "the doses of a small design": ("dose", COUNT, {"num_rows": 8}),
    "months": ("month", COUNT, {"num_rows": 12}),
    "the values of a count with frequencies": ("children", COUNT - 1, {"weight": "w"}),
    "numbers that repeat": ("rooms", COUNT // 2, {}),
    "identifiers that repeat": ("user_id", COUNT // 2, {}),
    "distinct whole numbers": ("price", SHUFFLED * 7919 % 10007, {}),
    "distinct fractions of a telling name": ("price index", OTHER + COUNT, {}),
    "humidity": ("humid", COUNT * 3, {}),
    "levels of some rows each": ("c", [f"level {k % 20}" for k in COUNT], {}),
    "few rows of text": ("c", [f"level {k}" for k in COUNT], {"num_rows": 6}),
    "text with frequencies": ("c", [f"level {k}" for k in COUNT], {"weight": "w"}),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_only_looks_like_one_is_kept(tmp_path: Path, case: str) -> None:
    name, cells, settings = KEPT[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert any(column.startswith(name) for column in names(tmp_path, name, cells, **settings))


@pytest.mark.parametrize("name", ["t", "time", "week_of_study", "Day"])
def test_a_time_is_kept_with_a_warning(tmp_path: Path, name: str) -> None:
    with pytest.warns(UserWarning, match=rf"'{name}' holds each number from 1 to 40 once; .*data\.id"):
        assert names(tmp_path, name, COUNT) == [name, "x"]


def test_a_count_of_rows_without_a_name_is_left_out_or_refused(tmp_path: Path) -> None:
    for cells in (COUNT - 1, COUNT):
        with pytest.warns(UserWarning, match="counts the rows"):
            assert names(tmp_path, "", cells) == ["x"]
    with pytest.raises(UsageError, match="empty name"):
        names(tmp_path, "", SHUFFLED)
