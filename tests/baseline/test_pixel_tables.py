"""Tables of the level of a pixel by its position and its nearest earlier pixels, against loops and reference values."""

import json
from itertools import product
from math import log

import numpy as np
import pytest
import torch
from tiny_shakespeare import folder

from mlefw.baseline.ngram.estimate import NgramEstimates, ngram_estimates, null_table
from mlefw.baseline.ngram.ngram import Ngram
from mlefw.baseline.ngram.pixels import PixelContext, nearest, orders
from mlefw.baseline.ngram.scores import score
from mlefw.data.npz import Npz
from mlefw.errors import UsageError
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.schema.kinds import learn_schema

OFFSETS = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1)]
"""(lines down, columns right) of the ten nearest earlier pixels, as the note of the reference values lists them."""


def rows_of(images: np.ndarray, levels: int, weight: np.ndarray | None = None) -> tuple[Rows, RowShape]:
    n, height, width = images.shape
    dtype = torch.uint8 if levels < 256 else torch.int16
    y = torch.from_numpy(images.reshape(n, -1)).to(dtype)
    start = torch.full((n, 1), levels, dtype=dtype)
    w = torch.ones(n, dtype=torch.float64) if weight is None else torch.from_numpy(weight)
    w = w.unsqueeze(1).expand(y.shape)
    rows = Rows(torch.cat([start, y[:, :-1]], 1), y, w, torch.zeros_like(w))
    size = (height * width,)
    return rows, RowShape(size, size, levels + 1, True, (height, width))


def by_hand(
    train: np.ndarray, held: np.ndarray, levels: int, order: int, half: float = 0.5, weight: np.ndarray | None = None
) -> float:
    """Mean NLL in nats of held images under counts by the context of `order` pixels, or with order 0 by position."""

    def context(image: np.ndarray, r: int, c: int) -> tuple[int, ...]:
        if not order:
            return (r, c)
        inside = [(r + dy, c + dx) for dy, dx in OFFSETS[:order]]
        height, width = image.shape
        return tuple(int(image[a, b]) if 0 <= a < height and 0 <= b < width else 0 for a, b in inside)

    counts: dict[tuple[int, ...], np.ndarray] = {}
    places = list(product(range(train.shape[1]), range(train.shape[2])))
    for k, image in enumerate(train):
        for r, c in places:
            found = counts.setdefault(context(image, r, c), np.zeros(levels))
            found[image[r, c]] += 1 if weight is None else weight[k]
    total = 0.0
    for image in held:
        for r, c in places:
            found = counts.get(context(image, r, c), np.zeros(levels))
            total -= log((found[image[r, c]] + half) / (found.sum() + half * levels))
    return total / held.size


def tables(found: NgramEstimates) -> dict[int, Ngram]:
    assert found.longer is not None
    small = {0: found.further["position"], **{m: found.further[f"nearest_{m}"] for m in (1, 4)}}
    return {m: one.ngram for m, one in {**small, 10: found.longer}.items()}


def test_the_nearest_pixels_are_those_of_the_reference_and_of_least_distance() -> None:
    assert nearest(10) == OFFSETS
    for order in range(1, 40):
        some = nearest(order)
        assert len(set(some)) == order and all(dy < 0 or (dy == 0 and dx < 0) for dy, dx in some)
        most = max(dy * dy + dx * dx for dy, dx in some)
        earlier = [(dy, dx) for dy, dx in product(range(-9, 1), range(-9, 10)) if dy < 0 or dx < 0]
        assert {(dy, dx) for dy, dx in earlier if dy**2 + dx**2 < most} < set(some)


@pytest.mark.parametrize("levels", [2, 3])
def test_tables_are_counts_with_a_half_added(levels: int) -> None:
    random = np.random.default_rng(levels)
    train, held = (np.clip(random.integers(-1, levels, (n, 5, 4)), 0, None) for n in (40, 7))
    (rows, shape), (other, _) = rows_of(train, levels), rows_of(held, levels)
    for smoothing, half in ((None, 0.5), (0.1, 0.1)):
        found = tables(ngram_estimates(rows, shape, levels, None, smoothing))
        for order, ngram in found.items():
            assert score(ngram, other).mean == pytest.approx(by_hand(train, held, levels, order, half), abs=1e-12)
            kept = Ngram.from_arrays(ngram.arrays())
            kept.check()
            assert score(kept, other).mean == score(ngram, other).mean


def test_weights_count_images_and_the_largest_number_of_pixels_may_be_given() -> None:
    random = np.random.default_rng(5)
    train, weight = random.integers(0, 2, (9, 3, 4)), random.uniform(size=9)
    rows, shape = rows_of(train, 2, weight)
    found = ngram_estimates(rows, shape, 2, 3, None)
    assert set(found.further) == {"position", "nearest_1"} and found.longer is not None
    other, _ = rows_of(train, 2)
    expected = by_hand(train, train, 2, 3, weight=weight)
    assert score(found.longer.ngram, other).mean == pytest.approx(expected, abs=1e-12)
    assert found.longer.facts()["order"] == 3
    assert found.longer.residual < 1e-15


def test_the_null_model_is_the_shares_of_levels() -> None:
    train = np.random.default_rng(5).integers(0, 3, (9, 3, 4)) // 2
    rows, shape = rows_of(train, 2)
    ngram = null_table(rows, 2, shape)
    assert ngram is not None
    share = np.bincount(train.ravel(), minlength=2) / train.size
    assert score(ngram, rows).mean == pytest.approx(float(-(share * np.log(share)).sum()), abs=1e-14)


def test_many_levels_leave_out_contexts_whose_keys_are_too_large() -> None:
    assert orders(2, None) == [1, 4, 10] and orders(2, 4) == [1, 4] and orders(2, 1) == [1]
    assert orders(256, None) == [1, 4] and orders(4096, None) == [1, 4]
    with pytest.raises(UsageError, match=r"baseline.order=10 with 256 levels: .* below 2\^63"):
        PixelContext(8, 8, 256, 10).check()
    images = np.random.default_rng(5).integers(0, 256, (4, 3, 3))
    rows, shape = rows_of(images, 256)
    found = ngram_estimates(rows, shape, 256, None, None)
    assert set(found.further) == {"position", "nearest_1"} and found.longer is not None
    assert found.longer.facts()["order"] == 4
    assert score(found.longer.ngram, rows).mean == pytest.approx(by_hand(images, images, 256, 4), abs=1e-12)


def test_damaged_tables_are_refused() -> None:
    rows, shape = rows_of(np.random.default_rng(5).integers(0, 2, (9, 3, 4)), 2)
    parts = tables(ngram_estimates(rows, shape, 2, None, None))[4].arrays()
    with pytest.raises(ValueError, match="another number of contexts"):
        Ngram.from_arrays({**parts, "picture": np.array([3, 4, 5])}).check()


def test_the_reference_values_of_mnist() -> None:
    known = json.loads((folder() / "reference.json").read_text(encoding="utf-8"))["pixels_bits"]["mnist_10k"]
    source = Npz(path=str(folder() / "mnist_10k.npz"), levels=2)
    table = source.read()
    parts = source.parts(table)
    schema = learn_schema(table, source, "labels").of_training(*parts["train"])
    rows = {split: schema.rows(part.take(index), False) for split, (part, index) in parts.items()}
    found = tables(ngram_estimates(rows["train"], schema.row_shape, 2, None, None))
    for order, ngram in found.items():
        name = f"context_{order}" if order else "by_position"
        for split, one in rows.items():
            assert score(ngram, one).mean / log(2) == pytest.approx(known[name][split], abs=1e-12)
