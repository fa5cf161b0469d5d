"""One term of a formula: its syntax tree, in which nothing but columns, numbers and known functions is admitted."""

import ast
import difflib
import re
from collections.abc import Iterator

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

_OUTSIDE = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult, ast.Pow)
_INSIDE = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


def characters(text: str) -> Iterator[tuple[str, bool]]:
    """Each character of a formula, and whether it stands outside of quotes and backticks."""
    inside = ""
    for sign in text:
        if inside:
            yield sign, False
            inside = "" if sign == inside else inside
        else:
            inside = sign if sign in "'\"`" else ""
            yield sign, not inside


class TermReader:
    """Walks through the syntax tree of a term, refuses what is not admitted, and collects columns.

    Args:
        term: the text of the term, or of what `offset(…)` or `s(…)` holds.
        where: the setting, for messages.
        kind: `offset` or `s` for their content.
    """

    def __init__(self, term: str, where: str, kind: str = "") -> None:
        self.term, self.where = term, where
        self.columns, self.categories, self.computed = dict[str, None](), dict[str, None](), dict[str, None]()
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
        for sign, is_bare in characters(term):
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
        name = self._names.get(first.id, first.id)
        self.columns[name] = self.categories[name] = None
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
        self.columns[name] = self.computed[name] = None


def _is_number(node: ast.expr, most: float) -> bool:
    """Whether a node is a number of at most this size."""
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    return isinstance(inner, ast.Constant) and isinstance(inner.value, int | float) and abs(inner.value) <= most
