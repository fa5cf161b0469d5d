"""Formulas such as `y ~ x + bs(age, df=5) | z`: their parts, terms and columns, read without running any of them.

A formula is a text that somebody else may have written. The library that builds its columns evaluates calls as Python,
so that only names of columns, numbers, the signs + - * / : ** and the functions below are admitted.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from mlefw.errors import UsageError
from mlefw.reading.term import TermReader, characters

MOST_CHARS = 10_000
"""Most characters of a formula."""


@dataclass(frozen=True)
class Terms:
    """The right side of a formula for one distribution parameter.

    Attributes:
        text: the sum of the terms that make columns; empty without any.
        intercept: whether the parameter has an intercept.
        offsets: what `offset(…)` holds: expressions that are added to eta with a coefficient of one.
        smooths: terms `s(…)`, whole.
        groups: random effects, what stands within `(… | g)`.
        columns: names of the columns that all of these read, in order; `.` stands for all features.
        categories: names of columns that `C(…)` reads.
        computed: names of columns that are computed with: those read elsewhere than in `C(…)` and as groups.
    """

    text: str
    intercept: bool = True
    offsets: tuple[str, ...] = ()
    smooths: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    categories: tuple[str, ...] = field(default=(), compare=False)
    computed: tuple[str, ...] = field(default=(), compare=False)


def split_formula(text: str) -> tuple[list[str], list[str]]:
    """The targets of a formula, and its right sides, one for each parameter.

    Raises:
        UsageError: the formula has no single `~`, or its left side is no list of columns.
    """
    sides = _pieces(text, "~")
    if len(sides) != 2 or not sides[0].strip():
        raise UsageError(f"formula={text!r}: expected a target, a ~ and terms, such as y ~ x + z")
    parts = [part.strip() for part in _pieces(sides[1], "|")]
    for number, part in enumerate(parts, 1):
        if not part:
            raise UsageError(f"formula={text!r}: part {number} is empty; expected terms, or 1 for an intercept alone")
    return _targets(sides[0].strip(), text), parts


def read_terms(text: str, where: str) -> Terms:
    """The terms of a right side.

    Args:
        text: such as `1 + x + C(g)`.
        where: the setting that holds it, for messages.

    Raises:
        UsageError: a term is empty or of another form than is admitted.
    """
    if len(text) > MOST_CHARS:
        raise UsageError(f"{where} has {len(text):,} characters: expected at most {MOST_CHARS:,}")
    _check_quotes(text, where)
    # Names with dots, as R's data sets have them, are columns; the library would take the dot for an attribute.
    text = _with_quoted_dots(text)
    kept: list[str] = []
    special: dict[str, list[str]] = {"offset": [], "s": [], "group": []}
    columns, categories, computed = dict[str, None](), dict[str, None](), dict[str, None]()
    intercept = True
    for sign, term in (pair for one in _signed_terms(text, where) for pair in _apart(*one, where)):
        if term in ("0", "1"):
            intercept = (term == "1") == (sign == "+")
            continue
        kind, content = _special(term)
        if kind and sign == "-":
            raise UsageError(f"{where}: -{term} takes away a term that is not there; expected it left out")
        if kind == "group":
            inner, groups = _of_group(content, term, where)
            columns |= dict.fromkeys([*inner.columns, *groups])
            computed |= dict.fromkeys(inner.computed)
        else:
            reader = TermReader(content, where, kind) if kind else TermReader(term, where)
            columns |= reader.columns
            categories |= reader.categories
            # What `s(g, bs='re')` holds is a group.
            computed |= {} if kind == "s" and re.search(r"['\"]re['\"]", content) else reader.computed
        if not kind:
            kept.append(f"{sign} {term}")
        if kind:
            special[kind].append(term if kind == "s" else content)
    return Terms(
        " ".join(kept).removeprefix("+ "),
        intercept,
        tuple(special["offset"]),
        tuple(special["s"]),
        tuple(special["group"]),
        tuple(columns),
        tuple(categories),
        tuple(computed),
    )


def check_expression(expression: str, where: str) -> None:
    """Check an expression of columns, such as a stored one, which may have been changed.

    Raises:
        UsageError: it is of another form than is admitted.
    """
    _check_quotes(expression, where)
    TermReader(expression, where, "offset")


def check_factor(expression: str, where: str) -> None:
    """Check what the library takes for one factor of a term before it evaluates it as Python.

    Raises:
        UsageError: it is of another form than is admitted.
    """
    _check_quotes(expression, where)
    TermReader(expression, where)


def read_shift(expression: str, where: str = "data.shifts") -> Terms:
    """An expression of columns that is added to eta, as terms with one offset and no column.

    Raises:
        UsageError: it cannot be read.
    """
    return read_terms(f"0 + offset({expression})", where)


def quoted(name: str) -> str:
    """The name of a column as a formula writes it: in backticks unless it is a plain identifier."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"`{name}`"


def _with_quoted_dots(text: str) -> str:
    """The text with names that hold dots in backticks, `a.b` for a.b, but for codings such as contr.sum."""
    found, bare = "", ""
    for sign, is_bare in [*characters(text), ("", False)]:
        if is_bare:
            bare += sign
            continue
        found += re.sub(r"(?<![\w.])(?!contr\.)[A-Za-z_]\w*(\.\w+)+", r"`\g<0>`", bare) + sign
        bare = ""
    return found


