"""What `mlefw baseline` prints: the content of `baseline.json` as tables and sentences."""

import math

from rich.console import Console
from rich.text import Text

from mlefw.baseline.coefficients import shown
from mlefw.report.anova import term_table
from mlefw.report.coefficient_table import shortened
from mlefw.report.observation import observation
from mlefw.report.profile_table import PROFILE
from mlefw.report.random_table import random_notes, random_table
from mlefw.report.references import KEYS, exact_names
from mlefw.report.tables import coefficient_table, facts, token_tables
from mlefw.run.estimate import NAMES
from mlefw.system.atomic import Json
from mlefw.system.number_format import p_value

# Figures of the fit by their key in `baseline.json`, with the names under which they are printed.
_TOTALS = {
    "log_likelihood": "log-likelihood",
    "null_log_likelihood": "null log-likelihood",
    "aic": "AIC",
    "bic": "BIC",
    "deviance": "deviance",
    "null_deviance": "null deviance",
    "pearson_chi2": "Pearson chi2",
}
_SHARES = {
    "dispersion": "Pearson chi2 / residual df",
    "r_squared": "R-squared",
    "mcfadden_r2": "McFadden R-squared",
    "cox_snell_r2": "Cox-Snell R-squared",
}

_MAX_SHOWN = 1000
"""The most coefficients of a table that are printed: to lay out tens of thousands takes minutes."""

ADVICE = (
    "Expected a larger baseline.max_work or baseline.max_seconds, fewer columns (baseline.features), or prior=l2, "
    "under which many coefficients take less"
)
"""What to do where an estimate takes too long."""


def show(content: Json, out: Console) -> None:
    """Print the content of `baseline.json` as tables and sentences."""
    if "null" in content:
        _show_tables(content, out)
        return
    name = "MLE" if content["prior"] == "none" else "MAP"
    on = f" on {content['features']}" if "features" in content else ""
    out.print(Text(f"Exact linear {name} of {content['target']}{on}", style="bold"))
    out.print(facts(_facts(content)))
    out.print()
    wanted = name.lower()
    if wanted in content.get("left_out", {}):
        out.print(Text(f"The {NAMES[wanted]} was left out: {content['left_out'][wanted]}.\n{ADVICE}."))
        _show_others(content, out)
        return
    if content["exists"] is False:
        _show_absence(content, out)
        return
    out.print(Text(_certificate(content)))
    statistic = "t" if "t quantiles" in content["standard_errors"] else "z"
    _show_coefficients(content, out, statistic)
    if "random" in content:
        out.print(Text("\nSmooth terms and effects of groups", style="bold"))
        out.print(random_table(content["random"]))
    if joint := [test for test in content.get("terms", []) if test["df"] > 1]:
        out.print(Text("\nAll coefficients of a term together (Wald)", style="bold"))
        out.print(term_table(joint[:_MAX_SHOWN]))
    out.print()
    for note in _notes(content):
        out.print(Text(note))
    if content["standard_errors"].startswith("posterior"):
        out.print(
            Text(
                "Intervals are 95% credible intervals, the posterior being taken as normal about the MAP; "
                "z and P state how far zero is in posterior standard deviations."
            )
        )
    if "misfit" in content:
        out.print(Text(content["misfit"]["sentence"]))
    if content["dropped"]:
        out.print(Text(f"left out (constant or collinear): {shortened(content['dropped'])}"))
    if content.get("mle", {"exists": True})["exists"] is False:
        out.print(Text(f"Without the prior there is no finite estimate: {content['mle']['reason']}."))


def _show_tables(content: Json, out: Console) -> None:
    """Print the tables of the next token by the tokens before it, or of pixels."""
    word = observation(content)
    tables = {("map" if content["prior"] != "none" else "mle"): content, **content}
    out.print(Text(f"Exact tables of the next {word}", style="bold"))
    known = {KEYS[name]: line for name, line in tables.items() if name in KEYS}
    names = exact_names({"observation": word, **known})
    out.print(token_tables({name: known[key] for key, name in names.items() if key in known}))
    out.print(Text(f"{content['population']:,.0f} {word}s. {content['solver']}: residual {content['residual']:.1e}"))
    if tables["mle"].get("reason"):
        out.print(Text(f"The MLE has an infimum only: {tables['mle']['reason']}."))


def _show_absence(content: Json, out: Console) -> None:
    """Print why there is no finite estimate, what to do, and the estimates that there are."""
    out.print(Text(f"No finite estimate: {content['reason']}."))
    if "nll_infimum" in content:
        nats = content["nll_infimum"]
        bits = f"{nats / math.log(2):.6g} bits"
        out.print(f"The NLL approaches {nats:.6g} nats ({bits}) per {observation(content)} without reaching it.")
    out.print(Text(f"{content['remedy']}."))
    _show_others(content, out)
    if "coefficients" in content:
        out.print(Text("\nAll parameters but the scale are determined; a perfect fit has no standard errors."))
        _show_coefficients(content, out, "t")
    if "profile" in content:
        out.print(Text("\nIntervals by profile likelihood, which need no finite estimate:"))
        _show_coefficients(content["profile"], out, "z")
    elif "intervals" in content:
        out.print(Text(f"Intervals: {content['intervals']}."))
    if content["dropped"]:
        out.print(Text(f"left out (constant or collinear): {shortened(content['dropped'])}"))


