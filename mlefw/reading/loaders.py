"""The rows behind a DataLoader of torch, as arrays."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import default_collate

from mlefw.errors import UsageError

Read = Callable[[Any, str], np.ndarray]
"""Turns a value of a batch into an array; the second argument names it for messages."""


class Collated:
    """The items of a map-style dataset, each as the loader's own `collate_fn` makes a batch of it alone.

    Args:
        loader: the loader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.dataset: Any = loader.dataset
        self.collate = loader.collate_fn

    def __len__(self) -> int:
        """Number of items."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """An item without the axis of its batch."""
        batch = self.collate([self.dataset[index]])
        return tuple(value[0] for value in batch) if isinstance(batch, tuple | list) else batch


def is_stream(dataset: Any) -> bool:
    """Whether a dataset is a loader of batches whose items are not numbered."""
    return isinstance(dataset, DataLoader) and isinstance(dataset.dataset, IterableDataset)


def behind(dataset: Any, origin: str) -> Any:
    """The map-style dataset behind a loader; anything else as it is.

    Raises:
        UsageError: the loader has a sampler of its own, which would choose among the rows.
    """
    if not isinstance(dataset, DataLoader):
        return dataset
    if not isinstance(dataset.sampler, SequentialSampler | RandomSampler):
        raise UsageError(
            f"{origin}: the {type(dataset.sampler).__name__} of a DataLoader chooses among the rows, and batch= does "
            "so here\n  expected: a Subset as its dataset, or (x, y, weight) for rows that count more"
        )
    return dataset.dataset if dataset.collate_fn is default_collate else Collated(dataset)


def read_stream(
    loader: Any,
    origin: str,
    read: Read,
    new_array: Callable[[tuple[int, ...], Any], np.ndarray],
    fewest: int = 2,
) -> list[np.ndarray]:
    """The rows of all batches of a loader, (x, y) or (x, y, weight), as arrays with rows along the first axis.

    The loader is gone through twice: rows are counted first, so that memory holds them once.

    Args:
        loader: yields batches, whose values have rows along their first axis; it has to end.
        origin: where it comes from, for messages.
        read: turns a value into an array.
        new_array: makes an array to be filled, of a shape and type.
        fewest: fewest values of a batch.

    Raises:
        UsageError: no batches, batches of other kinds, shapes or types than the first, or others the second time.
    """
    first: list[np.ndarray] = []
    sizes, digests = list[int](), list[bytes]()
    for number, values in enumerate(_batches(loader, origin, read, fewest)):
        first = first or values
        forms = [[(value.shape[1:], value.dtype) for value in batch] for batch in (values, first)]
        if forms[0] != forms[1]:
            raise UsageError(
                f"{origin}: batch {number} has rows of other shapes or types than batch 0\n  expected: alike rows"
            )
        sizes.append(len(values[0]))
        digests.append(_digest(values))
    if not sizes:
        raise UsageError(f"{origin} yields no batch\n  expected: two rows or more")
    shapes = [((sum(sizes), *value.shape[1:]), value.dtype) for value in first]
    arrays = [np.empty(*form) if form[1].kind == "O" else new_array(*form) for form in shapes]
    place, count = 0, 0
    for number, values in enumerate(_batches(loader, origin, read, fewest)):
        if number >= len(digests) or _digest(values) != digests[number]:
            raise UsageError(
                f"{origin}: batch {number} is not the same when it is read twice: rows are drawn or changed at random"
                "\n  expected: fixed rows in a fixed order; augment=shift and the like change images in training steps "
                "alone, and batch= draws the batches"
            )
        for array, value in zip(arrays, values, strict=True):
            array[place : place + sizes[number]] = value
        place, count = place + sizes[number], count + 1
    if count < len(digests):
        raise UsageError(f"{origin} yields {count} batches the second time, and {len(digests)} the first")
    return arrays


def _batches(loader: Any, origin: str, read: Read, fewest: int) -> Iterator[list[np.ndarray]]:
    for number, batch in enumerate(loader):
        if not isinstance(batch, tuple | list) or not fewest <= len(batch) <= 3:
            raise UsageError(
                f"{origin}: batch {number} is a {type(batch).__name__}\n  expected: (x, y) or (x, y, weight)"
            )
        values = [read(value, f"{origin}: value {k} of batch {number}") for k, value in enumerate(batch)]
        if any(value.ndim == 0 or len(value) != len(values[0]) for value in values):
            raise UsageError(
                f"{origin}: batch {number} has values of shapes {[value.shape for value in values]}"
                "\n  expected: rows along the first axis of each"
            )
        yield values


def _digest(values: list[np.ndarray]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        texts = "\0".join(map(str, value.ravel().tolist())).encode() if value.dtype == object else None
        found.update(np.ascontiguousarray(value).tobytes() if texts is None else texts)
    return found.digest()
