"""Tests of nested models, or of the terms of one model, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlefw.system.atomic import Json
from mlefw.system.number_format import p_value

FIGURES = {"likelihood_ratio": "LR chi2", "wald": "Wald chi2", "score": "score chi2", "f": "F"}
"""The tests of a pair by their keys, with their headings."""

_OTHERS = ("wald", "score", "f")
_LEFT_OUT = "The likelihood ratio and score tests are left out: they take the noise model for right."

_AT_EDGE = (
    "A variance is zero, the edge of its range, under a model without its term: the P of the larger model is too "
    "large, for one variance twice (Self & Liang, 1987)."
)


def show(content: Json, out: Console) -> None:
    """Print the tests as tables and sentences."""
    if "terms" in content:
        _show_terms(content, out)
        return
    rows = f"{content['num_rows']:,} rows"
    out.print(Text(f"Nested models of {content['target']} (head={content['head']}, {rows})", style="bold"))
    for k, model in enumerate(content["models"], start=1):
        out.print(Text(f"{k}: {model['run']}: {model['formula']}"))
    out.print()
    out.print(_comparison(content))
    if any(name in test for name in _OTHERS for test in content["tests"]):
        out.print(Text("\nBy other tests", style="bold"))
        out.print(_others(content))
        out.print(Text(f"\n{_errors(content)}"))
    if any(test.get("at_edge") for test in content["tests"]):
        out.print(Text(f"\n{_AT_EDGE}"))
    if any("likelihood_ratio" not in test for test in content["tests"]):
        out.print(Text(_LEFT_OUT))


def term_table(terms: list[Json]) -> Table:
    """The joint tests of terms as a table."""
    table = _table("", "df", "F" if "df_resid" in terms[0] else "chi2", "P")
    for test in terms:
        name = ": ".join(part for part in (test["parameter"], test["term"]) if part)
        table.add_row(Text(name), str(test["df"]), _statistic(test["statistic"]), p_value(test["p_value"]))
    return table


def _show_terms(content: Json, out: Console) -> None:
    rows = f"{content['num_rows']:,} rows"
    out.print(Text(f"Terms of {content['run']}: {content['target']} (head={content['head']}, {rows})", style="bold"))
    out.print()
    out.print(term_table(content["terms"]))
    left = content["terms"][0].get("df_resid")
    on = "" if left is None else f", with {left:g} residual degrees of freedom"
    out.print(Text(f"\nJoint Wald tests that all coefficients of a term are zero, given the others{on}."))
    out.print(Text(f"Standard errors: {content['standard_errors']}."))


def _comparison(content: Json) -> Table:
    """A row for each model, with the likelihood ratio test against the row above it."""
    has_ratio = any("likelihood_ratio" in test for test in content["tests"])
    table = _table("", "params", "log-likelihood", "AIC", "df", *(("LR chi2", "P") if has_ratio else ()))
    by_model: Mapping[int, Any] = {test["model"]: test for test in content["tests"]}
    for k, model in enumerate(content["models"], start=1):
        test = by_model.get(k, {})
        figures = [f"{model[name]:.4f}" for name in ("log_likelihood", "aic")]
        cells = [str(model["num_parameters"]), *figures, str(test.get("df", ""))]
        table.add_row(str(k), *cells, *(_cells(test, ["likelihood_ratio"]) if has_ratio else ()))
    return table


def _others(content: Json) -> Table:
    """A row for each pair of models, with all tests but the likelihood ratio."""
    known = [name for name in _OTHERS if any(name in test for test in content["tests"])]
    table = _table("", "df", *(text for name in known for text in (FIGURES[name], "P")))
    for test in content["tests"]:
        table.add_row(f"{test['model']} against {test['against']}", str(test["df"]), *_cells(test, known))
    return table


def _errors(content: Json) -> str:
    """What the tests other than the likelihood ratio take for the errors."""
    left = next((test["f"]["df_resid"] for test in content["tests"] if "f" in test), None)
    if left is not None:
        return (
            "chi2: by the maximum likelihood variance RSS / n; F: by RSS / (n - p) of the largest model, with "
            f"{left:g} degrees of freedom."
        )
    return f"Wald: by standard errors of the kind {content['standard_errors']}."


def _cells(test: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The statistic and P of each test, blank where it is not defined."""
    found = [test.get(name) for name in names]
    each = (["", ""] if one is None else [_statistic(one["statistic"]), p_value(one["p_value"])] for one in found)
    return [cell for pair in each for cell in pair]


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", overflow="fold", no_wrap=bool(heading))
    return table


def _statistic(value: float) -> str:
    return f"{value:.3f}" if value < 1e4 else f"{value:.4g}"
