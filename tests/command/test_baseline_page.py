"""What `mlefw baseline` prints."""

import io
from typing import Any

import pytest
from rich.console import Console

from mlefw.command.baseline import show


def page(content: dict[str, Any], width: int = 80, ascii_only: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if ascii_only else "utf-8", errors="replace")
    show(content, Console(file=stream, width=width, highlight=False))
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def row(name: str, estimate: float, **more: float) -> dict[str, Any]:
    values = {"std_error": 0.5, "z": -2.0, "p_value": 0.0455, "ci_low": estimate - 1, "ci_high": estimate + 1}
    return {"name": name, "estimate": estimate, **values, **more}


def content(**more: Any) -> dict[str, Any]:
    plain = {
        "head": "categorical",
        "prior": "none",
        "target": "species",
        "num_rows": 150,
        "population": 300.0,
        "exists": True,
        "converged": True,
        "is_global": True,
        "solver": "newton",
        "num_steps": 1,
        "residual": 1e-15,
        "dropped": [],
        "log_likelihood": -38.5,
        "nll_nats": 0.25,
        "aic": 91.0,
        "standard_errors": "observed information",
        "titles": {"versicolor": "log-odds of versicolor against setosa"},
        "coefficients": {"versicolor": [row("(intercept)", -1.25e7), row("[bold]längste [/x] Spalte", 2e-9)]},
    }
    return plain | more


@pytest.mark.parametrize("width", [60, 80, 140])
def test_it_fits_the_terminal_and_cuts_no_number(width: int) -> None:
    lines = page(content(), width).splitlines()
    assert max(len(line) for line in lines) <= width
    if width >= 80:
        for number in ("-12500000", "2.0000e-09", "0.50000", "-2.000", "0.0455"):
            assert any(number in line for line in lines), number
        assert "…" not in "".join(lines)


def test_names_are_text_and_never_markup() -> None:
    assert "[bold]längste [/x] Spalte" in page(content(), 140)
    assert "log-odds of versicolor against setosa" in page(content())


def test_without_utf_8_it_is_ascii() -> None:
    found = page(content(), 100, ascii_only=True)
    assert found.isascii()
    assert found.count("?") == 1  # the ä of a name, nothing of ours


def test_it_says_what_was_fitted_and_how_sure_it_is() -> None:
    found = page(content(), 100)
    for words in ("Exact linear MLE of species", "sum of weights", "log-likelihood", "P>|z|", "[0.025", "0.975]"):
        assert words in found
    assert "certified: global optimum, residual 1.0e-15 (newton, 1 step)" in found
    local = page(content(converged=False, is_global=False), 100)
    assert "NOT certified: a local optimum, perhaps not the global one" in local
    assert "within 2.0e-15 nats per row (newton" in page(content(excess_bound=2e-15))


def test_t_where_quantiles_are_of_t() -> None:
    assert "P>|t|" in page(content(standard_errors="RSS / (n - p), t quantiles"))


def test_an_estimate_without_errors_has_no_empty_columns() -> None:
    bare = {"versicolor": [{"name": "(intercept)", "estimate": 1.0}]}
    found = page(content(coefficients=bare, standard_errors="none: the information is singular"))
    assert "std err" not in found
    assert "none: the information is singular" in found


def test_a_map_says_what_its_intervals_are() -> None:
    kind = "posterior (observed information and prior)"
    found = page(content(prior="l2", standard_errors=kind, mle={"exists": False, "reason": "separated"}), 200)
    assert "Exact linear MAP" in found
    assert "credible intervals" in found
    assert "Without the prior there is no finite estimate: separated." in found


def test_many_dropped_names_are_counted() -> None:
    found = page(content(dropped=[f"x{j}" for j in range(100)]), 200)
    assert "x7 and 92 more" in found
    assert "x8" not in found


def test_of_very_many_coefficients_the_first_are_shown() -> None:
    many = {"versicolor": [row(f"x{j}", 1.0) for j in range(50_000)]}
    found = page(content(coefficients=many), 100)
    assert "x999 " in found
    assert "x1000 " not in found
    assert "and 49,000 more of log-odds of versicolor against setosa (see baseline.json)" in found


def test_where_there_is_no_finite_estimate() -> None:
    gone = {"exists": False, "reason": "separated", "nll_infimum": 0.25, "remedy": "A prior makes it finite"}
    kept = ("head", "prior", "target", "num_rows", "population", "solver", "num_steps", "dropped")
    plain = content()
    found = page({key: plain[key] for key in kept} | gone)
    for words in ("No finite estimate: separated.", "0.25 nats (0.360674 bits)", "A prior makes it finite."):
        assert words in found


def test_a_perfect_fit_shows_what_it_fitted() -> None:
    table = {"titles": {"loc": "loc"}, "coefficients": {"loc": [{"name": "(intercept)", "estimate": 3.0}]}}
    gone = {"exists": False, "reason": "the target is constant", "remedy": "Check it"} | table
    kept = ("head", "prior", "target", "num_rows", "population", "solver", "num_steps", "dropped")
    found = page({key: content()[key] for key in kept} | gone)
    assert "No finite estimate: the target is constant." in found
    assert "3.0000" in found
    assert "std err" not in found


def test_no_share_is_a_negative_zero_and_both_null_figures_are_named() -> None:
    found = page(content(cox_snell_r2=-2e-16, null_log_likelihood=-50.0, null_deviance=9.0), 100)
    assert "-0.0000" not in found
    assert "null log-likelihood" in found
    assert "null deviance" in found
