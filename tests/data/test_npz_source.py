"""Arrays from files: their types, splits and codes, and errors with place and remedy for all that can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlefw.data.npz import Npz
from mlefw.errors import UsageError
from mlefw.head.categorical import CategoricalHead
from mlefw.head.poisson import PoissonHead
from mlefw.rows.rows import Rows
from mlefw.rows.stored import StoredRows
from mlefw.schema.encode import coded
from mlefw.schema.kinds import learn_schema, schema_from
from mlefw.schema.support import check_support
from mlefw.schema.target import TargetKind

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 255, (40, 1, 5, 5)).astype(np.uint8)
Y = np.arange(40) % 3 + 4
SERIES = RANDOM.normal(size=(40, 7, 2)).astype(np.float32)
STEPS = RANDOM.integers(0, 3, (40, 7)).astype(np.int64)


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "d.npz", **arrays)
    return str(folder / "d.npz")


def rows_of(source: Npz, kind: TargetKind = "labels") -> Rows:
    table = source.read()
    return learn_schema(table, source, kind).rows(table, log_link=False)


def test_arrays_keep_their_types_and_labels_become_codes(tmp_path: Path) -> None:
    rows = rows_of(Npz(path=saved(tmp_path, x=X, y=Y)))
    assert rows.x.dtype == torch.uint8 and torch.equal(rows.x, torch.from_numpy(X))
    assert rows.y.dtype == torch.uint8 and rows.y.tolist() == (Y - 4).tolist()
    assert rows.weight.shape == (40,) and rows.num_bytes == X.size + 40 + 16


def test_a_target_at_each_position_gives_positions_and_masks_hide_what_they_hold(tmp_path: Path) -> None:
    weight = (RANDOM.uniform(size=(40, 7)) > 0.3).astype(float)
    y = np.where(weight > 0, STEPS, -100)
    rows = rows_of(Npz(path=saved(tmp_path, x=SERIES, y=y, w=weight), weight="w"))
    assert rows.positions == (7,) and torch.equal(rows.weight, torch.from_numpy(weight))
    assert np.array_equal(rows.y.numpy()[weight > 0], STEPS[weight > 0]) and int(rows.y.min()) == 0
    holes = np.where(weight > 0, SERIES[..., 0], np.nan)
    numbers = rows_of(Npz(path=saved(tmp_path, x=SERIES, y=holes, w=weight), weight="w"), "numeric")
    assert numbers.y.dtype == torch.float32 and bool(numbers.y.isfinite().all())
    assert np.array_equal(numbers.y.numpy()[weight > 0], SERIES[..., 0][weight > 0])


def test_a_weight_or_offset_of_a_row_holds_for_all_its_positions(tmp_path: Path) -> None:
    own = RANDOM.uniform(1, 2, 40)
    source = Npz(path=saved(tmp_path, x=SERIES, y=STEPS, w=own, o=-own), weight="w", offset="o")
    rows = rows_of(source)
    expected = np.repeat(own[:, None], 7, 1)
    assert np.array_equal(rows.weight.numpy(), expected) and np.array_equal(rows.offset.numpy(), -expected)


def test_a_folder_is_memory_mapped_and_equals_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y.astype(">i4"))
    source = Npz(path=str(tmp_path))
    assert isinstance(source.read().columns["x"], np.memmap)
    folder, file = rows_of(source), rows_of(Npz(path=saved(tmp_path, x=X, y=Y)))
    assert all(torch.equal(one, other) for one, other in zip(folder, file, strict=True))


def test_rows_may_be_kept_in_files_and_constant_columns_are_not(tmp_path: Path) -> None:
    source = Npz(path=saved(tmp_path, x=X, y=Y), stream=True, cache=str(tmp_path))
    table = source.read()
    rows = coded(learn_schema(table, source, "labels"), CategoricalHead(3), table, np.arange(5, 40), source.store)
    assert isinstance(rows, StoredRows) and rows.x.dtype == torch.uint8 and not any(rows.weight.stride())
    assert np.array_equal(rows.x.numpy(), X[5:]) and rows.y.tolist() == (Y[5:] - 4).tolist()


def test_groups_stay_together_and_strata_have_equal_shares(tmp_path: Path) -> None:
    group = np.repeat(np.arange(10), 4)
    path = saved(tmp_path, x=X, y=Y, g=group)
    parts = {name: set(group[index]) for name, (_, index) in Npz(path=path, group="g").parts().items()}
    assert sum(map(len, parts.values())) == 10 == len(set.union(*parts.values()))
    source = Npz(path=path, split="stratified", test_fraction=0.25, validation_fraction=0.25)
    source.classes = True
    counts = [np.bincount(Y[index], minlength=7)[4:] for _, index in source.parts().values()]
    assert max(int(np.ptp(count)) for count in counts) <= 1


def test_a_schema_comes_back_from_plain_values_and_holds_new_rows_to_itself(tmp_path: Path) -> None:
    source = Npz(path=saved(tmp_path, x=SERIES, y=STEPS))
    schema = learn_schema(source.read(), source, "labels")
    plain = schema.to_dict()
    assert plain["form"] == "tensors" and schema_from(plain) == schema
    for other, said in (
        ({"x": SERIES[:, :5], "y": STEPS[:, :5]}, r"rows of array 'x' .* have shape \(5, 2\)\n  expected: \(7, 2\)"),
        ({"x": SERIES.astype(float), "y": STEPS}, "holds float64\n  expected: float32, as in training"),
        ({"x": SERIES, "y": STEPS[:, 0]}, r"array 'y' .* has shape \(40,\)\n  expected: \(40, 7\)"),
        ({"x": SERIES, "y": STEPS + 9 * (STEPS == 2)}, r"row \d+, position \d+; .*\n?.*: '11'\n  known: '0', '1', '2'"),
    ):
        with pytest.raises(UsageError, match=said):
            schema.rows(schema.reading(Npz(path=saved(tmp_path, **other))).read(), False)


SPOILT = X.astype(np.float32)
SPOILT[3, 0, 1, 2] = np.nan
SPOILT[8, 0, 0, 0] = np.inf
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such name": ({"x": X, "label": Y}, {}, "lacks these columns\n  'y' .*\n  it has 'x', 'label'"),
    "lengths": ({"x": X, "y": Y[:-1]}, {}, "differ in length\n  rows of 'x' 40, 'y' 39"),
    "objects": ({"x": X, "y": np.array([{}] * 40)}, {}, "'y' holds Python objects, which are never unpickled"),
    "strings": ({"x": X, "y": np.array(["a", "b"] * 20)}, {}, "holds <U1\n  expected: .*codes"),
    "complex": ({"x": X + 1j, "y": Y}, {}, "holds complex128\n  expected: real numbers"),
    "no dimension": ({"x": X, "y": np.array(3)}, {}, r"'y' has shape \(\)"),
    "dimension of zero": ({"x": X[:, :0], "y": Y}, {}, r"has shape \(40, 0, 5, 5\)"),
    "one row": ({"x": X[:1], "y": Y[:1]}, {}, "1 training rows are left of 1|one label alone"),
    "one class": ({"x": X, "y": 0 * Y}, {}, "one label alone: '0'"),
    "not finite": ({"x": SPOILT, "y": Y}, {}, r"row 3, position \(0, 1, 2\): nan; row 8, position \(0, 0, 0\): inf\n"),
    "target nan": ({"x": X, "y": np.where(Y == 5, np.nan, Y)}, {}, "row 1: nan; row 4: nan; .* and 8 more"),
    "column of targets": ({"x": X, "y": Y[:, None]}, {}, r"has shape \(40, 1\)\n  expected: \(40,\)"),
    "weight shape": ({"x": X, "y": Y, "w": np.ones((40, 2))}, {"weight": "w"}, r"expected: numbers of shape \(40,\)"),
    "weight negative": ({"x": X, "y": Y, "w": 1 - (Y == 6) * 2.0}, {"weight": "w"}, "holds -1\n  rows 2, 5, "),
    "weight nan": ({"x": X, "y": Y, "w": np.full(40, np.nan)}, {"weight": "w"}, "row 0: nan"),
    "weights zero": ({"x": X, "y": Y, "w": 0.0 * Y}, {"weight": "w"}, "zero everywhere"),
    "ids": ({"x": X, "y": Y}, {"vocabulary": 9}, "expected: ids from 0 to 8"),
    "ids that are floats": ({"x": SERIES, "y": Y}, {"vocabulary": 9}, "expected: whole numbers"),
    "columns": ({"x": X, "y": Y}, {"features": ["a"]}, "data.features=.* is for columns of a table"),
    "missing": ({"x": X, "y": Y}, {"missing": "drop"}, "data.missing=drop is for columns"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays_are_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    arrays, settings, said = BAD[name]
    source = Npz(path=saved(tmp_path, **arrays), **settings)
    with pytest.raises(UsageError, match=f"(?s){said}"):
        table = source.read()
        schema = learn_schema(table, source, "labels")
        schema.rows(table, log_link=False)
        source.parts(table)


@pytest.mark.parametrize("spoil", ["cut", "text", "empty", "crc", "npy", "folder"])
def test_damaged_files_are_refused(spoil: str, tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=X, y=Y))
    content = path.read_bytes()
    if spoil == "npy":
        np.save(tmp_path / "d.npy", X)
        path = tmp_path / "d.npy"
    elif spoil == "folder":
        path = tmp_path / "empty"
        path.mkdir()
    else:
        flipped = content[:300] + bytes([content[300] ^ 255]) + content[301:]
        path.write_bytes(
            {"cut": content[: len(content) // 2], "text": b"a,b\n1,2\n", "empty": b"", "crc": flipped}[spoil]
        )
    with pytest.raises(UsageError, match=r"(?s)cannot be read|is damaged|without a name|no.*files|without files"):
        rows_of(Npz(path=str(path)))


def test_a_target_outside_the_support_is_named_by_row_and_position_unless_it_is_masked(tmp_path: Path) -> None:
    y = STEPS.astype(np.float64)
    y[5, 3] = -2
    weight = np.ones((40, 7))
    for masked in (False, True):
        weight[5, 3] = 0 if masked else 1
        source = Npz(path=saved(tmp_path, x=SERIES, y=y, w=weight), weight="w")
        table = source.read()
        rows = learn_schema(table, source, "numeric").rows(table, True)
        if masked:
            check_support(PoissonHead(), rows, table, "y")
            continue
        with pytest.raises(UsageError, match=r"array 'y' has values .*\n  row 5, position 3: -2\n  expected: 0, 1, 2"):
            check_support(PoissonHead(), rows, table, "y")