def _show_others(content: Json, out: Console) -> None:
    """Print the estimates that stand in for the one that was asked for."""
    for name in ("mle", "ridge"):
        other = content.get(name, {})
        if other.get("exists", False) is not False:
            scale = f", prior scale {other['scale']:g}," if name == "ridge" else ""
            out.print(Text(f"The {NAMES[name]}{scale} stands in for it (see baseline.json):"))
            word = observation(content)
            out.print(Text(f"NLL per {word} {other['nll_nats']:.6g} nats. {_certificate(other, word)}"))


def _show_coefficients(content: Json, out: Console, statistic: str) -> None:
    tables = shown(content["coefficients"])
    groups = {_heading(content, key, rows): rows[:_MAX_SHOWN] for key, rows in tables.items()}
    out.print()
    out.print(coefficient_table(groups, statistic))
    for key, rows in tables.items():
        if len(rows) > _MAX_SHOWN:
            out.print(Text(f"and {len(rows) - _MAX_SHOWN:,} more of {content['titles'][key]} (see baseline.json)"))


def _heading(content: Json, key: str, rows: list[Json]) -> str:
    """The title of a group of coefficients with its link: `scale (log link)`."""
    link = content.get("links", {}).get(key)
    title = content["titles"][key] + ("" if link is None else f" ({link} link)")
    return f"{title}, one value for all rows" if rows[0]["name"] == "(shared)" else title


def _notes(content: Json) -> list[str]:
    """What a reader has to know of the errors and of values that all rows share, a sentence each."""
    notes = [f"Standard errors: {content['standard_errors']}."]
    notes += [f"Intervals: {content['intervals']}."] if "intervals" in content else []
    of_eta = content.get("intervals") != PROFILE
    tables = shown(content["coefficients"])
    links = content.get("links", {})
    for key in (key for key, rows in tables.items() if rows[0]["name"] == "(shared)" and "std_error" in rows[0]):
        is_mapped = of_eta and links.get(key, "identity") != "identity"
        eta = f" and its interval from that of its {links[key]}" if is_mapped else ""
        notes.append(f"{key}: in its own unit, its standard error by the delta method{eta}.")
    if "random" in content:
        notes += random_notes(content)
    elif "sigma" in content:
        notes.append(
            f"scale is the maximum likelihood value, sqrt(RSS / n); the residual standard error sqrt(RSS / (n - p)) is "
            f"{content['sigma']:.5g} on {content['df_resid']:g} degrees of freedom."
        )
    return notes


def _facts(content: Json) -> list[tuple[str, str]]:
    """The figures of the whole fit as pairs of name and text, in the order in which they are printed."""
    pairs = [(name, str(content[name])) for name in ("head", "prior")] + [("rows", str(content["num_rows"]))]
    if content["population"] != content["num_rows"]:
        pairs.append(("sum of weights", f"{content['population']:.8g}"))
    for key, name in (("num_parameters", "parameters"), ("df_resid", "residual df")):
        if key in content:
            pairs.append((name, f"{content[key]:.8g}"))
    if "nll_nats" in content:
        nats = content["nll_nats"]
        pairs += [(f"NLL per {observation(content)}, nats", f"{nats:.6g}"), ("in bits", f"{nats / math.log(2):.6g}")]
    pairs += [(name, f"{content[key]:.8g}") for key, name in _TOTALS.items() if key in content]
    pairs += [(name, f"{content[key]:z.4f}") for key, name in _SHARES.items() if key in content]
    if "lr_chi2" in content:
        pairs.append((f"LR chi2({content['lr_df']}) against null", f"{content['lr_chi2']:.6g}"))
        pairs.append(("its P", p_value(content["lr_p_value"])))
    return pairs


def _certificate(content: Json, word: str = "row") -> str:
    """One line on the evidence for the estimate: convergence, kind of optimum, bound or residual, and solver."""
    sure = "certified" if content["converged"] else "NOT certified"
    kind = "global optimum" if content["is_global"] else "a local optimum, perhaps not the global one"
    if content["exists"] is None:
        kind = f"existence not shown: {content['reason']},"
    if "excess_bound" in content:
        kind += f" within {content['excess_bound']:.1e} nats per {word}"
    else:
        kind = kind.removesuffix(",")
        kind += f", residual {content['residual']:.1e}" if "residual" in content else ", no finite residual"
        kind += ", bound not shown" if content.get("matrix_free") else ""
    kind += f" ({content['shown_by']})" if "shown_by" in content else ""
    steps = f"{content['num_steps']} step{'' if content['num_steps'] == 1 else 's'}"
    return f"{sure}: {kind} ({content['solver']}, {steps})"
