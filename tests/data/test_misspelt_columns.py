"""A column that a setting names and the data lack is told by its name, wherever it is named, before other faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlefw.configuration.terms import insert_terms
from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.frame import Frame, offered
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError

HEADS: dict[str, dict[str, Any]] = {
    "gaussian": {"_target_": "mlefw.head.gaussian.GaussianHead"},
    "binomial": {"_target_": "mlefw.head.binomial.BinomialHead"},
    "censored": {
        "_target_": "mlefw.head.censored.CensoredHead",
        "component": {"_target_": "mlefw.head.weibull.WeibullHead"},
    },
}
COLUMNS = {"y": [1.0, 2.0, 3.0], "age": [1.0, 2.0, 4.0], "group": ["a", "b", "a"], "other": [1.0, None, 2.0]}
"""`other` has a missing value, which is no fault as long as nothing reads it."""

FORMULAS = {
    "y ~ aeg": "formula of loc: aeg",
    "y ~ group + aeg": "formula of loc: group + aeg",
    "y ~ group:aeg": "formula of loc",
    "y ~ `aeg`": "formula of loc",
    "y ~ I(aeg**2)": "formula of loc",
    "y ~ C(aeg)": "formula of loc",
    "y ~ poly(aeg, 2)": "formula of loc",
    "y ~ s(aeg)": "formula of loc",
    "y ~ (1 | aeg)": "formula of loc",
    "y ~ (1 + aeg | group)": "formula of loc",
    "y ~ offset(log(aeg))": "formula of loc",
    "y ~ group | aeg": "formula of scale: aeg",
    "y ~ . + aeg": "formula of loc",
    "aeg ~ group": "data.target",
    "cbind(aeg, y - aeg) ~ group": "data.target",
    "Surv(y, aeg) ~ group": "data.event",
}
ROLES = ("target", "event", "trials", "offset", "exposure", "weight", "id", "group", "time", "cluster")


def settings(formula: str | None = None, head: str = "gaussian", **data: Any) -> dict[str, Any]:
    """The settings of a source, of a formula or of its own."""
    config: dict[str, Any] = {"head": dict(HEADS[head]), "data": {"target": None, **data}, "formula": formula}
    terms = config["data"].pop("head_terms", None)
    config["head"] |= {"terms": terms} if terms else {}
    insert_terms(config)
    return dict(config["data"])


def head_of(formula: str) -> str:
    return "binomial" if formula.startswith("cbind") else "censored" if formula.startswith("Surv") else "gaussian"


CASES = {
    **{text: (settings(text, head_of(text)), setting) for text, setting in FORMULAS.items()},
    **{role: ({"target": "y", role: "aeg"}, f"data.{role}") for role in ROLES},
    **{f"a formula and {role}": (settings("y ~ age", **{role: "aeg"}), f"data.{role}") for role in ROLES[1:]},
    "features": ({"target": "y", "features": ["aeg"]}, "data.features"),
    "categorical": ({"target": "y", "categorical": ["aeg"]}, "data.categorical"),
    "several targets": ({"target": ["y", "aeg"]}, "data.target"),
    "several clusters": ({"target": "y", "cluster": ["group", "aeg"]}, "data.cluster"),
    "terms of a parameter": (settings(target="y", head_terms={"scale": "1 + aeg"}), "formula of scale: 1 + aeg"),
    "offset of a parameter": (settings("y ~ age", offset={"scale": "aeg"}), "data.offset of scale"),
    "variance weight": (settings("y ~ age", variance_weight="aeg"), "data.variance_weight"),
}


def csv_file(folder: Path) -> str:
    lines = [",".join(COLUMNS), *(",".join("" if v is None else str(v) for v in row) for row in zip(*COLUMNS.values()))]  # noqa: B905
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "rows.csv")


@pytest.mark.parametrize("case", CASES)
def test_the_column_and_the_setting_that_names_it_are_told(case: str, tmp_path: Path) -> None:
    own, setting = CASES[case]
    with pytest.raises(UsageError) as error:
        Csv(path=csv_file(tmp_path), **own).read()
    first, column, rest = str(error.value).split("\n")
    assert first == f"{tmp_path}/rows.csv lacks these columns"
    assert column.startswith(f"  'aeg' ({setting}")
    assert column.endswith("did you mean 'age'?")
    assert rest == "  it has 'y', 'age', 'group', 'other'"


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_every_source_tells_of_it_once_and_reads_what_there_is(kind: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(COLUMNS), tmp_path / "rows.parquet")

    def source(**own: Any) -> Source:
        if kind == "frame":
            return Frame(**own)
        return Csv(path=csv_file(tmp_path), **own) if kind == "csv" else Parquet(path=f"{tmp_path}/rows.parquet", **own)

    with offered(rows=pa.table(COLUMNS)):
        with pytest.raises(
            UsageError, match=r"'aeg' \(formula of loc: aeg\): did you mean 'age'\?\n  it has .*'other'"
        ):
            source(**settings("y ~ aeg")).read()
        table = source(**settings("y ~ age")).read()
    assert list(table.columns) == ["y", "age"]
    np.testing.assert_array_equal(table.columns["age"], COLUMNS["age"])
