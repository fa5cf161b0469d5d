"""The random split that every source shares."""

from dataclasses import dataclass

import numpy as np
import pytest

from mlefw.data.base import Source
from mlefw.errors import UsageError
from mlefw.reading.table import Table


@dataclass(kw_only=True)
class Counting(Source):
    """Rows whose only column counts them."""

    num_rows: int = 100
    given: int = 0

    def read(self) -> Table:
        """The counted rows."""
        return Table({"i": np.arange(float(self.num_rows))}, "counting", first_row=1)

    def read_test(self) -> Table | None:
        """Rows from a thousand on, if any are given."""
        return Table({"i": 1000.0 + np.arange(float(self.given))}, "given") if self.given else None


COUNTS = [
    ({}, {"train": 60, "validation": 20, "test": 20}),
    ({"test_fraction": 0.0}, {"train": 80, "validation": 20}),
    ({"validation_fraction": 0.0}, {"train": 80, "test": 20}),
    ({"test_fraction": 0.0, "validation_fraction": 0.0}, {"train": 100}),
    ({"num_rows": 7, "test_fraction": 0.5, "validation_fraction": 0.1}, {"train": 2, "validation": 1, "test": 4}),
    ({"num_rows": 2}, {"train": 2}),
    ({"given": 3, "test_fraction": 0.9}, {"train": 80, "validation": 20, "test": 3}),
]


@pytest.mark.parametrize(("settings", "expected"), COUNTS)
def test_counts_and_disjoint(settings: dict[str, int], expected: dict[str, int]) -> None:
    source = Counting(**settings)  # type: ignore[arg-type]
    splits = source.splits()
    assert {name: table.num_rows for name, table in splits.items()} == expected
    everything = np.sort(np.concatenate([table.columns["i"] for table in splits.values()]))
    rows = np.concatenate([np.arange(source.num_rows), 1000 + np.arange(source.given)])
    assert everything.tolist() == rows.tolist()


def test_same_seed_same_split() -> None:
    first, again = (Counting(seed=3).splits()["test"].columns["i"] for _ in range(2))
    other = Counting(seed=4).splits()["test"].columns["i"]
    assert first.tolist() == again.tolist()
    assert set(first.tolist()) != set(other.tolist())


def test_rows_keep_their_numbers() -> None:
    for table in Counting().splits().values():
        last = np.arange(table.num_rows) == table.num_rows - 1
        assert table.where(last) == f"row {int(table.columns['i'][-1]) + 1}"


def test_does_not_read_twice() -> None:
    source = Counting(num_rows=10)
    table = source.read()
    source.num_rows = 50
    assert sum(part.num_rows for part in source.splits(table).values()) == 10


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"test_fraction": 1.0}, "data.test_fraction=1.0"),
        ({"validation_fraction": -0.1}, "data.validation_fraction=-0.1"),
        ({"test_fraction": float("nan")}, "data.test_fraction=nan"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "0 training rows are left of 100"),
        ({"test_fraction": 0.7, "validation_fraction": 0.7}, "0 training rows are left of 100"),
        ({"num_rows": 1}, "at least 2 are needed"),
    ],
)
def test_refuses(settings: dict[str, float], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Counting(**settings).splits()  # type: ignore[arg-type]
