"""Datasets of torch read into arrays, once: training and exact estimates need rows that stay as they are."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from mlefw.errors import UsageError
from mlefw.reading.arrays import ArrayTable, native
from mlefw.reading.in_memory import array_of
from mlefw.reading.loaders import behind, is_stream, read_stream

SPLITS = ("train", "validation", "test")
"""Names of the datasets of a mapping."""

_AGAIN = 20
"""Items that are read a second time. Of a random flip one item would stay the same in half of all cases."""

_PARTS = ("x", "y", "weight")


def by_split(made: Any, origin: str, stage: Callable[[], Any]) -> dict[str, Any]:
    """The dataset of each split of a dataset, a mapping of datasets by split, or a LightningDataModule.

    Args:
        made: one of these. Of a module, the datasets behind its loaders are taken.
        origin: what made it, for messages.
        stage: gives a context in which the module sets up a stage; random numbers start alike in each, so that a
            module that splits rows in each stage splits them alike.

    Raises:
        UsageError: another kind of object, a mapping with other names, or a module with several loaders for a split.
    """
    if isinstance(made, LightningDataModule):
        return _of_module(made, origin, stage)
    if not isinstance(made, Mapping):
        return {"train": made}
    if "train" not in made or not set(made) <= set(SPLITS):
        names = ", ".join(map(repr, made)) or "none"
        raise UsageError(
            f"{origin}: datasets called {names}\n  expected: 'train', and where wanted 'validation', 'test'"
        )
    return dict(made)


def read_dataset(
    dataset: Any,
    origin: str,
    names: tuple[str, str, str],
    new_array: Callable[[tuple[int, ...], Any], np.ndarray],
    fewest: int = 2,
) -> ArrayTable:
    """The items (x, y) or (x, y, weight) of a map-style dataset as arrays, in its order; or the rows of a DataLoader.

    Args:
        dataset: the dataset, or a loader of batches of one.
        origin: where it comes from, for messages.
        names: names of the arrays of inputs, targets and weights.
        new_array: makes an array to be filled, of a shape and type.
        fewest: fewest values of an item; 1 where targets may be missing.

    Raises:
        UsageError: no such dataset, items of other kinds, shapes or types than the first, or items drawn at random.
    """
    if is_stream(dataset):
        return _table(read_stream(dataset, origin, numpy_array, new_array, fewest), origin, names)
    dataset = behind(dataset, origin)
    count = _length(dataset, origin)
    first = _item(dataset, 0, origin, fewest)
    arrays = [
        np.empty(count, object) if value.dtype == object else new_array((count, *value.shape), value.dtype)
        for value in first
    ]
    for index in range(count):
        values = first if index == 0 else _item(dataset, index, origin, fewest)
        _check_alike(values, first, index, origin)
        for array, value in zip(arrays, values, strict=True):
            array[index] = value[()]
    for index in range(min(count, _AGAIN)):
        values = _item(dataset, index, origin, fewest)
        _check_alike(values, first, index, origin)
        for part, array, value in zip(_PARTS, arrays, values, strict=False):
            if not np.array_equal(array[index], value, equal_nan=value.dtype.kind == "f"):
                raise UsageError(
                    f"{origin}: item {index} is not the same when it is read twice: its {part} draws at random"
                    "\n  expected: fixed items; augment=shift and the like change images in training steps alone"
                )
    return _table(arrays, origin, names)


def _table(arrays: list[np.ndarray], origin: str, names: tuple[str, str, str]) -> ArrayTable:
    used = zip(names, arrays, ("data.x", "data.target", "data.weight"), strict=False)
    return ArrayTable({name: plain_array(array, origin, name, setting) for name, array, setting in used}, origin)


def numpy_array(value: Any, where: str) -> np.ndarray:
    """A tensor, array, number or nested list as an array of numbers, or text as one of objects.

    Raises:
        UsageError: it is of another kind, or a list of unequal lists.
    """
    if isinstance(value, torch.Tensor):
        return array_of(value)
    if isinstance(value, str):
        return np.array(value, dtype=object)
    if np.ma.isMaskedArray(value):
        raise UsageError(f"{where} is a masked array\n  expected: an array, and a weight of 0 where it is masked")
    if not isinstance(value, bool | int | float | list | tuple) and not hasattr(value, "__array__"):
        kind = f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
        hint = "; of a picture numpy.asarray(image), or torchvision's ToTensor" if kind.startswith("PIL.") else ""
        raise UsageError(f"{where} is a {kind}\n  expected: a tensor, an array or a number{hint}")
    try:
        return np.asarray(value)
    except ValueError:
        raise UsageError(f"{where} is a list of lists of unequal lengths\n  expected: equal lengths") from None


def plain_array(array: np.ndarray, origin: str, name: str, setting: str) -> np.ndarray:
    """An array of numbers in a type that torch has, or of objects that are text.

    Raises:
        UsageError: it holds anything else.
    """
    if array.dtype.kind == "U":
        return array.astype(object)
    is_text = array.dtype == object and all(isinstance(value, str) for value in array.ravel().tolist())
    return array if is_text else native(array, origin, name, setting)


def _length(dataset: Any, origin: str) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise UsageError(
            f"{origin} is a {type(dataset).__name__}, whose items are not numbered\n  expected: a map-style dataset, "
            "with __len__ and __getitem__, or a DataLoader of it, which is read to its end"
        )
    if len(dataset) == 0:
        raise UsageError(f"{origin} is a {type(dataset).__name__} without items\n  expected: two items or more")
    return len(dataset)


def _item(dataset: Any, index: int, origin: str, fewest: int) -> list[np.ndarray]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or not fewest <= len(item) <= 3:
        what = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
        named = f" with {', '.join(map(repr, list(item)[:5]))}" if isinstance(item, Mapping) else ""
        raise UsageError(f"{origin}: item {index} is {what}{named}\n  expected: (x, y) or (x, y, weight)")
    return [numpy_array(value, f"{origin}: {part} of item {index}") for part, value in zip(_PARTS, item, strict=False)]


def _check_alike(values: list[np.ndarray], first: list[np.ndarray], index: int, origin: str) -> None:
    if len(values) != len(first):
        raise UsageError(
            f"{origin}: item {index} has {len(values)} values, and item 0 {len(first)}\n  expected: as many"
        )
    for part, value, known in zip(_PARTS, values, first, strict=False):
        if value.shape != known.shape:
            raise UsageError(
                f"{origin}: {part} of item {index} has shape {value.shape}, and of item 0 {known.shape}"
                "\n  expected: equal shapes; pad what is shorter, with a weight of 0 for what is padded"
            )
        if value.dtype != known.dtype:
            raise UsageError(
                f"{origin}: {part} of item {index} holds {value.dtype}, and of item 0 {known.dtype}"
                "\n  expected: one type"
            )


def _of_module(module: LightningDataModule, origin: str, stage: Callable[[], Any]) -> dict[str, Any]:
    found = {}
    with stage():
        module.prepare_data()
        module.setup("fit")
        for split, hook in (("train", "train_dataloader"), ("validation", "val_dataloader")):
            found[split] = _behind(module, hook, origin)
    with stage():
        if _has(module, "test_dataloader"):
            module.setup("test")
        found["test"] = _behind(module, "test_dataloader", origin)
    if found["train"] is None:
        raise UsageError(f"{origin}: {type(module).__name__} has no train_dataloader")
    return {split: dataset for split, dataset in found.items() if dataset is not None}


def _has(module: LightningDataModule, hook: str) -> bool:
    """Whether a module has a hook of its own, in its class or set on the object."""
    return hook in vars(module) or getattr(type(module), hook) is not getattr(LightningDataModule, hook)


def _behind(module: LightningDataModule, hook: str, origin: str) -> Any:
    """The dataset behind a loader of a module; None if it has no such loader."""
    loader = getattr(module, hook)() if _has(module, hook) else None
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    if isinstance(loader, list | tuple | Mapping):
        if not loader:
            return None
        raise UsageError(f"{origin}: {hook} returns {len(loader)} loaders\n  expected: one")
    return loader if isinstance(loader, DataLoader) else getattr(loader, "dataset", loader)
