"""mlefw baseline: only the exact estimate, as a table of coefficients."""

import math
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import shown
from mlefw.baseline.predictor import as_objective
from mlefw.command.train import baseline_file, write_baseline
from mlefw.configuration.settings import Settings
from mlefw.errors import NumericalError, UsageError
from mlefw.objective.objective import evaluate
from mlefw.report.coefficient_table import shortened
from mlefw.report.observation import observation
from mlefw.report.references import KEYS, exact_names
from mlefw.report.tables import coefficient_table, facts, token_tables
from mlefw.run import build, judgement, row_scores
from mlefw.run.directory import claim
from mlefw.run.estimate import NAMES
from mlefw.run.prepare import Prepared, estimate, prepare
from mlefw.score.figures import figures_on
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
    "dispersion": "dispersion",
    "r_squared": "R-squared",
    "mcfadden_r2": "McFadden R-squared",
    "cox_snell_r2": "Cox-Snell R-squared",
}

_MAX_SHOWN = 1000
"""The most coefficients of a table that are printed: to lay out tens of thousands takes minutes."""

_ADVICE = (
    "Expected a larger baseline.max_work or baseline.max_seconds, fewer columns (baseline.features), or prior=l2, "
    "under which many coefficients take less"
)


def run(config: Settings, run_dir: Path) -> Json:
    """Solve for the exact estimate, write `baseline.json`, and return its content.

    Where the estimate was left out, since it takes too long or failed, the content has the reason and the estimates
    that could be computed.

    Raises:
        UsageError: a mistake in settings or data; nothing is written then.
        NumericalError: no estimate could be computed.
    """
    if not config.baseline.get("_target_"):
        raise UsageError("baseline=none: there is nothing to estimate; expected baseline=linear")
    prepared = prepare(config, run_dir)
    if prepared.estimand.arrays is not None and prepared.estimand.arrays.is_of_network:
        raise UsageError(
            "baseline.features=last_layer is of a trained network: expected mlefw train, or pixels or pca:50 here"
        )
    exact = estimate(config, prepared)
    wanted = "mle" if prepared.estimand.objective.prior.flat else "map"
    if wanted in exact.left_out and all(not solution.may_exist for solution in exact.solutions.values()):
        raise NumericalError(f"the {NAMES[wanted]} was left out: {exact.left_out[wanted]}\n  {_ADVICE}")
    content = baseline_file(config, prepared, exact)
    solution = exact.solutions.get(wanted)
    if isinstance(solution, Solution) and solution.may_exist:
        misfit = _misfit(config, prepared, solution, content)
        content |= {} if misfit is None else {"misfit": misfit}
    run_dir = claim(run_dir)
    if config.cv and isinstance(solution, Solution) and solution.exists is not False:
        _score(prepared, solution, run_dir)
    write_baseline(run_dir, content, exact)
    return content


def _score(prepared: Prepared, solution: Solution, run_dir: Path) -> None:
    """Write the NLL of each test row of a fold, under the estimate and under the null model."""
    objective, rows = prepared.estimand.objective, prepared.data.splits["test"]
    found = {"test": evaluate(as_objective(solution, objective), rows)}
    null = evaluate(as_objective(prepared.estimand.null, objective), rows).nll
    row_scores.store(run_dir, found, {"test": rows}, prepared.data.schema.labels, null)


def _misfit(config: Settings, prepared: Prepared, solution: Solution, content: Json) -> Json | None:
    """What is not calibrated about the exact estimate on the training rows, or None.

    The dispersion is the one of `baseline.json`, which counts residual degrees of freedom.
    """
    objective, rows = as_objective(solution, prepared.estimand.objective), prepared.data.train
    metrics = build.build_metrics(config, objective.head, prepared.estimand.token_bytes)
    figures = figures_on(objective, evaluate(objective, rows), rows, metrics)
    figures |= {name: content[name] for name in ("dispersion",) if name in content and name in figures}
    return judgement.judge(config, objective, {"train": rows}, {"train": figures}, observation(content))


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
        out.print(Text(f"The {NAMES[wanted]} was left out: {content['left_out'][wanted]}.\n{_ADVICE}."))
        _show_others(content, out)
        return
    if content["exists"] is False:
        _show_absence(content, out)
        return
    out.print(Text(_certificate(content)))
    statistic = "t" if "t quantiles" in content["standard_errors"] else "z"
    _show_coefficients(content, out, statistic)
    out.print(Text(f"\nstandard errors: {content['standard_errors']}"))
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
    for key, rows in shown(content["coefficients"]).items():
        title = content["titles"][key] + (" (one for all rows)" if rows[0]["name"] == "(shared)" else "")
        out.print()
        out.print(coefficient_table(title, rows[:_MAX_SHOWN], statistic))
        if len(rows) > _MAX_SHOWN:
            out.print(Text(f"and {len(rows) - _MAX_SHOWN:,} more (see baseline.json)"))


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
    """One line on the evidence for the estimate: solver, convergence, kind of optimum, residual and bound."""
    sure = "stationary" if content["converged"] else "NOT certified"
    kind = "global optimum" if content["is_global"] else "a local optimum, perhaps not the global one"
    kind += f" ({content['shown_by']})" if "shown_by" in content else ""
    if content["exists"] is None:
        kind = f"existence not shown: {content['reason']}"
    bounds = [f"residual {content['residual']:.1e}" if "residual" in content else "no finite residual"]
    if "excess_bound" in content:
        bounds.append(f"at most {content['excess_bound']:.1e} nats per {word} above it")
    elif "excess_bound" not in content and content.get("matrix_free"):
        bounds.append("bound not shown")
    steps = f"{content['num_steps']} step{'' if content['num_steps'] == 1 else 's'}"
    return f"{content['solver']}, {steps}: {sure}, {kind}; {', '.join(bounds)}"
