"""Coefficients and figures of the whole fit as frames: the columns, their formats, and what is refused."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from statsmodels.miscmodels.ordinal_model import OrderedModel

from mlefw.cli import run
from mlefw.report.export import as_csv, as_latex, as_markdown, export
from mlefw.report.tidy import GLANCE, TIDY, glance, tidy

HOSTILE = ("a_b%c&d#e", "f{g}\\$~^|h", "=cmd()", 'i "quoted", j', "\x1b[2Jk")


def row(name: str, **values: Any) -> dict[str, Any]:
    known = {
        "estimate": 1 / 3,
        "std_error": 0.1,
        "z": 10 / 3,
        "p_value": 1e-3,
        "ci_low": -0.1,
        "ci_high": 0.6,
        "df": 7.0,
    }
    return {"name": name, **known, **values}


CONTENT: dict[str, Any] = {
    "population": 10.0,
    "num_parameters": 3,
    "log_likelihood": -1.5,
    "converged": True,
    "standard_errors": "RSS / (n - p), t quantiles",
    "dropped": ["gone"],
    "coefficients": {
        "loc": [row("(intercept)"), *(row(name) for name in HOSTILE)],
        "scale": [{"name": "(shared)", "estimate": 2.0, "std_error": 0.5, "ci_low": 1.0, "ci_high": "inf"}],
    },
}


def test_csv_gives_back_every_number_and_every_column() -> None:
    frame = tidy(CONTENT)
    assert tuple(frame) == TIDY
    header, *lines = csv.reader(io.StringIO(as_csv(frame)))
    assert tuple(header) == TIDY
    found = [dict(zip(TIDY, line, strict=True)) for line in lines]
    assert float(found[0]["estimate"]) == 1 / 3
    assert float(found[0]["statistic"]) == 10 / 3
    assert [line["term"] for line in found][-2:] == ["gone", "(shared)"]
    gone, shared = found[-2:]
    assert gone["dropped"] == "true"
    assert gone["estimate"] == gone["p.value"] == ""
    assert (shared["p.value"], shared["df"], shared["dropped"]) == ("", "", "false")
    assert float(shared["conf.high"]) == math.inf
    assert shared["se_type"] == "observed information, delta method"
    # A spreadsheet computes no name, and a terminal obeys none.
    assert found[3]["term"] == "'=cmd()"
    assert "\x1b" not in as_csv(frame)


def test_latex_and_markdown_escape_names() -> None:
    tex, md = as_latex(tidy(CONTENT)), as_markdown(tidy(CONTENT))
    assert r"a\_b\%c\&d\#e" in tex
    assert r"f\{g\}\textbackslash{}\$\textasciitilde{}\textasciicircum{}|h" in tex
    assert "$-$0.1" in tex
    columns = len(TIDY)
    assert {line.replace(r"\&", "").count("&") for line in tex.splitlines() if " & " in line} == {columns - 1}
    assert {line.replace(r"\|", "").count("|") for line in md.splitlines()} == {columns + 1}
    assert "\x1b" not in tex + md


def test_parquet_keeps_types(tmp_path: Path) -> None:
    export(tidy(CONTENT), tmp_path / "c.parquet")
    table = parquet.read_table(tmp_path / "c.parquet")
    assert table.column("estimate").type == table.column("df").type == pa.float64()
    assert table.column("dropped").to_pylist()[-2:] == [True, False]
    assert table.column("term").to_pylist()[2] == HOSTILE[1]


def test_a_glance_is_one_row() -> None:
    found = glance(CONTENT)
    assert tuple(found) == tuple(GLANCE)
    assert (found["nobs"], found["logLik"], found["AIC"]) == (10.0, -1.5, None)
    assert as_csv({name: [value] for name, value in found.items()}).splitlines()[1].startswith("10,3,-1.5,")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tidy")
    random = np.random.default_rng(3)
    x = random.normal(size=(80, 2))
    latent = x @ [1.0, -0.5] + random.logistic(size=80)
    columns = {"a": x[:, 0], "b_%": x[:, 1], "twice": 2 * x[:, 0], "y": x[:, 0] + random.normal(size=80)}
    arrow_csv.write_csv(pa.table(columns), folder / "d.csv")
    arrow_csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1], "y": np.digitize(latent, [-1, 1])}), folder / "o.csv")
    return folder


def test_the_command_writes_both_files(table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = ("data=csv", f"data.path={table / 'd.csv'}", "data.target=y")
    files = (f"table={tmp_path / 'c.csv'}", f"glance={tmp_path / 'g.parquet'}")
    assert run(["baseline", *data, *files, f"run_dir={tmp_path / 'b'}"]) == 0
    found = arrow_csv.read_csv(tmp_path / "c.csv").to_pydict()
    frame = arrow_csv.read_csv(table / "d.csv").to_pydict()
    fit = sm.OLS(frame["y"], sm.add_constant(np.column_stack([frame["a"], frame["b_%"]]))).fit()
    assert found["term"] == ["(intercept)", "a", "b_%", "twice", "(shared)"]
    assert found["dropped"] == [False, False, False, True, False]
    np.testing.assert_allclose(found["estimate"][:3], fit.params, rtol=1e-10)
    np.testing.assert_allclose(found["std.error"][:3], fit.bse, rtol=1e-10)
    np.testing.assert_allclose(found["conf.high"][:3], fit.conf_int()[:, 1], rtol=1e-10)
    assert found["df"][:3] == [77, 77, 77]
    one = parquet.read_table(tmp_path / "g.parquet").to_pydict()
    assert one["nobs"] == [80]
    assert one["logLik"] == pytest.approx([fit.llf], rel=1e-12)
    assert one["sigma"] == pytest.approx([math.sqrt(fit.scale)], rel=1e-12)
    assert one["df.residual"] == [77]
    content = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))
    assert content["glance"] == {name: values[0] for name, values in one.items()}
    capfd.readouterr()
    assert run(["baseline", *data, files[0], f"run_dir={tmp_path / 'c'}"]) == 2
    assert "c.csv exists" in capfd.readouterr().err
    for path, words in (("c.xlsx", ".csv, .tex, .md, .parquet"), ("no/c.csv", "there is no directory")):
        assert run(["baseline", *data, f"table={tmp_path / path}", f"run_dir={tmp_path / 'c'}"]) == 2
        assert words in capfd.readouterr().err
    assert not (tmp_path / "c").exists()


def test_thresholds_stand_for_gaps(table: Path, tmp_path: Path) -> None:
    data = ("data=csv", f"data.path={table / 'o.csv'}", "data.target=y")
    assert run(["baseline", "head=ordinal", *data, f"table={tmp_path / 'c.csv'}", f"run_dir={tmp_path / 'b'}"]) == 0
    found = arrow_csv.read_csv(tmp_path / "c.csv").to_pydict()
    assert found["parameter"][-2:] == ["thresholds", "thresholds"]
    assert not any("gap" in name for name in found["parameter"])
    frame = arrow_csv.read_csv(table / "o.csv").to_pydict()
    model = OrderedModel(np.array(frame["y"]), np.column_stack([frame["a"], frame["b"]]), distr="logit")
    fit = model.fit(method="bfgs", disp=False, gtol=1e-10)
    np.testing.assert_allclose(found["estimate"][-2:], model.transform_threshold_params(fit.params)[1:-1], rtol=1e-4)
    # The first threshold is a parameter of statsmodels, too, so that its error stands there.
    assert found["std.error"][-2] == pytest.approx(fit.bse[2], rel=1e-4)