def _special(term: str) -> tuple[str | None, str]:
    """The kind of a term that makes no column of a plain design, `offset`, `s` or `group`, and what it holds."""
    for kind in ("offset", "s"):
        if re.match(rf"{kind}\s*\(", term) and term.endswith(")") and _closes_at_end(term):
            return kind, term[term.index("(") + 1 : -1].strip()
    if term.startswith("(") and term.endswith(")") and _closes_at_end(term) and len(_pieces(term[1:-1], "|")) == 2:
        return "group", term[1:-1].strip()
    return None, term


def _apart(sign: str, term: str, where: str) -> list[tuple[str, str]]:
    """The signed terms that one stands for: of effects without correlation, `(x || g)`, `(1 | g)` and `(0 + x | g)`."""
    if not (term.startswith("(") and term.endswith(")") and _closes_at_end(term)):
        return [(sign, term)]
    left, *rest = _pieces(term[1:-1], "|")
    if len(rest) != 2 or rest[0] or not left.strip():
        return [(sign, term)]
    effects = [(one, part) for one, part in _signed_terms(left, where) if part not in ("0", "1")]
    if any(one == "-" for one, _ in effects):
        return [(sign, term)]
    own = [f"(0 + {part} |{rest[1]})" for _, part in effects]
    return [(sign, one) for one in ([f"(1 |{rest[1]})"] if read_terms(left, where).intercept else []) + own]


def _closes_at_end(term: str) -> bool:
    """Whether the first bracket of a term is closed by its last character."""
    depth = 0
    for index, (sign, is_bare) in enumerate(characters(term)):
        depth += is_bare * ((sign in "([") - (sign in ")]"))
        if is_bare and sign in ")]" and depth == 0:
            return index == len(term) - 1
    return False


def _of_group(content: str, term: str, where: str) -> tuple[Terms, list[str]]:
    """The effects of a group, left of the bar of a term, and the columns that name the group."""
    left, right = (part.strip() for part in _pieces(content, "|"))
    inner = read_terms(left, f"{where}, {term}")
    if inner.offsets or inner.smooths or inner.groups:
        raise UsageError(f"{where}: {term} holds more than plain terms left of its bar; expected such as (1 + x | g)")
    return inner, list(TermReader(right, where).columns)


def _check_quotes(text: str, where: str) -> None:
    """Refuse quotes within quotes and backslashes: the library splits such a text elsewhere than it is split here.

    Raises:
        UsageError: the text has some.
    """
    inside = ""
    for sign in text:
        if sign == "\\" or (inside and sign in "'\"`" and sign != inside):
            raise UsageError(
                f"{where}={text!r} has a {sign} within quotes or backticks; expected names and levels without quotes, "
                "backticks and backslashes: rename them in the data"
            )
        if sign in "'\"`":
            inside = "" if inside else sign


def _pieces(text: str, separator: str) -> list[str]:
    """The text split at a character that stands outside of brackets, quotes and backticks."""
    found, depth = [""], 0
    for sign, is_bare in characters(text):
        depth += is_bare * ((sign in "([{") - (sign in ")]}"))
        if is_bare and depth == 0 and sign == separator:
            found.append("")
        else:
            found[-1] += sign
    return found


def _signed_terms(text: str, where: str) -> Iterator[tuple[str, str]]:
    """The sign and the text of each term of a sum."""
    sign, term, depth = "+", "", 0
    for mark, is_bare in characters(text.strip()):
        depth += is_bare * ((mark in "([{") - (mark in ")]}"))
        if is_bare and depth == 0 and mark in "+-" and (term.strip() or mark == "-" or not term):
            if term.strip():
                yield sign, term.strip()
                sign, term = mark, ""
                continue
            if sign == "+" and mark == "-":
                sign = "-"
                continue
            raise UsageError(f"{where}={text!r}: a sign has no term; expected such as x + z")
        term += mark
    if depth:
        raise UsageError(f"{where}={text!r}: a bracket is not closed")
    if not term.strip():
        raise UsageError(f"{where}={text!r}: expected a term at its end, or 1 for an intercept alone")
    yield sign, term.strip()


def _targets(left: str, text: str) -> list[str]:
    """The columns of the left side: `y`, or `[low, high]`, or `cbind(low, high)`, or `cbind(y, n - y)` for y of n."""
    if call := re.match(r"(cbind\s*\(|\[)(.*)[\])]$", left):
        parts = [part.strip() for part in _pieces(call[2], ",")]
        if len(parts) == 2 and (of := re.fullmatch(rf"(.+?)\s*-\s*{re.escape(parts[0])}", parts[1])):
            parts[1] = of[1]
        return [_name(part, text) for part in parts]
    return [_name(left, text)]


def _name(part: str, text: str) -> str:
    if re.fullmatch(r"[^\W\d][\w.]*", part):
        return part
    if re.fullmatch(r"`[^`]+`", part):
        return part[1:-1]
    raise UsageError(
        f"formula={text!r}: the left side {part!r} is no column; expected a name, in backticks where it is no plain "
        "word. A target is not transformed, as the NLL is in its own units: head=lognormal models log(y)"
    )


def check_columns(columns: Collection[str], known: Collection[str], where: str, origin: str) -> None:
    """Check that the columns of a formula exist.

    Raises:
        UsageError: naming the first that does not, and the nearest one.
    """
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where}: {origin} has no column {name!r}{hint}")
