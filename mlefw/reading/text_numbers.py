"""Text columns that a person reads as numbers: read where that is safe, refused with the reason where it is not."""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlefw.errors import UsageError
from mlefw.reading.notation import MISSING_WORDS, Number, NumberFormat, is_missing_mark, undressed
from mlefw.reading.table import Table

SHARE = 0.9
FEWEST = 5
MANY = 10
"""Distinct numbers that make a column one of numbers where they are half of its cells."""

_NUMBER = r"[-+]?(\d+[.,]?\d*|[.,]\d+)(e[-+]?\d+)?"
_TIME = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?(\s*[ap]\.?m\.?)?(\s*(z|utc|[-+]\d\d:?\d\d))?"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = (
    rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d\d)"
    rf"|\d{{1,2}}\.?[-\s/]*{_MONTH}[-\s/,]*(\d{{4}}|\d\d)|{_MONTH}\s*\d{{1,2}}(st|nd|rd|th)?,?\s*\d{{4}})"
)
_NO_UNITS = {"st", "nd", "rd", "th", "e"}
"""What follows the number of a rank, or an exponent, and is no unit."""

_UNIT = re.compile(
    r"[mkcdµμun]?(g|m[²³23]?|s|l|w|v|a|hz|pa|j|mol|bar)|[kmgt]b|lbs?|oz|in|ft|yd|mi|sec|min|hr?s?|d|days?|w(ee)?ks?"
    r"|mo(nths?)?|y(ea)?(rs?)?|°?[cfk]|°|.+/.+|pp[mb]|bn|mn|k?cal|mmhg"
)


