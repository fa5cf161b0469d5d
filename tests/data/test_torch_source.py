"""Datasets of torch: the rows of the same arrays, splits, weights, and errors for all that can be wrong."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset, random_split

from mlefw.data.torch import Torch
from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable
from mlefw.schema.kinds import learn_schema
from mlefw.system import trust

RANDOM = np.random.default_rng(0)
X = torch.from_numpy(RANDOM.integers(0, 255, (30, 1, 4, 4)).astype(np.uint8))
Y = torch.arange(30) % 3
SERIES = torch.from_numpy(RANDOM.normal(size=(30, 5, 2)).astype(np.float32))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Torch]:
    """Makes a source of what a function of an admitted module returns."""
    monkeypatch.setattr(trust, "_in_process", {"strangers": None})

    def of(make: Any, **settings: Any) -> Torch:
        module = ModuleType("strangers")
        module.make = make  # type: ignore[attr-defined]
        if hasattr(make, "__module__"):
            make.__module__ = "strangers"
        monkeypatch.setitem(sys.modules, "strangers", module)
        return Torch(dataset="strangers:make", **settings)

    return of


def arrays(table: Any) -> dict[str, np.ndarray]:
    assert isinstance(table, ArrayTable)
    return table.columns


class Items(Dataset[Any]):
    """Any function of an index as a dataset."""

    def __init__(self, make: Callable[[int], Any], count: int = 30) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def test_items_become_arrays_of_their_types(source: Any) -> None:
    found = arrays(source(lambda: TensorDataset(X, Y)).read())
    assert found["x"].dtype == np.uint8 and np.array_equal(found["x"], X.numpy())
    assert found["y"].dtype == np.int64 and np.array_equal(found["y"], Y.numpy())
    plain = arrays(source(lambda: Items(lambda k: (X[k].numpy(), k % 3))).read())
    assert all(np.array_equal(plain[name], found[name]) and plain[name].dtype == found[name].dtype for name in plain)
    both = ConcatDataset([TensorDataset(X[:10], Y[:10]), TensorDataset(X[10:], Y[10:])])
    assert np.array_equal(arrays(source(lambda: both).read())["x"], X.numpy())
    half = arrays(source(lambda: Items(lambda k: (SERIES[k].bfloat16(), 0.5 * k))).read())
    assert half["x"].dtype == np.float32 and np.array_equal(half["x"], SERIES.bfloat16().float().numpy())
    assert half["y"].dtype == np.float64
    lists = arrays(source(lambda: [([1, 2, k], "ab"[k % 2]) for k in range(6)]).read())
    assert lists["x"].tolist() == [[1, 2, k] for k in range(6)] and lists["y"].tolist() == ["a", "b"] * 3


def test_weights_of_items_are_weights_of_rows_or_positions(source: Any) -> None:
    weight = torch.from_numpy((RANDOM.uniform(size=(30, 5)) > 0.3).astype(float))
    made = source(lambda: TensorDataset(SERIES, SERIES[..., 0] > 0, weight))
    table = made.read()
    rows = learn_schema(table, made, "binary").rows(table, False)
    assert rows.positions == (5,) and torch.equal(rows.weight, weight)


def test_a_store_holds_the_rows(source: Any, tmp_path: Any) -> None:
    made = source(lambda: TensorDataset(X, Y), stream=True, cache=str(tmp_path))
    assert np.array_equal(arrays(made.read())["x"], X.numpy()) and made.store is not None


class Module(LightningDataModule):
    """Splits its rows at random in each stage, as many do."""

    def setup(self, stage: str) -> None:
        self.parts = random_split(TensorDataset(X, Y), [20, 6, 4])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[0], batch_size=4, shuffle=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(self.parts[1])]

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[2])


def test_splits_come_from_a_mapping_or_the_loaders_of_a_module(source: Any) -> None:
    sets = {"train": TensorDataset(X[:20], Y[:20]), "test": TensorDataset(X[20:], Y[20:])}
    parts = source(lambda: sets, validation_fraction=0.25).parts()
    assert {name: len(index) for name, (_, index) in parts.items()} == {"train": 15, "validation": 5, "test": 10}
    assert np.array_equal(parts["test"][0].columns["x"], X[20:].numpy())
    state = torch.get_rng_state()
    parts, again, other = (source(Module, seed=seed).parts() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    seen = np.concatenate([parts[name][0].columns["x"].reshape(-1, 16) for name in parts])
    assert [len(index) for _, index in parts.values()] == [20, 6, 4]
    assert len(np.unique(seen, axis=0)) == len(np.unique(X.reshape(-1, 16), axis=0))  # no row in two splits
    for name in parts:
        assert np.array_equal(parts[name][0].columns["y"], again[name][0].columns["y"])
    assert not np.array_equal(parts["train"][0].columns["x"], other["train"][0].columns["x"])
    given = LightningDataModule.from_datasets(sets["train"], test_dataset=sets["test"], batch_size=2)
    parts = source(lambda: given).parts()
    assert [len(index) for _, index in parts.values()] == [16, 4, 10]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(1, 2)])


def drawn(index: int) -> Any:
    return X[index].float() + torch.rand(1), 1


def flipped(index: int) -> Any:
    return X[index].flip(-1) if torch.rand(1) < 0.5 else X[index], 1


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (lambda: TensorDataset(X[:0], Y[:0]), r"strangers:make \(train\) is a TensorDataset without items"),
    "stream": (Stream, r"is a Stream, whose items are not numbered\n  expected: a map-style dataset"),
    "loader": (lambda: DataLoader(TensorDataset(X, Y), sampler=[1, 2]), r"the list of a DataLoader chooses among"),
    "nothing": (lambda: None, "is a NoneType, whose items are not numbered"),
    "one value": (lambda: TensorDataset(X), r"item 0 is 1 values\n  expected: \(x, y\) or \(x, y, weight\)"),
    "four values": (lambda: TensorDataset(X, Y, Y, Y), "item 0 is 4 values"),
    "a tensor": (lambda: X, "item 0 is a Tensor"),
    "a mapping": (lambda: Items(lambda k: {"image": X[k], "label": 1}), "item 0 is a dict with 'image', 'label'"),
    "a picture": (lambda: Items(lambda k: (pictured(k), 1)), r"x of item 0 is a PIL.Image\n.*numpy.asarray"),
    "a set": (lambda: Items(lambda k: (X[k], {1})), "y of item 0 is a builtins.set\n  expected: a tensor"),
    "shapes": (
        lambda: Items(lambda k: (SERIES[k, : 5 - (k == 7)], 1)),
        r"x of item 7 has shape \(4, 2\), and of item 0 \(5, 2\)\n  expected: equal shapes; pad",
    ),
    "types": (lambda: Items(lambda k: (X[k], 1 if k else 0.5)), "y of item 1 holds int64, and of item 0 float64"),
    "pairs and triples": (lambda: Items(lambda k: (X[k], 1, 1)[: 3 - (k == 4)]), "item 4 has 2 values, and item 0 3"),
    "ragged": (lambda: Items(lambda k: ([[1, 2], [3]], 1)), "x of item 0 is a list of lists of unequal lengths"),
    "complex": (lambda: Items(lambda k: (1j * SERIES[k], 1)), "array 'x' .*holds complex64\n  expected: real numbers"),
    "masked": (
        lambda: Items(lambda k: (np.ma.masked_less(X[k].numpy(), 9), 1)),
        "is a masked array\n  expected: .*weight",
    ),
    "at random": (
        lambda: Items(drawn),
        r"item 0 is not the same .*: its x draws at random\n  expected: .*; augment=shift",
    ),
    "at random at times": (lambda: Items(flipped), "is not the same when it is read twice"),
    "names": (lambda: {"train": X, "val": X}, r"called 'train', 'val'\n  expected: 'train', .* 'validation', 'test'"),
    "no training": (lambda: {"test": X}, "called 'test'\n  expected: 'train'"),
    "one row": (lambda: TensorDataset(X[:1], Y[:1]), "1 training rows are left of 1|one label alone"),
    "weights of a split": (
        lambda: {"train": TensorDataset(X, Y), "test": TensorDataset(X, Y, Y)},
        r"\(test\): items have weights, and those of training have none",
    ),
    "no weights of a split": (
        lambda: {"train": TensorDataset(X, Y, 1 + Y), "test": TensorDataset(X, Y)},
        r"\(test\) lacks these columns\n  'weight' \(data.weight\)",
    ),
}


def pictured(index: int) -> Any:
    from PIL import Image

    return Image.fromarray(X[index, 0].numpy())


@pytest.mark.parametrize("name", BAD)
def test_bad_datasets_are_refused_with_place_and_remedy(name: str, source: Any) -> None:
    make, said = BAD[name]
    made = source(make)
    with pytest.raises(UsageError, match=said):
        table = made.read()
        schema = learn_schema(table, made, "labels")
        for part, index in made.parts(table).values():
            schema.rows(part.take(index), False)


def test_a_module_of_several_loaders_or_none_is_refused(source: Any) -> None:
    class Two(Module):
        def val_dataloader(self) -> list[DataLoader[Any]]:
            return [DataLoader(self.parts[1])] * 2

    with pytest.raises(UsageError, match=r"val_dataloader returns 2 loaders\n  expected: one"):
        source(Two).read()
    with pytest.raises(UsageError, match="LightningDataModule has no train_dataloader"):
        source(lambda: LightningDataModule()).read()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, r"data.dataset is not set: expected module:function, .*--plugin"),
        ("strangers", r"data.dataset=strangers: expected module:function"),
        ("os:getcwd", r"os is not admitted\n  expected: --plugin os"),
        ("strangersother:make", "strangersother is not admitted"),
        ("strangers:nothing", r"there is no such function\n  expected: a function without arguments"),
        ("strangers:number", "it is a int"),
        ("strangers:getcwd", r"it is defined in .*\n  expected: a function that is defined in strangers"),
        ("strangers.missing:make", "the module cannot be imported"),
    ],
)
def test_a_function_has_to_be_one_of_an_admitted_package(address: str | None, said: str, source: Any) -> None:
    source(lambda: None)
    import os

    sys.modules["strangers"].number, sys.modules["strangers"].getcwd = 3, os.getcwd  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=said):
        Torch(dataset=address).read()
