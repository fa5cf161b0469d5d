"""Designs of formulas on rows that are not those of training: columns by numpy, and what is said of them."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlefw.configuration.record import typed
from mlefw.errors import UsageError
from mlefw.reading.levels import factorize
from mlefw.reading.table import Table
from mlefw.schema import design as design_module
from mlefw.schema.design import Design
from mlefw.schema.feature import Feature, Unseen, learn_feature
from mlefw.schema.schema import Schema

N = 60
RANDOM = np.random.default_rng(3)
COLUMNS: dict[str, np.ndarray] = {
    "x": RANDOM.normal(size=N),
    "z": RANDOM.uniform(1, 4, size=N),
    "g": np.array(["a", "b", "c"], dtype=object)[np.arange(N) % 3],
    "k": np.array([1, 2, 5])[RANDOM.integers(0, 3, N)],
    "h": np.array([f"h{i}" for i in np.arange(N) % 7], dtype=object),
    "two words": RANDOM.normal(size=N),
}


def learnt(text: str, **more: str) -> tuple[Design, tuple[Feature, ...]]:
    """A design of all rows, and the features that it reads."""
    table = Table(COLUMNS, "d.csv", 2)
    made = Design.of({"loc": text, **more}, {}, (), list(COLUMNS), "d.csv")
    ones = np.ones(N)
    features = tuple(
        learn_feature(table, name, False).learn_means([(table, ones)], impute=False) for name in made.columns
    )
    return made.learn(features, table, np.arange(N), ones), features


def columns(of: tuple[Design, tuple[Feature, ...]], unseen: Unseen = "error", **new: Any) -> np.ndarray:
    """The design columns of new rows."""
    made, features = of
    given = {name: np.asarray(values) for name, values in new.items()}
    table = Table(
        {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in given.items()},
        "n.csv",
        2,
    )
    x = np.zeros((table.num_rows, len(made.names)))
    made.fill(x, features, table, unseen)
    return x


def beyond(of: tuple[Design, tuple[Feature, ...]], **new: Any) -> Mapping[str, list[int]]:
    made, features = of
    table = Table({name: np.asarray(values) for name, values in new.items()}, "n.csv", 2)
    return {label: index[rows].tolist() for label, _, index, rows in made.beyond(features, table)}


def test_an_unknown_level_is_an_error_the_reference_or_the_mean_over_the_levels() -> None:
    of = learnt("x*C(k) + g")
    names = ["x", "C(k)[T.2]", "C(k)[T.5]", "g[T.b]", "g[T.c]", "x:C(k)[T.2]", "x:C(k)[T.5]"]
    assert sorted(of[0].names) == sorted(names)
    order = [of[0].names.index(name) for name in names]
    with pytest.raises(UsageError, match=r"'k' \(a category by C\(k\)\) .*\n  row 2: '9'\n  known: '1', '2', '5'"):
        columns(of, x=[3.0], k=[9], g=["a"])
    with pytest.warns(UserWarning, match=r"'k' holds levels that the training data do not: '9'; row 3"):
        reference = columns(of, "reference", x=[3.0, 3.0], k=[2, 9], g=["a", "b"])[:, order]
    np.testing.assert_array_equal(reference, [[3, 1, 0, 0, 0, 3, 0], [3, 0, 0, 1, 0, 0, 0]])
    two, five = (np.mean(COLUMNS["k"] == k) for k in (2, 5))
    with pytest.warns(UserWarning, match="holds levels"):
        averaged = columns(of, "ignore", x=[3.0, 3.0], k=[9, 5], g=["c", "q"])[:, order]
    third = 1 / 3
    np.testing.assert_allclose(
        averaged, [[3, two, five, 0, 1, 3 * two, 3 * five], [3, 0, 1, third, third, 0, 3]], rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("term", ["C(g, contr.treatment(base='c'))", "C(g, levels=['c', 'a', 'b'])"])
def test_the_reference_is_the_one_that_the_formula_states(term: str) -> None:
    of = learnt(term)
    with pytest.warns(UserWarning, match="holds levels"):
        found = columns(of, "reference", g=["a", "q", "c"])
    np.testing.assert_array_equal(found[1], found[2])
    assert found[0].sum() == 1


@pytest.mark.parametrize("term", ["bs(z, df=5)", "bs(`two words`, df=4)", "bs(log(z), df=4)"])
def test_beyond_the_range_of_a_spline_its_rows_are_named(term: str) -> None:
    of = learnt(term)
    name = "two words" if "two" in term else "z"
    low = COLUMNS[name].min()
    with pytest.raises(
        UsageError, match=r"terms.loc: bs\(.*alone; outside lies row 3 of n.csv\n.*extrapolation='clip'"
    ):
        columns(of, **{name: [low, 99.0]})


@pytest.mark.parametrize(("way", "same"), [("clip", True), ("extend", False)])
def test_a_spline_goes_on_beyond_its_range_as_the_formula_says(way: str, same: bool) -> None:
    of = learnt(f"bs(z, df=5, extrapolation='{way}')")
    high = COLUMNS["z"].max()
    found = columns(of, z=[high, high + 1])
    assert np.allclose(found[0], found[1]) == same
    assert [*beyond(of, z=[high, high + 1]).values()] == [[1]]


def test_rows_for_which_terms_extrapolate_and_unknown_groups_are_found() -> None:
    of = learnt("cr(z, df=4) + poly(x, 2) + s(x, k=5) + s(z, bs='ps', k=6) + (1 | h) + (1 | g:h)")
    inside = {"x": 0.0, "z": 2.0, "h": "h1", "g": "b"}
    rows = {name: [inside[name]] * 4 for name in inside}
    rows["x"][1], rows["z"][2], rows["h"][3] = 50.0, -1.0, "new"
    found = beyond(
        of, **{name: np.array(values, dtype=object if name in "gh" else float) for name, values in rows.items()}
    )
    assert found["poly(x, 2)"] == found["s(x)"] == [1]
    assert found["cr(z, df=4)"] == found["s(z)"] == [2]
    assert found["(1 | h)"] == found["(1 | g:h)"] == [3]


def test_effects_of_an_unknown_group_are_zero_whatever_is_done_with_levels() -> None:
    of = learnt("(1 + x | h)")
    found = columns(of, x=[2.0, 2.0], h=["h3", "new"])
    assert found[0].sum() == 3.0
    assert not found[1].any()


def test_a_logarithm_of_nothing_names_its_rows() -> None:
    with pytest.raises(UsageError, match=r"log\(z\) is not a finite number in rows 3, 4 of n.csv"):
        columns(learnt("log(z)"), z=[1.0, 0.0, -1.0])


def test_missing_values_are_those_of_the_training_rows_and_said() -> None:
    made, features = learnt("x + C(k)")
    hole = np.array([True, False])
    table = Table({"x": np.array([0.0, 1.0]), "k": np.array([0.0, 2.0])}, "n.csv", 2, holes={"x": hole, "k": hole})
    x = np.zeros((2, 3))
    with pytest.warns(UserWarning) as told:
        made.fill(x, features, table, "error")
    np.testing.assert_allclose(x[0], [COLUMNS["x"].mean(), 0, 0])
    texts = [str(one.message) for one in told]
    assert any("'x' has missing values" in text and "(row 2): the mean is taken" in text for text in texts)
    assert any("'k' has missing values" in text and "the reference level 1 is taken" in text for text in texts)


def test_row_order_and_block_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x*g + bs(z, df=5) + poly(x, 3) + s(z, k=5) + (1 + x | h) + center(z) + C(k, contr.sum)"
    of = learnt(text)
    whole = columns(of, **COLUMNS)
    monkeypatch.setattr(design_module, "BLOCK", 7)
    order = RANDOM.permutation(N)
    shuffled = columns(of, **{name: values[order] for name, values in COLUMNS.items()})
    np.testing.assert_array_equal(shuffled, whole[order])
    # One row, whose levels and values are not all of those that there are.
    np.testing.assert_array_equal(columns(of, **{name: values[:1] for name, values in COLUMNS.items()}), whole[:1])


def test_what_is_stored_makes_the_same_columns() -> None:
    text = "x*g + bs(z, df=5) + poly(x, 3) + s(z, k=5) + (1 + g | h) + C(k, contr.sum) + cr(`two words`, df=4)"
    of = learnt(text)
    again = typed(Design, json.loads(json.dumps(_plain(of[0]))), "design")
    np.testing.assert_array_equal(columns((again, of[1]), **COLUMNS), columns(of, **COLUMNS))
    again.check()


def _plain(design: Design) -> Any:
    return Schema((), (), design=design).to_dict()["design"]


def _other_version(design: Design, **changes: Any) -> Design:
    """The design as another version of the library would have stored it."""
    (one,) = design.parameters
    assert one.state is not None
    return replace(design, parameters=(replace(one, state=replace(one.state, version="0.9", **changes)),))


def test_another_version_of_the_library_has_to_make_the_columns_of_stored_rows() -> None:
    made, _ = learnt("x*g + bs(z, df=5) + C(k)")
    (one,) = made.parameters
    assert one.state is not None
    rows, stored = one.state.probe
    assert len(stored) == 5
    assert rows["x"] == COLUMNS["x"][:5].tolist()
    _other_version(made).check()
    changed = [list(row) for row in stored]
    changed[2][1] += 1e-10
    with pytest.raises(UsageError, match=r"terms.loc: formulaic .* makes other columns .* pip install formulaic==0.9"):
        _other_version(made, probe=(rows, changed)).check()


RUNS = "__import__('pathlib').Path({!r}).touch()"


@pytest.mark.parametrize(
    "path",
    [
        "parameters.0.text",
        "parameters.0.shifts.0",
        "parameters.0.random.0.variable",
        "parameters.0.random.1.left",
        "parameters.0.state.ranges.poly(x, 2).0",
    ],
)
@pytest.mark.parametrize(
    "form",
    ["{}", "{{{}}}", "x + {}", "I({})", "C(g, contr.treatment(base=')) + {{{}}} + C(g, contr.treatment(base=('))"],
)
def test_a_stored_text_that_was_changed_runs_nothing(path: str, form: str, tmp_path: Path) -> None:
    of = learnt("poly(x, 2) + offset(z) + s(z, k=5) + (1 + x | h)")
    plain = _plain(replace(of[0], parameters=(replace(of[0].parameters[0], shifts=("z",)),)))
    *way, last = path.split(".")
    node = plain
    for part in way:
        node = node[int(part) if isinstance(node, list) else part]
    node[int(last) if isinstance(node, list) else last] = form.format(RUNS.format(str(tmp_path / "ran")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError):
            tampered = typed(Design, plain, "design")
            tampered.check()
            columns((tampered, of[1]), **COLUMNS)
            tampered.offsets(of[1], Table(COLUMNS, "n.csv"), "error")
            beyond((tampered, of[1]), **COLUMNS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "C(g, contr.treatment(base=')) + {x.real} + C(g, contr.treatment(base=('))",
        "`a'` + C(g, levels=['` x `'])",
        "C(g, levels=['\\'a'])",
    ],
)
def test_a_text_that_the_library_would_split_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"within quotes|calls|cannot be (read|computed)"):
        learnt(text)


def test_groups_of_several_columns_are_named_by_all_of_them() -> None:
    made, _ = learnt("(1 | g/h)")
    outer, inner = made.parameters[0].random
    assert outer.levels == ("a", "b", "c")
    pairs = {f"{a}:{b}" for a, b in zip(COLUMNS["g"], COLUMNS["h"], strict=True)}
    assert set(inner.levels) == pairs
    assert len(factorize(COLUMNS["h"])[0]) == 7
