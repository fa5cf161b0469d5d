"""Stratified, grouped and time splits, against scikit-learn's and by what they promise."""

import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import Run
from pyarrow import csv, parquet
from sklearn.model_selection import StratifiedShuffleSplit, TimeSeriesSplit

from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.frame import Frame, as_arrow, offered
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.reading.shares import grouped, in_time, stratified

RNG = np.random.default_rng(0)
CLASSES = RNG.choice(["a", "b", "c"], 203, p=[0.7, 0.2, 0.1])
NUMBERS = RNG.gamma(1.0, size=203)
CLINICS = RNG.integers(0, 17, 203)
DAYS = np.datetime64("2023-12-20") + RNG.permutation(203) // 2
COLUMNS: dict[str, Any] = {"x": RNG.normal(size=203), "y": NUMBERS, "c": CLASSES, "clinic": CLINICS, "day": DAYS}


def frame_parts(columns: dict[str, Any] | None = None, **settings: Any) -> dict[str, np.ndarray]:
    """Positions by part, of a frame."""
    settings = {"target": "y", "features": ["x"], **settings}
    classes = settings.pop("classes", False)
    source = Frame(**settings)
    source.classes = classes
    with offered(rows=as_arrow(columns or COLUMNS)):
        return {name: index for name, (_, index) in source.parts().items()}


def test_every_row_is_in_one_part() -> None:
    for settings in ({"split": "stratified"}, {"group": "clinic"}, {"time": "day"}, {"split": "random"}):
        parts = frame_parts(**settings)
        assert np.sort(np.concatenate([*parts.values()])).tolist() == list(range(203))
        assert all((np.diff(index) > 0).all() for index in parts.values())


def test_random_is_the_permutation_that_it_was() -> None:
    order = np.random.default_rng(5).permutation(203)
    parts = frame_parts(split="random", seed=5)
    assert parts["test"].tolist() == np.sort(order[:41]).tolist()
    assert parts["validation"].tolist() == np.sort(order[41:82]).tolist()
    assert parts["train"].tolist() == np.sort(order[82:]).tolist()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.33])
def test_classes_are_shared_out_as_by_scikit_learn(share: float) -> None:
    parts = frame_parts(target="c", classes=True, split="stratified", test_fraction=share, validation_fraction=0.0)
    splitter = StratifiedShuffleSplit(1, test_size=round(share * 203), random_state=0)
    _, test = next(splitter.split(CLASSES, CLASSES))
    ours, theirs = (Counter(CLASSES[index].tolist()) for index in (parts["test"], test))
    assert ours.total() == theirs.total() == round(share * 203)
    assert all(abs(ours[label] - theirs[label]) <= 1 for label in "abc")


def test_deciles_of_a_number_are_shared_out_evenly() -> None:
    parts = frame_parts(split="stratified", test_fraction=0.25, validation_fraction=0.25)
    decile = np.searchsorted(np.quantile(NUMBERS, np.arange(1, 10) / 10), NUMBERS)
    whole = np.bincount(decile)
    for name, share in (("test", 0.25), ("validation", 0.25), ("train", 0.5)):
        assert (np.abs(np.bincount(decile[parts[name]]) - share * whole) < 2).all()


def test_a_number_with_many_zeros_is_stratified() -> None:
    y = np.where(np.arange(200) < 150, 0.0, np.arange(200))
    parts = frame_parts({"x": y, "y": y}, split="stratified")
    assert (y[parts["test"]] == 0).sum() == 30


def test_a_rare_class_is_warned_of_and_stays_in_training() -> None:
    columns = {"x": np.arange(50.0), "c": np.array(["rare"] + ["a"] * 25 + ["b"] * 24)}
    for seed in range(10):
        with pytest.warns(UserWarning, match="fewer than 3 rows, one for each of the parts, have 'rare'"):
            parts = frame_parts(columns, target="c", classes=True, split="stratified", seed=seed)
        assert 0 in parts["train"]


