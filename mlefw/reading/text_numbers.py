"""Numbers in text columns: converted where their notation is unambiguous, refused with a reason where it is not."""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlefw.errors import UsageError
from mlefw.reading.notation import (
    MISSING_WORDS,
    NO_UNITS,
    UNIT,
    WITH_UNIT,
    Number,
    NumberFormat,
    is_missing_mark,
    looks_hexadecimal,
    looks_like_a_date,
    looks_like_a_fraction,
    looks_like_a_limit,
    looks_uncertain,
    undressed,
)
from mlefw.reading.table import Table

SHARE = 0.9
"""Share of cells in number notations above which a text column is taken for numbers."""
FEWEST = 5
"""Fewest cells in number notations for which a text column with other cells is taken for numbers."""
MANY = 10
"""Distinct numbers with which half of the cells, instead of `SHARE`, suffice."""


class _Messages(NamedTuple):
    """Builds messages about a column."""

    name: str
    place: Table
    form: NumberFormat | None
    """How numbers are written, if the source has settings for it."""
    is_known: bool
    """Whether the column has to hold numbers, and cannot be a category."""

    @property
    def as_text(self) -> str:
        """Advice on how to keep the column as text."""
        return f"take the column as text: data.categorical=[{self.name}]"

    def error(self, content: "_Column", what: str, found: np.ndarray, remedy: str) -> UsageError:
        """The error for a column that does `what` in the rows `found` (n,)."""
        first = content.cells[content.row[int(np.argmax(found))]][:40]
        return UsageError(
            f"{self.place.origin}: column {self.name!r} {what}\n  {self.place.where(found)}: {first!r}"
            f"\n  {remedy}" + ("" if self.is_known else f", or {self.as_text}")
        )


class _Column(NamedTuple):
    """The distinct cells of a column and what they mean.

    Attributes:
        cells: the distinct cells, (k,).
        numbers: each cell reduced to plain digits, (k,).
        values: the value of each cell, (k,), None for text.
        row: the position of each row's cell, (n,).
        missing: whether each row is missing, (n,).
    """

    cells: list[str]
    numbers: list[Number]
    values: list[float | None]
    row: np.ndarray
    missing: np.ndarray

    def rows(self, test: Callable[[int], bool]) -> np.ndarray:
        """Whether each row is not missing and its cell passes a test of the cell's position, (n,)."""
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
    """A column of strings as float64 (n,), and whether each row is missing (n,); None if it is text.

    Args:
        name: name of the column.
        column: the strings.
        place: a Table that says where the rows come from.
        form: how numbers are written.
        on_purpose: whether the source distinguishes text from numbers by type, as a Parquet file does. Then codes such
            as 007, and whole numbers that differ in every row, stay text, and `form` is not a setting of the user.
        known: whether the column has to hold numbers, and cannot be a category.

    Raises:
        UsageError: numbers in an ambiguous or unsupported notation, or numbers with a few other cells.
    """
    cells = [str(value).strip() for value in column.dictionary.to_pylist()]
    if _are_words(cells):
        return None
    index = np.asarray(column.indices.fill_null(0), dtype=np.int64)
    is_null = np.asarray(column.indices.is_null().cast(pa.uint8()), dtype=bool)
    missing = np.array([cell in MISSING_WORDS for cell in cells], dtype=bool)[index] | is_null
    content = _Column(cells, *_read(cells, form), index, missing)
    is_number = content.rows(lambda k: content.values[k] is not None)
    total = int((~missing).sum())
    if not total or (on_purpose and not known and _are_codes(cells, total)):
        return None
    messages = _Messages(name, place, None if on_purpose else form, known)
    if is_number.sum() < total:
        _refuse(content, is_number, messages)
        return None
    _check_signs(content, messages)
    _warn_of_notation(content, messages)
    return np.array([np.nan if value is None else value for value in content.values])[index], missing


