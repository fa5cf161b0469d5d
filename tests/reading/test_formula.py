"""Formulas as text: what is read, and what is refused before any library sees it."""

import pytest

from mlefw.errors import UsageError
from mlefw.reading.formula import read_terms, split_formula

READ = {
    "x + bs(age, df=5) + C(region, contr.treatment(base='south'))": (True, ("x", "age", "region")),
    "0 + x": (False, ("x",)),
    "x - 1": (False, ("x",)),
    "-1 + x": (False, ("x",)),
    "1": (True, ()),
    "0": (False, ()),
    "x*z + (a + b)**2": (True, ("x", "z", "a", "b")),
    "`my col` + log(`my col` + 1):g": (True, ("my col", "g")),
    "Sepal.Length:C(a.b, contr.sum)": (True, ("Sepal.Length", "a.b")),
    "I(x > 3) + I(x**-0.5)": (True, ("x",)),
    ". - x": (True, (".", "x")),
}

REFUSED = (
    "{__import__('os').system('id')}",
    "__import__('os').system('id')",
    "C(g, lambda x: x)",
    "(lambda: x)()",
    "[y for y in x]",
    "x if y else z",
    "C(g, contr.treatment(base=__import__('os')))",
    "C(g, evil.sum)",
    "poly(x, **k)",
    "exec('1')",
    "f'{x}'",
    "bs(x, df=eval('1'))",
    "x@z",
    "x;y",
    "x := 3",
    "lag(x, 1)",
    "hashed(x, levels=3)",
    "loog(x)",
    "I(9**9**9)",
    "x**999",
    "offset(x)*z",
    "log(x",
    "`x",
    "x +",
    "+",
    "",
    "bs()",
    "(x | y | z)",
)


@pytest.mark.parametrize("text", READ)
def test_terms_are_read(text: str) -> None:
    terms = read_terms(text, "formula")
    assert (terms.intercept, terms.columns) == READ[text]


def test_offsets_smooths_and_groups_are_taken_off() -> None:
    terms = read_terms("x + offset(log(e)) + (1 | g) + (1 + x | a:b) + s(x, k=10, bs='ps')", "formula")
    assert terms.text == "x"
    assert terms.offsets == ("log(e)",)
    assert terms.smooths == ("s(x, k=10, bs='ps')",)
    assert terms.groups == ("1 | g", "1 + x | a:b")
    assert terms.columns == ("x", "e", "g", "a", "b")


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_with_the_setting_named(text: str) -> None:
    with pytest.raises(UsageError, match="formula"):
        read_terms(text, "formula")


def test_parts_of_a_formula() -> None:
    assert split_formula("y ~ x + (1|g) | z") == (["y"], ["x + (1|g)", "z"])
    assert split_formula("[lo, hi] ~ x") == (["lo", "hi"], ["x"])
    assert split_formula("`my y` ~ 1 | 0 + z | w") == (["my y"], ["1", "0 + z", "w"])
    for wrong in ("log(y) ~ x", "y = x", "~ x", "y ~ ", "y ~ x ~ z", "y ~ x |"):
        with pytest.raises(UsageError):
            split_formula(wrong)


def test_cbind_of_successes_and_failures_is_successes_out_of_trials() -> None:
    assert split_formula("cbind(y, n - y) ~ x") == split_formula("cbind(y, n) ~ x")


def test_effects_without_correlation_are_terms_of_their_own() -> None:
    apart, stated = (read_terms(text, "formula") for text in ("x + (x || g)", "x + (1 | g) + (0 + x | g)"))
    assert apart == stated
    assert read_terms("(0 + x || g)", "formula") == read_terms("(0 + x | g)", "formula")