def test_strata_of_single_rows_are_shared_out_all_the_same() -> None:
    parts = stratified(np.arange(10), {"test": 4, "validation": 3}, np.random.default_rng(0))
    assert {name: len(index) for name, index in parts.items()} == {"test": 4, "validation": 3, "train": 3}


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_and_parts_come_near_their_shares(seed: int) -> None:
    parts = frame_parts(group="clinic", seed=seed)
    found = [set(CLINICS[index].tolist()) for index in parts.values()]
    assert len(found) == 3
    assert set.union(*found) == set(range(17))
    assert sum(map(len, found)) == 17
    largest = np.bincount(CLINICS).max()
    assert all(abs(len(parts[name]) - 41) <= largest for name in ("test", "validation"))


def test_as_many_groups_as_parts() -> None:
    sizes = np.repeat([0, 1, 2], [90, 5, 5])
    for seed in range(10):
        parts = grouped(sizes, {"test": 20, "validation": 20}, np.random.default_rng(seed), "")
        assert sorted(map(len, parts.values())) == [5, 5, 90]
        assert len(parts["train"]) == 90


def test_the_last_rows_test_as_in_scikit_learn() -> None:
    order = RNG.permutation(100)
    parts = frame_parts({"x": order, "y": order, "t": order}, time="t", validation_fraction=0.0)
    *_, (train, test) = TimeSeriesSplit(2, test_size=20).split(np.arange(100))
    position = np.argsort(order)
    assert parts["test"].tolist() == np.sort(position[test]).tolist()
    assert parts["train"].tolist() == np.sort(position[train]).tolist()


def test_equal_times_are_never_apart() -> None:
    parts = frame_parts(time="day")
    days = {name: DAYS[index] for name, index in parts.items()}
    assert days["train"].max() < days["validation"].min()
    assert days["validation"].max() < days["test"].min()
    assert 40 <= len(parts["test"]) <= 42
    few = in_time(np.repeat([0, 1, 2], [50, 1, 49]), {"test": 20, "validation": 20}, "")
    assert {name: len(index) for name, index in few.items()} == {"test": 49, "validation": 1, "train": 50}


def test_times_are_read_from_every_source(tmp_path: Path) -> None:
    dates = pa.array(DAYS.astype("datetime64[D]"))
    text = pa.array([str(day) for day in DAYS])
    moments = pa.array([f"{day} 12:30:00" for day in DAYS])
    zoned = pa.array([f"{day}T12:30:00Z" for day in DAYS])
    years = pa.array((DAYS - DAYS.min()).astype(int) / 365.25 + 2023)
    table = pa.table({"x": COLUMNS["x"], "y": NUMBERS, "d": dates, "s": text, "m": moments, "z": zoned, "n": years})
    csv.write_csv(table, tmp_path / "t.csv")
    parquet.write_table(table, tmp_path / "t.parquet")
    expected = {name: index.tolist() for name, index in frame_parts(time="day").items()}
    path = {"csv": str(tmp_path / "t.csv"), "parquet": str(tmp_path / "t.parquet")}
    for name in "dsmzn":
        common: dict[str, Any] = {"target": "y", "time": name, "features": ["x"]}
        sources: list[Source] = [
            Csv(path=path["csv"], **common),
            Parquet(path=path["parquet"], **common),
            Parquet(path=path["parquet"], stream=True, **common),
        ]
        for source in sources:
            assert {part: index.tolist() for part, (_, index) in source.parts().items()} == expected, (name, source)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"split": "group"}, "data.split=group needs data.group=COLUMN"),
    ({"split": "time"}, "data.split=time needs data.time=COLUMN"),
    (
        {"split": "random", "group": "clinic"},
        "data.group=clinic says how rows are split, and so does data.split=random",
    ),
    ({"group": "clinic", "time": "day"}, "data.group=clinic and data.time=day both say how rows are split"),
    ({"split": "stratified", "target": ["y", "x"]}, "data.split=stratified follows one target"),
    ({"time": "c"}, "column 'c' (data.time) holds text"),
    ({"group": "one"}, "data.group=one has 1 group, and test and validation and training rows need 3"),
    ({"group": "two"}, "data.group=two has 2 groups, and test and validation and training rows need 3"),
    ({"time": "two"}, "data.time=two has 2 times, and test and validation and training rows need 3"),
    ({"time": "flag"}, "column 'flag' (data.time) holds true and false"),
    (
        {"group": "holes"},
        "the frame has missing values\n  column 'holes': 2, rows 0, 7\n",
    ),
    ({"group": "clinik"}, "the frame lacks these columns\n  'clinik' (data.group)"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[str(settings) for settings, _ in BAD])
