"""Images as levels of pixels: what a value becomes, what a row holds, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from mlefw.data.arrays import Arrays, as_arrays
from mlefw.errors import MisfitError, UsageError
from mlefw.rows.shape import RowShape
from mlefw.schema.kinds import learn_schema, schema_from
from mlefw.schema.pixels import PixelSchema


def learnt(x: np.ndarray, levels: int, index: Any = None, **more: Any) -> PixelSchema:
    table = as_arrays({"x": x}, None, "x", "y")
    schema = learn_schema(table, Arrays(levels=levels, **more), "labels")
    found = schema.of_training(table, np.arange(len(x)) if index is None else index)
    assert isinstance(found, PixelSchema)
    return found


@pytest.mark.parametrize("levels", [2, 3, 16, 100, 255, 256])
def test_bytes_are_divided_into_equal_runs_from_0_to_255(levels: int) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    found = learnt(x, levels).quantised(x)
    assert found.ravel().tolist() == [value * levels // 256 for value in range(256)]
    assert (found == x).all() if levels == 256 else found.max() == levels - 1
    run = np.bincount(found.ravel().astype(int))
    assert run.max() - run.min() <= 1


def test_two_levels_part_bytes_above_127() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 4)).astype(np.uint8)
    assert (learnt(x, 2).quantised(x) == (x > 127)).all()


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "float32", "float64"])
def test_other_types_take_the_range_of_the_training_rows_and_clip_what_lies_outside(dtype: str) -> None:
    x = np.array([[[-4, 0], [6, 15]], [[-100, 3], [8, 100]]]).astype(dtype)
    schema = learnt(x, 5, np.array([0]))
    assert (schema.low, schema.high) == (-4, 15)
    expected = [0, 1, 2, 4, 0, 1, 3, 4]
    assert schema.quantised(x).ravel().tolist() == expected
    assert schema_from(schema.to_dict()) == schema


def test_a_range_that_is_given_holds_for_bytes_too() -> None:
    x = np.array([[[0, 1], [1, 0]]] * 2, dtype=np.uint8)
    assert learnt(x, 2, range=[0, 1]).quantised(x[0]).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(UsageError, match=r"all pixels .* level 0 .*values are 0 to 1.*\n.*data.range=\[0,1\]"):
        learnt(x, 2)


@pytest.mark.parametrize("levels", [2, 255, 256, 1000])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_a_row_is_the_image_in_raster_order_behind_the_start_token(levels: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(size=(7, *shape))
    schema = learnt(x, levels)
    rows = schema.rows(as_arrays({"x": x}, None, "x", "y"), False)
    lowest, highest = x.min(), x.max()
    level = np.minimum(np.floor((x - lowest) / (highest - lowest) * levels), levels - 1).astype(int)
    assert rows.y.tolist() == level.reshape(7, 12).tolist()
    assert rows.x[:, 0].tolist() == [levels] * 7
    assert rows.x[:, 1:].tolist() == rows.y[:, :-1].tolist()
    assert rows.weight.tolist() == [[1.0] * 12] * 7
    assert rows.x.dtype == (torch.uint8 if levels < 256 else torch.int16)
    # Both are views of one array of a token more than there are pixels; weights and offsets are one number each.
    assert rows.num_bytes == 7 * 13 * rows.x.element_size() + 16
    assert schema.row_shape == RowShape((12,), (12,), levels + 1, True, (3, 4))
    assert schema.row_shape.observation == "pixel"


def test_weights_hold_for_all_pixels_of_an_image() -> None:
    x = np.random.default_rng(1).normal(size=(3, 2, 2))
    table = as_arrays({"x": x, "w": np.array([1.0, 0.0, 2.5])}, None, "x", "y")
    schema = learn_schema(table, Arrays(levels=2, weight="w"), "labels").of_training(table, np.arange(3))
    assert schema.rows(table, False).weight.tolist() == [[1.0] * 4, [0.0] * 4, [2.5] * 4]


def test_levels_are_shown_as_bytes() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    assert learnt(x, 2).grey(np.array([0, 1])).tolist() == [0, 255]
    assert learnt(x, 4).grey(np.array([[0, 1], [2, 3]])).tolist() == [[0, 85], [170, 255]]
    assert (learnt(x, 256).grey(x) == x).all()


REFUSED: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "colours": (np.zeros((4, 3, 2, 2)), {}, r"3 channels, whose values have no one raster order\n.*data.color=gray"),
    "a table": (np.zeros((4, 3)), {}, r"no images\n.*\(n, height, width\)"),
    "one value": (np.full((4, 2, 2), 7.0), {}, r"is 7 in all training rows"),
    "few values": (np.arange(16).reshape(4, 2, 2), {"levels": 17}, r"more than the 16 whole numbers from 0 to 15"),
    "parts": (np.arange(16).reshape(4, 2, 2), {"range": [0.5, 7]}, r"data.range=\[0.5,7\]: expected whole numbers"),
    "holes": (np.array([[[0.0, np.nan]], [[1.0, 0.0]]]), {}, r"row 0, position \(0, 1\): nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_grey_image_is_refused(name: str) -> None:
    x, settings, said = REFUSED[name]
    with pytest.raises(UsageError, match=said):
        learnt(x, **{"levels": 2, **settings})


def test_heads_of_other_kinds_settings_that_exclude_each_other_and_other_images_are_refused() -> None:
    x = np.random.default_rng(1).normal(size=(3, 2, 2))
    table = as_arrays({"x": x}, None, "x", "y")
    with pytest.raises(MisfitError, match="expected: head=categorical model=transformer"):
        learn_schema(table, Arrays(levels=2), "numeric")
    for settings in ({"levels": 2, "vocabulary": 3}, {"range": [0.0, 1.0]}, {"levels": 2, "range": [1.0, 0.0]}):
        with pytest.raises(UsageError, match=r"data\.(levels|range)"):
            Arrays(**settings).accepted(lambda: table)  # type: ignore[arg-type]
    schema = learnt(x, 2)
    with pytest.raises(UsageError, match=r"shape \(2, 3\)\n.*\(2, 2\), as in training"):
        schema.rows(as_arrays({"x": np.zeros((3, 2, 3))}, None, "x", "y"), False)
    with pytest.raises(UsageError, match=r"uint8\n.*float64, as in training"):
        schema.rows(as_arrays({"x": np.zeros((3, 2, 2), np.uint8)}, None, "x", "y"), False)
    with pytest.raises(UsageError, match="do not fit each other"):
        schema_from({**schema.to_dict(), "levels": 3})
