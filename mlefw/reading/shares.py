"""Rows shared out among parts: drawn, drawn within strata, in whole groups, or in the order of time."""

from collections.abc import Mapping

import numpy as np

from mlefw.errors import UsageError

Parts = dict[str, np.ndarray]
"""Positions of the rows of each part, by its name; `train` is what no other part holds."""


def drawn(num_rows: int, counts: Mapping[str, int], rng: np.random.Generator) -> Parts:
    """Rows drawn without a rule."""
    order = rng.permutation(num_rows)
    pieces = np.split(order, np.cumsum(list(counts.values())))
    return dict(zip((*counts, "train"), pieces, strict=True))


def stratified(strata: np.ndarray, counts: Mapping[str, int], rng: np.random.Generator) -> Parts:
    """Rows drawn in each stratum, (n,), in proportion to its size, to the nearest row; training has one of each."""
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    left = np.bincount(strata)
    start = np.cumsum(left) - left
    parts: Parts = {}
    for name, count in counts.items():
        taken = _proportional(left, count, rng)
        pieces = [order[first : first + size] for first, size in zip(start, taken, strict=True)]
        parts[name] = np.concatenate(pieces)
        start, left = start + taken, left - taken
    train = [order[first : first + size] for first, size in zip(start, left, strict=True)]
    return {**parts, "train": np.concatenate(train)}


def _proportional(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows, from strata in proportion to their sizes; the last row of a stratum is taken where none else is."""
    quota = count * sizes / max(1, sizes.sum())
    taken = np.minimum(np.floor(quota).astype(np.int64), np.maximum(sizes - 1, 0))
    while (lacking := count - int(taken.sum())) > 0:
        room = np.flatnonzero(taken < sizes - 1)
        room = room if len(room) else np.flatnonzero(taken < sizes)
        room = rng.permutation(room)
        taken[room[np.argsort(taken[room] - quota[room], kind="stable")[:lacking]]] += 1
    return taken


def grouped(groups: np.ndarray, counts: Mapping[str, int], rng: np.random.Generator, origin: str) -> Parts:
    """Whole groups, (n,), in random order: each is taken where it brings the number of rows nearer to what is asked.

    Raises:
        UsageError: fewer groups than parts.
    """
    present, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = {name: count for name, count in counts.items() if count > 0}
    _check_enough(len(present), wanted, origin, "groups")
    left = rng.permutation(len(present)).tolist()
    part_of = np.full(len(present), len(counts))
    for number, (name, count) in enumerate(counts.items()):
        if name not in wanted:
            continue
        wanted.pop(name)
        num_rows = 0
        for group in list(left):
            enough = num_rows > 0 and len(left) <= 1 + len(wanted)
            if not enough and sizes[group] < 2 * (count - num_rows):
                part_of[group] = number
                num_rows += int(sizes[group])
                left.remove(group)
        if num_rows == 0:
            smallest = min(left, key=lambda group: int(sizes[group]))
            part_of[smallest] = number
            left.remove(smallest)
    of_row = part_of[code]
    return {name: np.flatnonzero(of_row == number) for number, name in enumerate((*counts, "train"))}


def in_time(moments: np.ndarray, counts: Mapping[str, int], origin: str) -> Parts:
    """The last rows in time, (n,), test, those before them validate; rows of one time are in one part.

    Raises:
        UsageError: fewer times than parts.
    """
    times, code, sizes = np.unique(moments, return_inverse=True, return_counts=True)
    wanted = {name: count for name, count in counts.items() if count > 0}
    _check_enough(len(times), wanted, origin, "times")
    ends, stop = np.cumsum(sizes), len(times)
    part_of = np.full(len(times), len(counts))
    for number, (name, count) in enumerate(counts.items()):
        if name not in wanted:
            continue
        wanted.pop(name)
        # After which time to cut: each part that is still to come, and training, keep a time at least.
        cuts = np.arange(len(wanted), stop - 1)
        last = ends[stop - 1]
        cut = int(cuts[np.argmin(np.abs(last - ends[cuts] - count))])
        part_of[cut + 1 : stop] = number
        stop = cut + 1
    of_row = part_of[code]
    return {name: np.flatnonzero(of_row == number) for number, name in enumerate((*counts, "train"))}


def _check_enough(count: int, wanted: Mapping[str, int], origin: str, what: str) -> None:
    if count <= len(wanted):
        names = " and ".join([*wanted, "training"])
        raise UsageError(
            f"{origin} has {count} {what if count != 1 else what[:-1]}, and {names} rows need {len(wanted) + 1}"
            f"\n  expected: more {what}, or data.test_fraction=0 or data.validation_fraction=0"
        )