def _read(cells: list[str], form: NumberFormat) -> tuple[list[Number], list[float | None]]:
    """Each cell reduced to plain digits, and its value."""
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
    """Whether few cells of a sample begin with a digit, so that the column is text without a closer look."""
    sample = cells[:: max(1, len(cells) // 500)]
    count = sum(_has_digit(cell[:6]) for cell in sample)
    return not count or count < 0.3 * len(sample)


def _has_digit(cell: str) -> bool:
    return any(sign.isdigit() or sign in "∞¼½¾⅓⅔" for sign in cell)


def _are_codes(cells: list[str], total: int) -> bool:
    """Whether numbers in a typed text column are codes: with leading zeros, or whole and different in every row."""
    whole = all(re.fullmatch(r"\d+", cell) for cell in cells if cell not in MISSING_WORDS)
    return any(re.fullmatch(r"0\d+", cell) for cell in cells) or (whole and len(cells) >= max(MANY, total))


def _check_signs(content: _Column, messages: _Messages) -> None:
    """Check that currency and percent signs and brackets are used consistently.

    Raises:
        UsageError: units are mixed, or all numbers are in brackets.
    """
    units = sorted({number.unit for number in content.numbers if number.unit})
    dressed = content.rows(lambda k: bool(content.numbers[k].unit))
    bare = content.rows(lambda k: not content.numbers[k].unit and content.values[k] != 0)
    if len(units) > 1 or ({"%", "‰"} & set(units) and bare.any()):
        mixed = " and ".join([*map(repr, units), *(["plain numbers"] if len(units) == 1 else [])])
        raise messages.error(content, f"mixes {mixed}", dressed, "write all numbers alike, without a sign")
    bracketed = content.rows(lambda k: "brackets" in content.numbers[k].notation)
    if not messages.is_known and bracketed.any() and (bracketed | content.missing).all():
        what = "holds numbers in brackets alone, which may mean a minus or nothing"
        raise messages.error(content, what, bracketed, "write them without brackets")


def _warn_of_notation(content: _Column, messages: _Messages) -> None:
    """Warn if numbers were not in plain notation, or were in a column of text by type."""
    dressed = content.rows(lambda k: bool(content.numbers[k].notation))
    if dressed.any():
        first = content.row[int(np.argmax(dressed))]
        what = f"is read as numbers, with {content.numbers[first].notation}: {content.cells[first][:40]!r} in "
        what += f"{messages.place.where(np.arange(len(dressed)) == np.argmax(dressed))} is {content.values[first]:g}"
    elif messages.form is None:
        what = "holds text, all of it numbers, and is read as numbers"
    else:
        return
    message = f"{messages.place.origin}: column {messages.name!r} {what}"
    warnings.warn(message + ("" if messages.is_known else f"; to {messages.as_text}"), UserWarning, stacklevel=2)


def _refuse(content: _Column, is_number: np.ndarray, messages: _Messages) -> None:
    """Check that not most cells of a text column are numbers in some notation.

    Raises:
        UsageError: most cells are numbers in a notation that is not read, or numbers with a few other cells.
    """
    kinds = [*_notations(content, messages.form), *_beside_numbers(content, is_number)]
    total = int((~content.missing & ~content.rows(lambda k: is_missing_mark(content.cells[k]))).sum())
    together = np.logical_or.reduce([is_number, *(found for found, _, _ in kinds)])
    several = (together & ~is_number, "numbers in several notations", "write them alike")
    for found, what, remedy in [*kinds, several]:
        count = int((found | is_number).sum())
        if found.any() and count >= SHARE * total and (count >= FEWEST or count >= total):
            raise messages.error(content, f"holds {what}", found, remedy)
    distinct = len({value for value in content.values if value is not None})
    words = ~is_number & ~content.missing
    if is_number.sum() >= max(FEWEST, (0.5 if distinct >= MANY else SHARE) * (~content.missing).sum()):
        raise messages.error(content, "holds numbers but for a few cells", words, "mend the cells")


_Found = Iterator[tuple[np.ndarray, str, str]]


def _notations(content: _Column, setting: NumberFormat | None) -> _Found:
    """Rows in ambiguous or unsupported notations, the name of the notation, and advice."""
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
        (
            looks_like_a_date,
            "dates or times",
            "turn them into numbers (days since a date, say), for a formula into dates such as 2024-05-31, leave the "
            "column out",
        ),
        (looks_like_a_fraction, "fractions or ratios", "write them as decimal numbers"),
        (looks_uncertain, "numbers with their errors", "write the numbers alone"),
    )
    for test, what, remedy in tests:
        found = {k for k, number in enumerate(content.numbers) if content.values[k] is None and test(number.text)}
        yield content.rows(found.__contains__), what, remedy


def _beside_numbers(content: _Column, is_number: np.ndarray) -> _Found:
    """Rows with limits, units or marks for missing numbers, what they hold, and advice.

    They count as numbers only if other cells of the column are numbers, or several are limits.
    """
    texts = {k: content.numbers[k].text for k, value in enumerate(content.values) if value is None}
    limits = {k for k, text in texts.items() if looks_like_a_limit(text)}
    if is_number.any() or len(limits) >= FEWEST:
        advice = "bounds are two columns: data.target=[low,high] head=censored"
        yield content.rows(limits.__contains__), "limits, such as those of detection", advice
    matches = {k: match["unit"].lower() for k, text in texts.items() if (match := WITH_UNIT.fullmatch(text))}
    units = {k: unit for k, unit in matches.items() if unit not in NO_UNITS}
    if len(units) > 2 and _are_units(set(units.values())):
        yield content.rows(units.__contains__), "numbers with a unit", "write the numbers alone"
    if len({value for value in content.values if value is not None}) > 1:
        marks = {k for k in texts if is_missing_mark(content.cells[k])}
        yield content.rows(marks.__contains__), "numbers and a mark for missing ones", "leave these cells empty"


def _are_units(found: set[str]) -> bool:
    """Whether the texts that follow numbers are units, rather than letters of codes such as 1A, 2C."""
    known = all(map(UNIT.fullmatch, found)) and (max(map(len, found)) > 1 or found <= {"s", "m", "h", "d"})
    return len(found) == 1 or known