def test_what_cannot_be_split_is_refused(settings: dict[str, Any], message: str) -> None:
    odd = [None if k in (0, 7) else "g" for k in range(203)]
    more = {"one": np.zeros(203), "two": np.arange(203) % 2, "flag": np.arange(203) % 2 == 0, "holes": odd}
    with pytest.raises(UsageError, match=re.escape(message)):
        frame_parts({**COLUMNS, **more}, missing="impute", **settings)


def test_groups_of_given_rows_that_training_has_are_warned_of() -> None:
    given = as_arrow({"x": [0.0, 1.0], "y": [0.0, 1.0], "clinic": [3, 99]})
    with offered(rows=as_arrow(COLUMNS), validation=given), pytest.warns(UserWarning) as met:
        Frame(target="y", group="clinic", features=["x"], test_fraction=0.0).parts()
    assert [str(one.message) for one in met] == [
        "the validation frame: groups of validation rows that training rows have, too: '3'"
    ]
    with offered(rows=as_arrow(COLUMNS), test=given.drop_columns("clinic")), pytest.warns(UserWarning) as met:
        Frame(target="y", group="clinic", features=["x"]).parts()
    assert "whether training rows are apart from these test rows is not known" in str(met[0].message)


def test_given_rows_before_the_end_of_training_are_warned_of() -> None:
    rows, late, early = (
        as_arrow({"x": np.arange(9.0), "y": np.arange(9.0), "t": np.arange(9.0) + start}) for start in (0, 9, 5)
    )
    settings: dict[str, Any] = {"target": "y", "time": "t", "features": ["x"], "validation_fraction": 0.0}
    with offered(rows=rows, test=early), pytest.warns(UserWarning, match="4 test rows are not later than all training"):
        Frame(**settings).parts()
    with offered(rows=rows, test=late), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Frame(**settings).parts()["train"][1]) == 9


def test_columns_that_split_are_no_features_and_new_rows_do_not_need_them(mlefw: Run, tmp_path: Path) -> None:
    table = pa.table(
        {"x": COLUMNS["x"], "y": NUMBERS, "clinic": CLINICS, "day": pa.array(DAYS.astype("datetime64[D]"))}
    )
    csv.write_csv(table.drop_columns("day"), tmp_path / "g.csv")
    csv.write_csv(table.drop_columns("clinic"), tmp_path / "t.csv")
    short = ("head=exponential", "trainer.max_epochs=1", "report=false", "plots=false", "data=csv", "data.target=y")
    for file, role in (("g.csv", "group=clinic"), ("t.csv", "time=day")):
        done = mlefw("train", *short, f"data.path={file}", f"data.{role}", f"run_dir={file}.run")
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / f"{file}.run" / "summary.json").read_text(encoding="utf-8"))
        assert summary["num_features"] == 1
        again = mlefw("evaluate", f"run={file}.run", "split=test", f"output={file}.json")
        assert again.returncode == 0, again.stderr
        nll = json.loads((tmp_path / f"{file}.json").read_text(encoding="utf-8"))["metrics"]["nll_nats"]
        assert nll == pytest.approx(summary["metrics"]["test"]["nll_nats"], rel=1e-12)
        known = mlefw("predict", f"run={file}.run", f"data.path={file}", f"output={file}.parquet")
        assert (known.returncode, known.stderr) == (0, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("data.group=x", "data.features=[x]"), "column 'x' in data.features is data.group"),
        (("data.time=day", "data.features=[x,day]"), "column 'day' in data.features holds dates (data.time)"),
        (("data.group=y", "data.features=[x]"), "column 'y' is both data.target and data.group"),
        (("data.group=zz", "data.features=[x]"), "'zz' (data.group)"),
    ],
)
def test_roles_that_contradict_each_other_are_refused(
    mlefw: Run, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    csv.write_csv(pa.table({"x": COLUMNS["x"], "y": NUMBERS, "day": DAYS.astype("datetime64[D]")}), tmp_path / "t.csv")
    done = mlefw("check", "data=csv", "data.path=t.csv", "data.target=y", *settings)
    assert done.returncode == 2
    assert message in done.stderr