def _test(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda cell: compiled.fullmatch(cell) is not None


looks_hexadecimal = _test(r"[-+]?0x[0-9a-f]+")
looks_like_a_date = _test(rf"{_DAY}([T\s]+{_TIME})?|{_TIME}|[-+]?\d+\s*days?,?(\s+[-+]?{_TIME})?")
looks_like_a_fraction = _test(r"[-+]?(\d+\s+)?\d+\s*[/⁄]\s*\d+|[-+]?\d*\s*[¼½¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]")
looks_like_a_limit = _test(rf"([<>≤≥]=?|=[<>]|~|≈|ca\.?|about)\s*{_NUMBER}|{_NUMBER}\s*\+")
looks_uncertain = _test(rf"{_NUMBER}\s*(±|\+/-|\+-)\s*{_NUMBER}")
_WITH_UNIT = re.compile(rf"{_NUMBER}\s*(?P<unit>[^\W\d_]\S*|[°µμ\"'′″]\S*)", re.IGNORECASE)


class _Mend(NamedTuple):
    """What a message about a column says besides its cells."""

    name: str
    place: Table
    form: NumberFormat | None
    """How numbers are written, where this is a setting."""
    is_known: bool
    """Whether the column has to hold numbers."""

    @property
    def as_text(self) -> str:
        """How to keep the column as it is."""
        return f"take the column as text: data.categorical=[{self.name}]"

    def error(self, said: "_Cells", what: str, found: np.ndarray, remedy: str) -> UsageError:
        """That the rows `found` hold what is not read."""
        first = said.cells[said.row[int(np.argmax(found))]][:40]
        return UsageError(
            f"{self.place.origin}: column {self.name!r} {what}\n  {self.place.where(found)}: {first!r}"
            f"\n  {remedy}" + ("" if self.is_known else f", or {self.as_text}")
        )


class _Cells(NamedTuple):
    """The distinct cells of a column, what each says, and where each row has which."""

    cells: list[str]
    numbers: list[Number]
    values: list[float | None]
    row: np.ndarray
    missing: np.ndarray

    def rows(self, test: Callable[[int], bool]) -> np.ndarray:
        """The rows that are not missing whose cell passes a test, by its position."""
        found = np.fromiter(map(test, range(len(self.cells))), dtype=bool, count=len(self.cells))
        return np.asarray(found[self.row] & ~self.missing)


def numbers_in_text(
    name: str,
    column: pa.DictionaryArray,
    place: Table,
    form: NumberFormat,
    on_purpose: bool = False,
    known: bool = False,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A column of strings as float64 and where it is missing, if every cell is a number; None where it is text.

    Args:
        name: of the column.
        column: its distinct strings, and which of them each row has.
        place: where the rows come from.
        form: how numbers are written.
        on_purpose: whether the source tells text from numbers, as a Parquet file does. Codes such as 007, and whole
            numbers that differ in every row, stay text then, and `form` is no setting of the user.
        known: whether the column has to hold numbers, and can be no category.

    Raises:
        UsageError: numbers in a notation that can be read in several ways, or numbers but for a few cells.
    """
    cells = [str(value).strip() for value in column.dictionary.to_pylist()]
    if _are_words(cells):
        return None
    index = np.asarray(column.indices.fill_null(0), dtype=np.int64)
    is_null = np.asarray(column.indices.is_null().cast(pa.uint8()), dtype=bool)
    missing = np.array([cell in MISSING_WORDS for cell in cells], dtype=bool)[index] | is_null
    said = _Cells(cells, *_read(cells, form), index, missing)
    is_number = said.rows(lambda k: said.values[k] is not None)
    total = int((~missing).sum())
    if not total or (on_purpose and not known and _are_codes(cells, total)):
        return None
    mend = _Mend(name, place, None if on_purpose else form, known)
    if is_number.sum() < total:
        _refuse(said, is_number, mend)
        return None
    _check_dress(said, mend)
    _say(said, mend)
    return np.array([np.nan if value is None else value for value in said.values])[index], missing


def _read(cells: list[str], form: NumberFormat) -> tuple[list[Number], list[float | None]]:
    """What each cell says, without what dresses it, and its value."""
    numbers, values = [], []
    for cell in cells:
        value, number = form.parse(cell), Number(cell)
        if value is None and _has_digit(cell):
            number = undressed(cell)
            read = form.parse(number.text)
            value = None if read is None else read * number.factor
        numbers.append(number)
        values.append(value)
    return numbers, values


def _are_words(cells: list[str]) -> bool:
    """Whether hardly a cell, of many some hundred, begins as numbers do: prose is not looked at closely."""
    sample = cells[:: max(1, len(cells) // 500)]
    count = sum(_has_digit(cell[:6]) for cell in sample)
    return not count or count < 0.3 * len(sample)


def _has_digit(cell: str) -> bool:
    return any(sign.isdigit() or sign in "∞¼½¾⅓⅔" for sign in cell)


def _are_codes(cells: list[str], total: int) -> bool:
    """Whether text that was made on purpose holds codes: 007, or whole numbers of which no two rows have the same."""
    whole = all(re.fullmatch(r"\d+", cell) for cell in cells if cell not in MISSING_WORDS)
    return any(re.fullmatch(r"0\d+", cell) for cell in cells) or (whole and len(cells) >= max(MANY, total))


def _check_dress(said: _Cells, mend: _Mend) -> None:
    """Refuses numbers whose signs are not those of one notation."""
    units = sorted({number.unit for number in said.numbers if number.unit})
    dressed = said.rows(lambda k: bool(said.numbers[k].unit))
    bare = said.rows(lambda k: not said.numbers[k].unit and said.values[k] != 0)
    if len(units) > 1 or ({"%", "‰"} & set(units) and bare.any()):
        mixed = " and ".join([*map(repr, units), *(["plain numbers"] if len(units) == 1 else [])])
        raise mend.error(said, f"mixes {mixed}", dressed, "write all numbers alike, without a sign")
    bracketed = said.rows(lambda k: "brackets" in said.numbers[k].notation)
    if not mend.is_known and bracketed.any() and (bracketed | said.missing).all():
        what = "holds numbers in brackets alone, which may mean a minus or nothing"
        raise mend.error(said, what, bracketed, "write them without brackets")


def _say(said: _Cells, mend: _Mend) -> None:
    """One line where the numbers are not plain ones, or are text on purpose."""
    dressed = said.rows(lambda k: bool(said.numbers[k].notation))
    if dressed.any():
        first = said.row[int(np.argmax(dressed))]
        what = f"is read as numbers, with {said.numbers[first].notation}: {said.cells[first][:40]!r} in "
        what += f"{mend.place.where(np.arange(len(dressed)) == np.argmax(dressed))} is {said.values[first]:g}"
    elif mend.form is None:
        what = "holds text, all of it numbers, and is read as numbers"
    else:
        return
    message = f"{mend.place.origin}: column {mend.name!r} {what}"
    warnings.warn(message + ("" if mend.is_known else f"; to {mend.as_text}"), UserWarning, stacklevel=2)


def _refuse(said: _Cells, is_number: np.ndarray, mend: _Mend) -> None:
    """Refuses a column of which most cells are numbers for a person."""
    kinds = [*_notations(said, mend.form), *_beside_numbers(said, is_number)]
    total = int((~said.missing & ~said.rows(lambda k: is_missing_mark(said.cells[k]))).sum())
    together = np.logical_or.reduce([is_number, *(found for found, _, _ in kinds)])
    several = (together & ~is_number, "numbers in several notations", "write them alike")
    for found, what, remedy in [*kinds, several]:
        count = int((found | is_number).sum())
        if found.any() and count >= SHARE * total and (count >= FEWEST or count >= total):
            raise mend.error(said, f"holds {what}", found, remedy)
    distinct = len({value for value in said.values if value is not None})
    words = ~is_number & ~said.missing
    if is_number.sum() >= max(FEWEST, (0.5 if distinct >= MANY else SHARE) * (~said.missing).sum()):
        raise mend.error(said, "holds numbers but for a few cells", words, "mend the cells")


_Found = Iterator[tuple[np.ndarray, str, str]]


def _notations(said: _Cells, setting: NumberFormat | None) -> _Found:
    """Rows in notations that can be read in several ways or in none, what they are, and how to mend them."""
    form = setting or NumberFormat()
    plain = "turn the column into numbers"
    grouped = f"set data.thousands='{form.other}'" + ("" if form.thousands else f" or data.decimal='{form.other}'")
    tests = (
        (looks_hexadecimal, "hexadecimal numbers", "write them in decimal"),
        (form.looks_grouped, "numbers with separated thousands", grouped if setting else plain),
        (
            form.looks_swapped,
            f"numbers with a decimal '{form.other}'",
            f"set data.decimal='{form.other}'" if setting else plain,
        ),
        (looks_like_a_date, "dates or times", "turn them into numbers (days since a date, say), leave the column out"),
        (looks_like_a_fraction, "fractions or ratios", "write them as decimal numbers"),
        (looks_uncertain, "numbers with their errors", "write the numbers alone"),
    )
    for test, what, remedy in tests:
        found = {k for k, number in enumerate(said.numbers) if said.values[k] is None and test(number.text)}
        yield said.rows(found.__contains__), what, remedy


def _beside_numbers(said: _Cells, is_number: np.ndarray) -> _Found:
    """The same for cells that mean numbers where there are numbers beside them, or several of them."""
    texts = {k: said.numbers[k].text for k, value in enumerate(said.values) if value is None}
    limits = {k for k, text in texts.items() if looks_like_a_limit(text)}
    if is_number.any() or len(limits) >= FEWEST:
        advice = "bounds are two columns: data.target=[low,high] head=censored"
        yield said.rows(limits.__contains__), "limits, such as those of detection", advice
    matches = {k: match["unit"].lower() for k, text in texts.items() if (match := _WITH_UNIT.fullmatch(text))}
    units = {k: unit for k, unit in matches.items() if unit not in _NO_UNITS}
    if len(units) > 2 and _are_units(set(units.values())):
        yield said.rows(units.__contains__), "numbers with a unit", "write the numbers alone"
    if len({value for value in said.values if value is not None}) > 1:
        marks = {k for k in texts if is_missing_mark(said.cells[k])}
        yield said.rows(marks.__contains__), "numbers and a mark for missing ones", "leave these cells empty"


def _are_units(found: set[str]) -> bool:
    """Whether what follows numbers are units, and no letters of a code such as 1A, 2C."""
    known = all(map(_UNIT.fullmatch, found)) and (max(map(len, found)) > 1 or found <= {"s", "m", "h", "d"})
    return len(found) == 1 or known
