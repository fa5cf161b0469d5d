"""Censored rows, as two bounds or as a time and whether its event was observed: what each coding means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.frame import Frame, as_arrow, offered
from mlefw.errors import MisfitError, UsageError
from mlefw.head.censored import CensoredHead
from mlefw.head.exponential import ExponentialHead
from mlefw.head.gaussian import GaussianHead
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.schema.schema import Schema
from mlefw.schema.support import check_targets

TIME = [1.5, 2.0, 0.5, 4.0, 3.0, 2.5]
OBSERVED = [True, False, True, True, False, True]
X = [0.5, 1.0, -1.0, 2.0, 0.0, 0.25]


def coded(data: Any, **settings: Any) -> tuple[Schema, Rows]:
    source = Frame(**settings)
    source.bounds = source.event is None
    source.partial = source.bounds
    with offered(rows=as_arrow(data)):
        table = source.read()
    schema = Schema.learn(table, source, "numeric")
    return schema, schema.rows(table, log_link=False)


def expected() -> np.ndarray:
    return np.stack([TIME, np.where(OBSERVED, TIME, np.nan)], 1)


CODES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "0 and 1": ([int(o) for o in OBSERVED], {}),
    "0.0 and 1.0": ([float(o) for o in OBSERVED], {}),
    "false and true": (OBSERVED, {}),
    "the other way round": ([int(not o) for o in OBSERVED], {"event_code": 0}),
    "true where censored": ([not o for o in OBSERVED], {"event_code": False}),
    "words": (["dead" if o else "alive" for o in OBSERVED], {"event_code": "dead"}),
    "competing events": ([1 if o else 2 * (k % 2) for k, o in enumerate(OBSERVED)], {"event_code": 1}),
    "codes with a zero": (["01" if o else "00" for o in OBSERVED], {"event_code": "01"}),
}


@pytest.mark.parametrize("case", CODES)
def test_a_time_and_its_event_are_bounds(case: str) -> None:
    status, settings = CODES[case]
    data = pd.DataFrame({"x": X, "time": TIME, "status": status})
    schema, rows = coded(data, target="time", event="status", **settings)
    np.testing.assert_array_equal(rows.y.numpy(), expected())
    assert (schema.names, schema.target, schema.observed) == (["x"], "time", ["time", "status"])
    # New rows are read alike, whichever codes are among them.
    known = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert known == schema
    new = data.iloc[[k for k, o in enumerate(OBSERVED) if o]]
    reading = known.reading(Frame())
    with offered(rows=as_arrow(new)):
        table = reading.read()
    np.testing.assert_array_equal(known.rows(table, log_link=False).y.numpy(), expected()[OBSERVED])


def test_one_and_two_are_taken_as_r_has_them() -> None:
    data = {"x": X, "time": TIME, "status": [1 + int(o) for o in OBSERVED]}
    with pytest.warns(UserWarning, match="2 is taken for the event"):
        np.testing.assert_array_equal(coded(data, target="time", event="status")[1].y.numpy(), expected())
    turned = coded(data, target="time", event="status", event_code=1)[1].y.numpy()
    assert (np.isnan(turned[:, 1]) == OBSERVED).all()


UNCLEAR: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "words": (["dead", "alive"] * 3, {}, "which of them is the event is not clear"),
    "three codes": ([0, 1, 2] * 2, {}, "data.event_code=2"),
    "other numbers": ([3, 4] * 3, {}, "not clear"),
    "fractions": ([0.5, 1] * 3, {}, "not clear"),
    "another code": ([0, 1] * 3, {"event_code": 2}, "data.event_code=2: column 'status'"),
    "missing": ([0, None, 1] * 2, {}, "column 'status'"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_unclear_codes_are_refused(case: str) -> None:
    status, settings, words = UNCLEAR[case]
    with pytest.raises(UsageError) as caught:
        coded(pd.DataFrame({"x": X, "time": TIME, "status": status}), target="time", event="status", **settings)
    assert words in str(caught.value)
    assert "status" in str(caught.value)


def test_a_code_that_training_did_not_have_is_refused() -> None:
    schema, _ = coded({"x": X, "time": TIME, "status": OBSERVED}, target="time", event="status")
    with offered(rows=as_arrow({"x": X, "time": TIME, "status": ["maybe"] * 6})):
        table = schema.reading(Frame()).read()
    with pytest.raises(UsageError, match=r"'status' \(data.event\) holds a value that the training data do not"):
        schema.rows(table, log_link=False)


@pytest.mark.parametrize(
    ("target", "event", "kind", "words"),
    [
        ("time", "status", GaussianHead, "data.event=status belongs to a censored time"),
        (
            ["low", "high"],
            "status",
            CensoredHead,
            r"data.target=\[low,high\], got(?s:.*)data.target=time data.event=status",
        ),
        ("time", None, CensoredHead, r"data.target=\[low,high\], got(?s:.*)data.target=time data.event=status"),
    ],
)
def test_an_event_goes_with_one_censored_time(target: Any, event: str | None, kind: type, words: str) -> None:
    with pytest.raises(MisfitError, match=words):
        check_targets(Frame(target=target, event=event), kind, {})


NO_BOUND = ["", "NA", "NaN", "inf", "Inf", "+inf", "Infinity", "∞"]


@pytest.mark.filterwarnings("ignore:.*is read as numbers, with an infinity sign")
@pytest.mark.parametrize("cell", NO_BOUND)
def test_infinity_is_no_bound_as_an_empty_cell_is(tmp_path: Path, cell: str) -> None:
    low = [t if o or k % 2 else cell.replace("+", "") for k, (t, o) in enumerate(zip(TIME, OBSERVED, strict=True))]
    low = [f"-{c}" if c in ("inf", "Inf", "Infinity", "∞") else c for c in low]
    high = [t if o or not k % 2 else cell for k, (t, o) in enumerate(zip(TIME, OBSERVED, strict=True))]
    lines = ["x,low,high", *(",".join(map(str, row)) for row in zip(X, low, high, strict=True))]
    (tmp_path / "d.csv").write_text("\n".join(lines), encoding="utf-8")
    source = Csv(path=str(tmp_path / "d.csv"), target=["low", "high"])
    source.bounds = source.partial = True
    table = source.read()
    y = Schema.learn(table, source, "numeric").rows(table, log_link=False).y.numpy()
    numbers = [[np.nan if isinstance(one, str) else one for one in pair] for pair in zip(low, high, strict=True)]
    np.testing.assert_array_equal(y, numbers)


def test_the_other_infinity_is_no_bound_at_all() -> None:
    for low, high in (([np.inf, 1, 2, 3, 4, 5], TIME), (TIME, [-np.inf, 1, 2, 3, 4, 5])):
        with pytest.raises(UsageError, match="infinite value") as caught:
            coded({"x": X, "low": low, "high": high}, target=["low", "high"])
        assert "an empty cell" in str(caught.value)


def test_a_number_that_is_known_exactly_is_both_bounds() -> None:
    _, rows = coded({"x": X, "time": TIME}, target=["time", "time"])
    np.testing.assert_array_equal(rows.y.numpy(), np.stack([TIME, TIME], 1))
    other: Source = Frame(target=["time", "time"])
    with offered(rows=as_arrow({"x": X, "time": TIME})), pytest.raises(UsageError, match="'time' is both"):
        Schema.learn(other.read(), other, "numeric")


@pytest.mark.parametrize("empty", ["low", "high"])
def test_a_bound_may_be_missing_in_every_row(empty: str) -> None:
    other = "high" if empty == "low" else "low"
    _, rows = coded({"x": X, other: TIME, empty: pa_nulls()}, target=["low", "high"])
    column = 0 if empty == "low" else 1
    assert bool(rows.y[:, column].isnan().all())
    assert rows.y[:, 1 - column].tolist() == TIME
    with pytest.raises(UsageError, match="have none of the targets"):
        coded({"x": X, other: pa_nulls(), empty: pa_nulls()}, target=["low", "high"])


def pa_nulls() -> Any:
    return np.full(6, np.nan)


def test_the_estimate_is_that_of_events_and_time_under_risk() -> None:
    # Without a feature the rate of an exponential time is the number of events by the time under risk.
    data = {"x": np.ones(6), "time": TIME, "status": OBSERVED}
    with pytest.warns(UserWarning, match="constant features 'x'"):
        _, rows = coded(data, target="time", event="status")
    head = CensoredHead(ExponentialHead())
    problem = Problem.of(head, rows, rows.x.mean(0), rows.x.new_ones(1), NoPrior())
    solution = LinearBaseline().solve(problem)
    rate = sum(OBSERVED) / sum(TIME)
    expected_nll = -(sum(OBSERVED) * np.log(rate) - rate * sum(TIME)) / len(TIME)
    assert solution.objective == pytest.approx(expected_nll, rel=1e-9)
