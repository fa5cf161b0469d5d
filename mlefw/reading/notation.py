"""Notations of numbers in text: other scripts, grouped digits, currencies, percent, units, powers of ten, dates."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

MISSING_WORDS = ("", "NA", "NaN", "nan", "null", "N/A")
"""Cells that mean a missing number; in a text column only an empty cell is missing."""

_MARK = re.compile(
    r"\?+|-+|\.+|\*+|-?<?nan?>?|n[./]a\.?|nat|none|null|nil|n\.?d\.?|missing|unknown|\\n|#[a-z/0]+[!?]?|-?1\.#(ind|qnan)",
    re.IGNORECASE,
)

_BLANKS = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_SIGNS = {ord(sign): "-" for sign in "−–‒—‑﹣－⁻"} | {ord(sign): "+" for sign in "＋﬩"}
_SIGNS |= {ord(full): plain for full, plain in zip("．，％（）／：＜＞", ".,%()/:<>", strict=True)}
_SIGNS |= {ord("٫"): ".", ord("٬"): "'", ord("٪"): "%"}
_SIGNS |= {ord(space): " " for space in "\u00a0\u202f\u2009\u2007\u2008\u2002\u2003\u3000"} | {ord("’"): "'"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_CURRENCY = (
    r"(?:[A-Z]{0,2}\$|[$€£¥₹₽₩₺₴₪฿₫₦¢¤＄￥￡]|\b(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|CZK)\b|\bkr\b)"
)
_DRESSED = re.compile(
    rf"(?P<open>\(?)\s*(?P<sign>[-+]?)\s*(?P<before>{_CURRENCY}?)\s*(?P<inner>[-+]?)\s*(?P<body>[\d.,].*?)"
    rf"\s*(?P<after>{_CURRENCY}|%|‰|)\s*(?P<trail>-?)\s*(?P<close>\)?)"
)
_POWER = re.compile(
    r"(?:(.+?)\s*[×x✕⋅·*]\s*)?10\s*(?:(?:\^|\*\*)\s*\(?([-+]?\d+)\)?|([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))", re.IGNORECASE
)
_FORTRAN = re.compile(r"(?:(\d*\.\d+|\d+\.)d([-+]?\d+)|(\d+)d([-+]\d+))", re.IGNORECASE)
_GROUPED = re.compile(r"\d{1,3}(?P<sign>[ '_])\d{3}(?:(?P=sign)\d{3})*(?!\d)")
_PLAIN = re.compile(r"[-+]?[\d.,]+")
_INFINITE = re.compile(r"([-+]?)\s*(?:∞|1\.#inf)", re.IGNORECASE)


class Number(NamedTuple):
    """A cell reduced to plain digits in `text`, whose value has to be multiplied by `factor`."""

    text: str
    factor: float = 1.0
    notation: str = ""
    """What was removed or converted, in words."""
    unit: str = ""
    """The currency or percent sign that was removed."""


def undressed(cell: str) -> Number:
    """The cell with ASCII digits and signs, without grouping, currency, percent, brackets and powers of ten.

    A cell that is not a number is returned with its digits and signs in ASCII.
    """
    text = cell.strip().strip(_BLANKS).strip()
    plain = _in_ascii(text)
    words = [] if plain == text else ["signs that are not ASCII"]
    if _PLAIN.fullmatch(plain) is not None:
        return Number(plain, 1.0, ", ".join(words))
    if (quoted := re.fullmatch(r"=?(?P<q>[\"'])(.+)(?P=q)|'(.+)", plain)) is not None:
        plain, words = (quoted[2] or quoted[3]).strip(), [*words, "quotes"]
    if (infinite := _INFINITE.fullmatch(plain)) is not None:
        return Number(infinite[1] + "inf", 1.0, "an infinity sign")
    match = _DRESSED.fullmatch(plain)
    if match is None or bool(match["open"]) != bool(match["close"]):
        return Number(plain, 1.0, ", ".join(words))
    signs = [match["sign"], match["inner"], match["trail"], "-" if match["open"] else ""]
    if sum(map(bool, signs)) > 1 or (match["before"] and match["after"] not in ("", "%", "‰")):
        return Number(plain, 1.0, ", ".join(words))
    body, more = _body(match["body"])
    if match["open"]:
        words.append("brackets for a minus")
    if match["trail"]:
        words.append("a minus behind the number")
    unit = match["before"] or match["after"]
    factor = {"%": 0.01, "‰": 0.001}.get(unit, 1.0)
    if unit:
        words.append("percent" if unit == "%" else "per mille" if unit == "‰" else f"a currency ({unit})")
    sign = "-" if "-" in signs else "+" if "+" in signs else ""
    return Number(sign + body, factor, ", ".join([*words, *more]), unit)


def is_missing_mark(cell: str) -> bool:
    """Whether a cell is a usual mark for a missing number, such as `?` or `#N/A`."""
    return _MARK.fullmatch(cell.strip().translate(_SIGNS)) is not None


def _in_ascii(text: str) -> str:
    if text.isascii():
        return text
    text = text.translate(_SIGNS) if not set(text) & set("⁰¹²³⁴⁵⁶⁷⁸⁹") else text.translate(_SIGNS | {ord("⁻"): "⁻"})
    # Decimal digits of any script; `isdigit` would also accept ² as a digit.
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)


def _body(text: str) -> tuple[str, list[str]]:
    words: list[str] = []
    if (power := _POWER.fullmatch(text)) is not None:
        text = f"{power[1] or '1'}e{power[2] or power[3].translate(_SUPERSCRIPTS)}"
        words.append("a power of ten")
    elif (fortran := _FORTRAN.fullmatch(text)) is not None:
        text = f"{fortran[1] or fortran[3]}e{fortran[2] or fortran[4]}"
        words.append("an exponent with D")
    if (grouped := _GROUPED.match(text)) is not None:
        text = grouped[0].replace(grouped["sign"], "") + text[grouped.end() :]
        words.append("grouped digits")
    return text, words


class NumberFormat(NamedTuple):
    """How numbers are written in a file."""

    decimal: str = "."
    thousands: str | None = None

    @property
    def other(self) -> str:
        """The sign that groups thousands: `thousands`, or the one of point and comma that is not the decimal sign."""
        return self.thousands or ("." if self.decimal == "," else ",")

    def parse(self, cell: str) -> float | None:
        """The number that a cell holds in this format; None if it is not a number."""
        if self.thousands and self.looks_grouped(cell):
            cell = cell.replace(self.thousands, "")
        return float(cell.replace(self.decimal, ".")) if _plain(self.decimal).fullmatch(cell) else None

    def looks_grouped(self, cell: str) -> bool:
        """Whether the cell is a number with grouped thousands, or lakhs."""
        return _is_grouped(cell, self.other, self.decimal)

    def looks_swapped(self, cell: str) -> bool:
        """Whether the cell is a number in which decimal and grouping sign are swapped."""
        if _swapped(self.other).fullmatch(cell) is not None:
            return True
        return self.parse(cell) is None and _is_grouped(cell, self.decimal, self.other)


def _is_grouped(cell: str, other: str, decimal: str) -> bool:
    return _grouped(other, decimal).fullmatch(cell) is not None


@cache
def _plain(decimal: str) -> re.Pattern[str]:
    point = re.escape(decimal)
    number = rf"[-+]?(\d+{point}?\d*|{point}\d+)(e[-+]?\d+)?|[-+]?inf(inity)?|nan"
    return re.compile(number, re.IGNORECASE | re.ASCII)


@cache
def _swapped(other: str) -> re.Pattern[str]:
    return re.compile(rf"[-+]?\d*{re.escape(other)}\d+(e[-+]?\d+)?", re.IGNORECASE)


@cache
def _grouped(other: str, decimal: str) -> re.Pattern[str]:
    other, decimal = re.escape(other), re.escape(decimal)
    groups = rf"\d{{1,3}}({other}\d{{3}})+|\d{{1,2}}({other}\d\d)+{other}\d{{3}}"
    return re.compile(rf"[-+]?({groups})({decimal}\d*)?")


_NUMBER = r"[-+]?(\d+[.,]?\d*|[.,]\d+)(e[-+]?\d+)?"
_TIME = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?(\s*[ap]\.?m\.?)?(\s*(z|utc|[-+]\d\d:?\d\d))?"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = (
    rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d\d)"
    rf"|\d{{1,2}}\.?[-\s/]*{_MONTH}[-\s/,]*(\d{{4}}|\d\d)|{_MONTH}\s*\d{{1,2}}(st|nd|rd|th)?,?\s*\d{{4}})"
)
NO_UNITS = {"st", "nd", "rd", "th", "e"}
"""Texts after a number that are not units: endings of ranks, and an exponent."""

UNIT = re.compile(
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
WITH_UNIT = re.compile(rf"{_NUMBER}\s*(?P<unit>[^\W\d_]\S*|[°µμ\"'′″]\S*)", re.IGNORECASE)
