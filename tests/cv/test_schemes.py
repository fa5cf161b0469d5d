"""Which rows each fold holds out, against scikit-learn's and by what the schemes promise."""

import hashlib
import re
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold, TimeSeriesSplit

from mlefw.cv.base import Fold, Scheme
from mlefw.cv.kfold import KFold
from mlefw.cv.loo import LeaveOneOut
from mlefw.cv.rolling import Rolling
from mlefw.errors import UsageError
from mlefw.reading.split import Split
from mlefw.reading.table import Table

RNG = np.random.default_rng(1)
LABELS = RNG.choice(["a", "b", "c"], 101, p=[0.6, 0.3, 0.1]).astype(object)
TABLE = Table(
    {
        "y": RNG.normal(size=101),
        "c": LABELS,
        "g": RNG.integers(0, 13, 101).astype(float),
        "t": RNG.permutation(101).astype(float),
        "id": np.array([f"patient {k}" for k in range(101)], dtype=object),
    },
    "table",
)
RANDOM = Split("random", 0, None, None, ("y",), False)
STRATIFIED = Split("stratified", 0, None, None, ("c",), True)
GROUPED = Split("group", 0, "g", None, ("y",), False)
TIMED = Split("time", 0, None, "t", ("y",), False)


def folds_of(scheme: Scheme, split: Split = RANDOM, table: Table = TABLE, identifier: str | None = None) -> list[Fold]:
    return scheme.held_out(split, table, identifier)


@pytest.mark.parametrize("split", [RANDOM, STRATIFIED, GROUPED], ids=["random", "stratified", "group"])
def test_each_row_is_held_out_once_in_every_repeat(split: Split) -> None:
    found = folds_of(KFold(folds=7, repeats=3, seed=4), split)
    assert [fold.repeat for fold in found] == [0] * 7 + [1] * 7 + [2] * 7
    for repeat in range(3):
        tests = [fold.test for fold in found if fold.repeat == repeat]
        assert np.sort(np.concatenate(tests)).tolist() == list(range(101))
        assert all(len(test) for test in tests)
    assert found[0].test.tolist() != found[7].test.tolist()
    for fold in found:
        assert np.sort(np.concatenate([fold.test, fold.train(101)])).tolist() == list(range(101))


def test_folds_are_dealt_out_in_the_order_of_a_hash_of_seed_repeat_and_row() -> None:
    def key(row: int) -> int:
        return int.from_bytes(hashlib.blake2b(f"4:1:{row}".encode(), digest_size=8).digest(), "big")

    order = sorted(range(101), key=key)
    found = folds_of(KFold(folds=7, repeats=2, seed=4))
    for fold in range(7):
        assert found[7 + fold].test.tolist() == sorted(order[fold::7])


def test_a_row_with_an_identifier_stays_in_its_fold_whatever_the_order_of_the_table() -> None:
    index = RNG.permutation(101)
    for scheme, split in ((KFold(folds=5), RANDOM), (KFold(folds=5), STRATIFIED), (KFold(folds=5), GROUPED)):
        here = folds_of(scheme, split, identifier="id")
        there = folds_of(scheme, split, TABLE.take(index), "id")
        for one, other in zip(here, there, strict=True):
            assert one.test.tolist() == np.sort(index[other.test]).tolist()


def test_classes_are_dealt_out_as_evenly_as_by_scikit_learn() -> None:
    ours = [fold.test for fold in folds_of(KFold(folds=5), STRATIFIED)]
    theirs = [test for _, test in StratifiedKFold(5, shuffle=True, random_state=0).split(LABELS, LABELS)]
    for label in "abc":
        counts = [sorted((LABELS[test] == label).sum() for test in tests) for tests in (ours, theirs)]
        assert counts[0] == counts[1]
    assert sorted(map(len, ours)) == [20, 20, 20, 20, 21]


def test_a_group_is_in_one_fold() -> None:
    found = folds_of(KFold(folds=5, repeats=4), GROUPED)
    groups = TABLE.columns["g"]
    for fold in found:
        assert not set(groups[fold.test]) & set(groups[fold.train(101)])
        assert len(fold.test) <= 101 / 5 + np.unique(groups, return_counts=True)[1].max()


@pytest.mark.parametrize(("num_folds", "size"), [(5, 10), (2, 20)])
def test_rolling_windows_are_those_of_scikit_learn(num_folds: int, size: int) -> None:
    table = TABLE.take(np.flatnonzero(TABLE.columns["t"] < 100))
    time = table.columns["t"]
    found = folds_of(Rolling(initial=1 - num_folds * size / 100, horizon=size / 100), TIMED, table)
    expected = list(TimeSeriesSplit(num_folds, test_size=size).split(time))
    order = np.argsort(time)
    assert len(found) == num_folds
    for fold, (train, test) in zip(found, expected, strict=True):
        assert fold.test.tolist() == np.sort(order[test]).tolist()
        assert fold.train(100).tolist() == np.sort(order[train]).tolist()


def test_rolling_never_parts_equal_times_and_ends_at_the_end() -> None:
    table = Table({"t": np.repeat(np.arange(9.0), [5, 1, 20, 3, 3, 30, 2, 2, 1])}, "table")
    found = folds_of(Rolling(initial=0.3, horizon=0.2), TIMED, table)
    time = table.columns["t"]
    for fold in found:
        assert time[fold.train(67)].max() < time[fold.test].min()
    assert np.concatenate([found[0].train(67), *(fold.test for fold in found)]).tolist() == list(range(67))


def test_leaving_one_out_takes_rows_or_groups() -> None:
    assert [fold.test.tolist() for fold in folds_of(LeaveOneOut())] == [[k] for k in range(101)]
    groups = TABLE.columns["g"]
    expected = [test for _, test in LeaveOneGroupOut().split(groups, groups=groups)]
    assert [fold.test.tolist() for fold in folds_of(LeaveOneOut(), GROUPED)] == [test.tolist() for test in expected]


def test_a_class_with_fewer_rows_than_folds_is_warned_of() -> None:
    table = Table({"c": np.array(["a"] * 30 + ["rare"] * 3, dtype=object)}, "table")
    with pytest.warns(UserWarning, match="fewer than 5 rows, one for each of the folds, have 'rare'"):
        folds_of(KFold(folds=5), STRATIFIED, table)


BAD: list[tuple[Any, Split, str]] = [
    (lambda: KFold(folds=1), RANDOM, "cv.folds=1: expected a whole number of at least 2"),
    (lambda: KFold(repeats=0), RANDOM, "cv.repeats=0: expected a whole number of at least 1"),
    (lambda: KFold(jobs=0), RANDOM, "cv.jobs=0"),
    (lambda: KFold(folds=102), RANDOM, "cv.folds=102: table has 101 rows"),
    (lambda: KFold(folds=14), GROUPED, "cv.folds=14: table has 13 groups"),
    (lambda: KFold(), TIMED, "cv=kfold fits on the future of data.time=t"),
    (lambda: LeaveOneOut(), TIMED, "cv=loo fits on the future of data.time=t"),
    (lambda: Rolling(), RANDOM, "cv=rolling needs data.time=COLUMN"),
    (lambda: Rolling(initial=1.0), TIMED, "cv.initial=1.0: expected a share"),
    (lambda: Rolling(horizon=0.0), TIMED, "cv.horizon=0.0: expected a share"),
]


@pytest.mark.parametrize(("make", "split", "message"), BAD, ids=[message for _, _, message in BAD])
def test_what_cannot_be_is_refused(make: Any, split: Split, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        folds_of(make(), split)
