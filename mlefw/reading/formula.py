"""Formulas such as `y ~ x + bs(age, df=5) | z`: their parts, terms and columns, read without running any of them.

A formula is a text that somebody else may have written. The library that builds its columns evaluates calls as Python,
so that only names of columns, numbers, the signs + - * / : ** and the functions below are admitted.
"""

import ast
import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from mlefw.errors import UsageError

FUNCTIONS = frozenset(
    {
        *("C", "I", "abs", "bs", "cc", "center", "cos", "cr", "cs", "exp", "expm1", "log", "log10", "log1p", "log2"),
        *("poly", "scale", "sin", "sqrt", "standardize", "tan"),
    }
)
"""Functions of columns that a term may call."""

CONTRASTS = frozenset({"treatment", "sum", "helmert", "poly", "diff", "SAS"})
"""Codings of a category, as in `C(region, contr.sum)`."""

MOST_CHARS = 10_000
"""Most characters of a formula."""

_OUTSIDE = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult, ast.Pow)
_INSIDE = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


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
    """

    text: str
    intercept: bool = True
    offsets: tuple[str, ...] = ()
    smooths: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    categories: tuple[str, ...] = field(default=(), compare=False)


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
    # Names with dots, as R's data sets have them, are columns; the library would take the dot for an attribute.
    text = _with_quoted_dots(text)
    kept: list[str] = []
    special: dict[str, list[str]] = {"offset": [], "s": [], "group": []}
    columns, categories = dict[str, None](), dict[str, None]()
    intercept = True
    for sign, term in (pair for one in _signed_terms(text, where) for pair in _apart(*one, where)):
        if term in ("0", "1"):
            intercept = (term == "1") == (sign == "+")
            continue
        kind, content = _special(term)
        if kind and sign == "-":
            raise UsageError(f"{where}: -{term} takes away a term that is not there; expected it left out")
        if kind == "group":
            columns |= dict.fromkeys(_group_columns(content, term, where))
        elif kind:
            columns |= dict.fromkeys(_Reader(content, where, kind).columns)
        else:
            reader = _Reader(term, where)
            columns |= dict.fromkeys(reader.columns)
            categories |= dict.fromkeys(reader.categories)
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
    )


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
    for sign, is_bare in [*_scan(text), ("", False)]:
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
    for index, (sign, is_bare) in enumerate(_scan(term)):
        depth += is_bare * ((sign in "([") - (sign in ")]"))
        if is_bare and sign in ")]" and depth == 0:
            return index == len(term) - 1
    return False


def _group_columns(content: str, term: str, where: str) -> list[str]:
    left, right = (part.strip() for part in _pieces(content, "|"))
    inner = read_terms(left, f"{where}, {term}")
    if inner.offsets or inner.smooths or inner.groups:
        raise UsageError(f"{where}: {term} holds more than plain terms left of its bar; expected such as (1 + x | g)")
    return [*inner.columns, *_Reader(right, where).columns]


def _scan(text: str) -> Iterator[tuple[str, bool]]:
    """Each character of a formula, and whether it stands outside of quotes and backticks."""
    inside = ""
    for sign in text:
        if inside:
            yield sign, False
            inside = "" if sign == inside else inside
        else:
            inside = sign if sign in "'\"`" else ""
            yield sign, not inside


def _pieces(text: str, separator: str) -> list[str]:
    """The text split at a character that stands outside of brackets, quotes and backticks."""
    found, depth = [""], 0
    for sign, is_bare in _scan(text):
        depth += is_bare * ((sign in "([{") - (sign in ")]}"))
        if is_bare and depth == 0 and sign == separator:
            found.append("")
        else:
            found[-1] += sign
    return found


def _signed_terms(text: str, where: str) -> Iterator[tuple[str, str]]:
    """The sign and the text of each term of a sum."""
    sign, term, depth = "+", "", 0
    for mark, is_bare in _scan(text.strip()):
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


class _Reader:
    """Walks through the syntax tree of a term, refuses what is not admitted, and collects columns.

    Args:
        term: the text of the term, or of what `offset(…)` or `s(…)` holds.
        where: the setting, for messages.
        kind: `offset` or `s` for their content.
    """

    def __init__(self, term: str, where: str, kind: str = "") -> None:
        self.term, self.where = term, where
        self.columns, self.categories = dict[str, None](), dict[str, None]()
        self._names = dict[str, str]()
        try:
            tree: ast.expr = ast.parse(self._as_python(f"f({term})" if kind == "s" else term), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._refused("cannot be read") from None
        if kind == "s":
            assert isinstance(tree, ast.Call)
            self._arguments(tree)
        elif kind:
            self._within_call(tree)
        else:
            self._walk(tree)

    def _as_python(self, term: str) -> str:
        """The term in the grammar of Python: columns in backticks by other names, `:` as `@`, `^` as `**`."""
        found, name = "", None
        for sign, is_bare in _scan(term):
            if sign == "`":
                if name is None:
                    name = ""
                else:
                    key = f"column_{len(self._names)}_"
                    self._names[key] = name
                    found, name = found + key, None
            elif name is not None:
                name += sign
            else:
                if is_bare and sign in "@;":
                    raise self._refused(f"holds {sign!r}")
                found += {":": "@", "^": "**", "\n": " "}.get(sign, sign) if is_bare else sign
        if name is not None:
            raise self._refused("has a backtick that is not closed")
        return re.sub(r"(?<![\w.)])\.(?![\w.])", "dot__", found).strip()

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f"{self.where}: the term {self.term!r} {why}"
            "\n  expected columns, + - * / : **, and such as log(x), I(x**2), C(g), bs(x, df=5), poly(x, 3)"
        )

    def _walk(self, node: ast.expr) -> None:
        """A node of the algebra of terms."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, _OUTSIDE):
            self._walk(node.left)
            if isinstance(node.op, ast.Pow):
                power = node.right.value if isinstance(node.right, ast.Constant) else None
                if not isinstance(power, int) or not 1 <= power <= 10:
                    raise self._refused("has a power that is no whole number from 1 to 10; I(x**2) is a square")
            else:
                self._walk(node.right)
        elif isinstance(node, ast.Name):
            self._column(node)
        elif isinstance(node, ast.Constant) and node.value in (0, 1) and not isinstance(node.value, bool):
            return
        elif isinstance(node, ast.Call):
            self._call(node)
        else:
            raise self._refused("holds what is no term")

    def _call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name):
            raise self._refused("calls what is no function")
        name = node.func.id
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, n=1)
            alone = " (it stands alone, as a term of a sum)" if name in ("offset", "s") else ""
            hint = f"; did you mean {near[0]}?" if near else ""
            raise self._refused(f"calls the unknown function {name!r}{alone}{hint}")
        if not node.args:
            raise self._refused(f"calls {name} without a column")
        if name == "C":
            self._category(node)
        else:
            self._arguments(node)

    def _category(self, node: ast.Call) -> None:
        first, *rest = node.args
        if not isinstance(first, ast.Name):
            raise self._refused("makes a category of what is no column; expected C(column)")
        self._column(first)
        self.categories[self._names.get(first.id, first.id)] = None
        for value in [*rest, *(keyword.value for keyword in node.keywords)]:
            self._contrast(value)

    def _contrast(self, node: ast.expr) -> None:
        call = node if isinstance(node, ast.Call) else None
        target = call.func if call else node
        if isinstance(target, ast.Attribute):
            known = isinstance(target.value, ast.Name) and target.value.id == "contr" and target.attr in CONTRASTS
            if not known:
                raise self._refused(f"has an unknown coding; expected contr.{', contr.'.join(sorted(CONTRASTS))}")
            for value in [*call.args, *(keyword.value for keyword in call.keywords)] if call else []:
                self._constant(value)
        else:
            self._constant(node)

    def _constant(self, node: ast.expr) -> None:
        if isinstance(node, ast.List | ast.Tuple):
            for item in node.elts:
                self._constant(item)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._constant(node.operand)
        elif not isinstance(node, ast.Constant) or not isinstance(node.value, str | int | float | None):
            raise self._refused("has an argument that is no number, text or list of these")

    def _arguments(self, node: ast.Call) -> None:
        """The arguments of a call: the first is an expression of columns, the others are constants."""
        first, *rest = node.args
        self._within_call(first)
        for value in [*rest, *(keyword.value for keyword in node.keywords)]:
            if not (isinstance(value, ast.Name) and isinstance(node.func, ast.Name) and node.func.id == "f"):
                self._constant(value)
            else:
                self._column(value)
        if any(keyword.arg is None for keyword in node.keywords):
            raise self._refused("has an argument without a name")

    def _within_call(self, node: ast.expr) -> None:
        """An expression of columns and numbers, within a function."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, _INSIDE):
            self._within_call(node.left)
            if isinstance(node.op, ast.Pow) and not _is_number(node.right, 100):
                # A tower of powers of constants would be computed for ever.
                raise self._refused("has a power that is no number up to 100")
            self._within_call(node.right)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            self._within_call(node.operand)
        elif isinstance(node, ast.Name):
            self._column(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return
        elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == "C"):
            self._call(node)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            self._within_call(node.left)
            self._within_call(node.comparators[0])
        else:
            raise self._refused("holds what is no expression of columns and numbers")

    def _column(self, node: ast.expr) -> None:
        assert isinstance(node, ast.Name)
        name = self._names.get(node.id, "." if node.id == "dot__" else node.id)
        self.columns[name] = None


def _is_number(node: ast.expr, most: float) -> bool:
    """Whether a node is a number of at most this size."""
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    return isinstance(inner, ast.Constant) and isinstance(inner.value, int | float) and abs(inner.value) <= most


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
