"""An exact estimate as a tidy frame, a row for each coefficient, and in one row: the columns of R's package broom."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlefw.baseline.coefficients import THRESHOLDS, shown

TIDY = (
    *("parameter", "term", "estimate", "std.error", "statistic", "df", "p.value"),
    *("conf.low", "conf.high", "se_type", "dropped"),
)
"""Columns of `tidy`, in their order."""

GLANCE: Mapping[str, str] = {
    "nobs": "population",
    "df": "num_parameters",
    "logLik": "log_likelihood",
    "AIC": "aic",
    "BIC": "bic",
    "deviance": "deviance",
    "df.residual": "df_resid",
    "sigma": "sigma",
    "pearson_chi2": "pearson_chi2",
    "converged": "converged",
    "gap": "excess_bound",
}
"""Columns of `glance`, in their order, and the key of each in `baseline.json`."""

_ENTRIES = {
    "estimate": "estimate",
    "std.error": "std_error",
    "statistic": "z",
    "df": "df",
    "p.value": "p_value",
    "conf.low": "ci_low",
    "conf.high": "ci_high",
}


def tidy(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The coefficients of an estimate as columns by name (`TIDY`); None where a value is not defined.

    Parameters come in the order of the head, the terms of each in that of the data, then those that were left out. A
    parameter that all rows share has the term `(shared)` and is in its own unit; thresholds take the place of the gaps
    between them. `df` are the degrees of freedom of t, None for the normal distribution. Intervals have 95 %; those by
    profile likelihood may be infinite, and are there without a finite estimate, too.

    Args:
        content: of `baseline.json`.
    """
    kind = str(content.get("standard_errors", "none"))
    known = content.get("coefficients") or content.get("profile", {}).get("coefficients", {})
    lines: list[dict[str, Any]] = []
    for parameter, rows in shown(known).items():
        is_own = rows[0]["name"] == "(shared)" or parameter.rpartition(".")[2] == THRESHOLDS
        se_type = _by_delta_method(kind) if is_own else kind
        for row in rows:
            values = {name: float(row[key]) if key in row else None for name, key in _ENTRIES.items()}
            lines.append({"parameter": parameter, "term": row["name"], **values, "se_type": se_type, "dropped": False})
        if not is_own:
            blank = dict.fromkeys(_ENTRIES)
            lines += [
                {"parameter": parameter, "term": name, **blank, "se_type": se_type, "dropped": True}
                for name in _dropped(content, parameter)
            ]
    return {name: [line[name] for line in lines] for name in TIDY}


def glance(content: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a whole fit by name (`GLANCE`); None where a figure is not defined.

    `nobs` is the sum of the weights; `df` counts all parameters, scales among them; `sigma` is the residual standard
    error sqrt(RSS / (n - p)); `gap` bounds the excess of the objective over its minimum, in nats per row.
    """
    return {name: content.get(key) for name, key in GLANCE.items()}


def _dropped(content: Mapping[str, Any], parameter: str) -> Sequence[str]:
    """Names of terms of a parameter that were left out because they are constant or collinear."""
    dropped = content.get("dropped", [])
    found: Sequence[str] = dropped.get(parameter, []) if isinstance(dropped, Mapping) else dropped
    return found


def _by_delta_method(kind: str) -> str:
    if kind.startswith("none"):
        return kind
    # The divisor n - p is for the coefficients of least squares alone.
    return f"{'observed information' if 't quantiles' in kind else kind}, delta method"
