"""Numbers as people write them: read as numbers in every role and from every source, or refused by name."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlefw.data.base import Source
from mlefw.data.csv import Csv
from mlefw.data.frame import Frame, offered
from mlefw.data.parquet import Parquet
from mlefw.errors import UsageError
from mlefw.schema.schema import Schema

VALUES = [1.5, 2.25, 0.5, 1234.5, 1234567.0, 12.0, 2.25, 0.125, 7.5, 3000.0, 40.0]
SIGNED = [-value if k % 3 == 0 else value for k, value in enumerate(VALUES)]
ROLES = ("feature", "target", "offset", "weight", "exposure")
POSITIVE = ("weight", "exposure")


def plain(value: float) -> str:
    return f"{value:.10g}"


def grouped(value: float, sign: str, decimal: str = ".") -> str:
    return f"{value:,.10g}".replace(",", "\0").replace(".", decimal).replace("\0", sign)


def script(value: float, zero: str) -> str:
    return "".join(chr(ord(zero) + int(c)) if c.isdigit() else c for c in plain(value))


def power(value: float, sign: str, raised: Callable[[int], str]) -> str:
    mantissa, exponent = f"{value:.9e}".split("e")
    return f"{mantissa}{sign}10{raised(int(exponent))}"


def superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


READ: dict[str, Callable[[float], str]] = {
    **{f"minus U+{ord(s):04X}": lambda v, s=s: plain(v).replace("-", s) for s in "−–‒﹣－"},  # type: ignore[misc]
    "plus": lambda v: f"{v:+.10g}",
    "plus, full width": lambda v: f"{v:+.10g}".replace("+", "＋"),
    "blanks": lambda v: f" {plain(v)}  ",
    "no-break blanks": lambda v: f"\u00a0{plain(v)}\u00a0",
    "blanks of no width": lambda v: f"\u200b{plain(v)}\ufeff",
    "bare points": lambda v: plain(v) + "." if float(v).is_integer() else plain(v).replace("0.", "."),
    "grouped by a blank": lambda v: grouped(v, " "),
    "grouped by a no-break blank": lambda v: grouped(v, "\u00a0"),
    "grouped by a thin blank": lambda v: grouped(v, "\u2009"),
    "grouped by a narrow no-break blank": lambda v: grouped(v, "\u202f"),
    "grouped by an apostrophe": lambda v: grouped(v, "'"),
    "grouped by a curved apostrophe": lambda v: grouped(v, "’"),
    "grouped by an underscore": lambda v: grouped(v, "_"),
    "percent": lambda v: f"{100 * v:.10g}%",
    "percent after a blank": lambda v: f"{100 * v:.10g} %",
    "per mille": lambda v: f"{1000 * v:.10g}‰",
    **{f"currency {s}": lambda v, s=s: f"{s}{plain(v)}" for s in ("$", "€", "£", "US$", "R$", "CHF ")},  # type: ignore[misc]
    **{f"{s} behind": lambda v, s=s: f"{plain(v)}{s}" for s in ("€", " €", " EUR", "$", " kr")},  # type: ignore[misc]
    "minus before a currency": lambda v: plain(v).replace("-", "-$") if v < 0 else f"${plain(v)}",
    "brackets": lambda v: f"({plain(-v)})" if v < 0 else plain(v),
    "currency in brackets": lambda v: f"($ {plain(-v)})" if v < 0 else f"$ {plain(v)}",
    "minus behind": lambda v: f"{plain(-v)}-" if v < 0 else plain(v),
    "full width": lambda v: script(v, "０").replace(".", "．").replace("-", "－"),
    "Arabic": lambda v: script(v, "٠").replace(".", "٫"),
    "Arabic percent": lambda v: script(100 * v, "٠").replace(".", "٫") + "٪",
    "Persian": lambda v: script(v, "۰").replace(".", "٫"),
    "Devanagari": lambda v: script(v, "०"),
    "exponent": lambda v: f"{v:.9E}",
    "exponent with a D": lambda v: f"{v:.9E}".replace("E", "D"),
    "exponent with another minus": lambda v: f"{v:.9e}".replace("-", "−"),
    "times 10^": lambda v: power(v, "×", lambda k: f"^{k}"),
    "x 10^": lambda v: power(v, " x ", lambda k: f"^{k}"),
    "times 10**": lambda v: power(v, "*", lambda k: f"**{k}"),
    "times 10 raised": lambda v: power(v, "·", superscript),
    "quotes": lambda v: f"'{plain(v)}'",
    "text of a spreadsheet": lambda v: f'="{plain(v)}"',
}


def source(kind: str, folder: Path, columns: dict[str, list[str]], **settings: Any) -> tuple[Source, pa.Table]:
    table = pa.table(columns)
    if kind == "csv":
        with (folder / "d.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
        return Csv(path=str(folder / "d.csv"), **settings), table
    if kind == "parquet":
        pq.write_table(table, folder / "d.parquet")
        return Parquet(path=str(folder / "d.parquet"), **settings), table
    return Frame(**settings), table


def learnt(kind: str, folder: Path, role: str, cells: list[str], **settings: Any) -> np.ndarray:
    """What becomes of a column of cells in a role."""
    count = len(cells)
    columns = {"x": plain_cells(count, 1), "y": plain_cells(count, 3)}
    name = {"feature": "x", "target": "y"}.get(role, "z")
    columns[name] = cells
    roles = {} if role in ("feature", "target") else {role: "z"}
    given, table = source(kind, folder, columns, target="y", **roles, **settings)
    with offered(rows=table):
        read = given.read()
    rows = Schema.learn(read, given, "numeric").rows(read, log_link=True)
    found = {"feature": rows.x[:, 0], "target": rows.y, "weight": rows.weight}.get(role, rows.offset)
    return (found.exp() if role == "exposure" else found).numpy()


def plain_cells(count: int, step: int) -> list[str]:
    return [f"{(k * step) % 7}.5" for k in range(count)]


@pytest.mark.filterwarnings("ignore:.*holds text, all of it numbers")
@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
@pytest.mark.parametrize("notation", READ)
def test_a_notation_is_read_in_every_role(tmp_path: Path, notation: str, kind: str) -> None:
    for role in ROLES:
        values = VALUES if role in POSITIVE else SIGNED
        cells = [READ[notation](value) for value in values]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = learnt(kind, tmp_path, role, cells)
        np.testing.assert_allclose(found, values, rtol=1e-9)
        plain_one = all(_is_plain(cell) for cell in cells)
        told = [str(w.message) for w in said if "is read as numbers, with" in str(w.message)]
        assert len(told) == (0 if plain_one else 1)
        assert plain_one or role not in ("feature", "target") or "data.categorical=[" in told[0]


def _is_plain(cell: str) -> bool:
    return (
        cell.strip().strip("\u200b\ufeff").isascii()
        and set(cell.strip("\u200b\ufeff\u00a0 ")) <= set("0123456789.eE+-")
        and not cell.endswith("-")
    )


def limits(k: int, cell: str) -> str:
    return f"<{cell}" if k % 2 else cell


REFUSED: dict[str, tuple[list[str], str]] = {
    "thousands": (["1,234", "2,345", "12,000", "1,000", "900"], "data.thousands=','"),
    "lakhs": (["12,34,567", "1,00,000", "2,345", "5,000", "7,000"], "data.thousands=','"),
    "decimal comma": (["1,5", "0,125", "2", "3,75", "4,25"], "data.decimal=','"),
    "thousands with points": (["1.234,5", "2.345,25", "12", "7,5", "8,5"], "data.decimal=','"),
    "several points": (["1.234.567", "2.345.678", "1.234.000", "5.000.000", "7.000.000"], "data.decimal=','"),
    "currency and thousands": (["$1,234", "$2,345", "$12,000", "$1,000", "$900"], "data.thousands=','"),
    "hexadecimal": (["0x1F", "0x2", "0x3", "0xFF", "0x10"], "in decimal"),
    "fractions": (["1/2", "3/4", "1", "1 1/2", "5/8"], "decimal numbers"),
    "vulgar fractions": (["½", "1½", "2", "¾", "3"], "decimal numbers"),
    "kilograms": (["12 kg", "15 kg", "9.5 kg", "11 kg", "15 kg"], "numbers alone"),
    "units of two sizes": (["500 g", "1.2 kg", "900 g", "750 g", "2 kg"], "numbers alone"),
    "hours": (["3h", "12h", "4.5h", "3h", "2h"], "numbers alone"),
    "rates": (["3 mg/dl", "12 mg/dl", "4.5 mg/dl", "3 mg/dl", "2 mg/dl"], "numbers alone"),
    "detection limits": ([limits(k, f"0.{k}") for k in range(1, 9)], "head=censored"),
    "limits alone": ([f">{k}" for k in range(1, 9)], "head=censored"),
    "limits, ≤": ([limits(k, f"0.{k}").replace("<", "≤ ") for k in range(1, 9)], "head=censored"),
    "top codes": (["1", "2", "3", "4", "5+", "2", "3"], "head=censored"),
    "errors": (["1.5 ± 0.2", "2.5 ± 0.1", "3 ± 1", "2 ± 0.5", "1 ± 1"], "numbers alone"),
    "day and month": (["31/12/2020", "01/02/2021", "03/02/2021", "31/12/2020", "5/6/2021"], "days since a date"),
    "day with points": (["31.12.2020", "01.02.2021", "03.02.2021", "31.12.2020", "5.6.2021"], "days since a date"),
    "days with a name": (["5 Jan 2020", "6 Feb 2020", "5 Jan 2020", "7 March 2020", "1 May 2020"], "days since a date"),
    "American days": (
        ["Jan 5, 2020", "Feb 6, 2020", "Jan 5, 2020", "May 7, 2020", "June 1, 2020"],
        "days since a date",
    ),
    "years first": (["2020/01/02", "2020/01/03", "2020/01/02", "2020/02/03", "2020/05/06"], "days since a date"),
    "moments": (
        ["2020/01/02 10:00", "2020/01/03 11:30", "2020/01/02 10:00", "2020/02/03 1:00", "2020/05/06 2:00"],
        "days",
    ),
    "times": (["10:30 pm", "1:15 am", "2:30 pm", "3:00 am", "10:30 pm"], "days since a date"),
    "marks": (["1.5", "?", "2.5", "?", "3.5", "?", "?"], "leave these cells empty"),
    "spreadsheet errors": (["1.5", "#DIV/0!", "2.5", "#N/A", "3.5", "#N/A"], "leave these cells empty"),
    "dashes": (["1.5", "—", "2.5", "—", "3.5", "-"], "leave these cells empty"),
    "marks among thousands": (["1,234", "?", "2,345", "?", "5,678", "1,111", "9,000"], "data.thousands=','"),
    "a word": ([*(f"{k}.5" for k in range(19)), "low"], "mend the cells"),
    "many words": ([*(f"{k}.5" for k in range(15)), *(["low"] * 9)], "mend the cells"),
    "percent and shares": (["12%", "0.5", "13%", "0.25", "14%"], "without a sign"),
    "two currencies": (["$12", "€5", "$13", "€25", "$14"], "without a sign"),
    "brackets alone": (["(1)", "(2)", "(3)", "(2)", "(1)"], "without brackets"),
    "infinity": (["1.5", "∞", "2.5", "1.5", "2"], "finite numbers"),
    "several at once": (["1/2", "<0.5", "12:30", "3/4", "0.5", "1.5", "<0.25"], "alike"),
}


@pytest.mark.filterwarnings("ignore:.*is read as numbers")
@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
@pytest.mark.parametrize("notation", REFUSED)
def test_what_can_be_read_in_several_ways_is_refused_by_name(tmp_path: Path, notation: str, kind: str) -> None:
    cells, remedy = REFUSED[notation]
    for role in ("feature", "target") if notation == "brackets alone" else ROLES:
        with pytest.raises(UsageError) as caught:
            learnt(kind, tmp_path, role, cells)
        message = str(caught.value)
        name = {"feature": "'x'", "target": "'y'"}.get(role, "'z'")
        assert name in message
        assert "row" in message
        if "brackets" not in notation:
            assert (remedy if kind == "csv" or "data." not in remedy else "turn the column into numbers") in message
    if notation != "infinity":
        # The mend that every message names: the column is a category then.
        found = learnt(kind, tmp_path, "feature", cells * 2, categorical=["x"])
        assert set(found.tolist()) <= {0.0, 1.0}


SET = {
    "thousands": ({"thousands": ","}, [1234, 2345, 12000, 1000, 900]),
    "lakhs": ({"thousands": ","}, [1234567, 100000, 2345, 5000, 7000]),
    "currency and thousands": ({"thousands": ","}, [1234, 2345, 12000, 1000, 900]),
}


@pytest.mark.filterwarnings("ignore:.*is read as numbers")
@pytest.mark.parametrize("notation", SET)
def test_the_setting_that_is_named_mends_it(tmp_path: Path, notation: str) -> None:
    settings, values = SET[notation]
    for role in ROLES:
        np.testing.assert_allclose(learnt("csv", tmp_path, role, REFUSED[notation][0], **settings), values)


WORDS = {
    "bands": ["18-65", "<18", ">65", "18-65", "<18", ">65"],
    "ranks": ["1st", "2nd", "3rd", "1st", "2nd", "3rd"],
    "codes": ["1A", "2C", "3F", "1A", "2C", "3F"],
    "drives": ["4wd", "2wd", "4wd", "2wd", "4wd", "2wd"],
    "yes and no": ["yes", "no", "yes", "no", "yes", "no"],
    "months": ["Jan", "Feb", "Mar", "Jan", "Feb", "Mar"],
    "mixed codes": ["4", "f", "r", "4", "f", "r"],
    "rates": ["A+", "B-", "A+", "C", "B-", "C"],
    "intervals": ["(0, 1]", "(1, 2]", "(0, 1]", "(1, 2]", "(0, 1]", "(1, 2]"],
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
@pytest.mark.parametrize("words", WORDS)
def test_words_stay_levels(tmp_path: Path, words: str, kind: str) -> None:
    cells = WORDS[words]
    given, table = source(kind, tmp_path, {"x": cells, "y": plain_cells(len(cells), 1)}, target="y", categorical=None)
    with offered(rows=table), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*holds text, all of it numbers")
        schema = Schema.learn(given.read(), given, "numeric")
    assert schema.features[0].kind == "category"
    assert sorted(schema.features[0].levels) == sorted(set(cells))


@pytest.mark.parametrize("notation", ["minus U+2212", "grouped by a thin blank", "brackets", "percent", "Arabic"])
def test_new_rows_are_read_as_the_training_rows_were(tmp_path: Path, notation: str) -> None:
    trained, _ = source(
        "csv", tmp_path, {"x": [plain(v) for v in SIGNED], "y": plain_cells(len(SIGNED), 1)}, target="y"
    )
    schema = Schema.learn(trained.read(), trained, "numeric").of_training(trained.read(), np.arange(len(SIGNED)))
    # Few rows, as of a single new one: nothing is guessed from their number.
    (tmp_path / "new").mkdir()
    new, _ = source("csv", tmp_path / "new", {"x": [READ[notation](-1234.5)], "y": ["1"]})
    reading = schema.reading(new)
    with pytest.warns(UserWarning, match="is read as numbers, with"):
        rows = schema.rows(reading.read(), log_link=False)
    assert rows.x[:, 0].tolist() == pytest.approx([-1234.5])


def test_text_on_purpose_keeps_codes(tmp_path: Path) -> None:
    for cells in (["007", "7", "012", "007"], [str(4000 + 7 * k) for k in range(20)]):
        _, table = source("frame", tmp_path, {"x": cells, "y": plain_cells(len(cells), 1)})
        with offered(rows=table), pytest.warns(UserWarning, match="column 'y' holds text, all of it numbers"):
            assert Frame(target="y").read().columns["x"].tolist() == cells


def test_labels_that_are_no_plain_numbers_are_read_as_in_training(tmp_path: Path) -> None:
    cells = ["1", "2", "3+", "1", "2", "3+"]
    given, _ = source("csv", tmp_path, {"x": plain_cells(6, 1), "y": cells}, target="y", categorical=["y"])
    schema = Schema.learn(given.read(), given, "labels").of_training(given.read(), np.arange(6))
    new, _ = source("csv", tmp_path, {"x": plain_cells(2, 1), "y": ["2", "3+"]})
    assert schema.rows(schema.reading(new).read(), log_link=False).y.tolist() == [1, 2]
