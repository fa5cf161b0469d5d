"""The report of a run."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from mlefw.baseline.coefficients import shown
from mlefw.report.observation import nats, sizes
from mlefw.report.page import Page, Picture, Row, Section, Table
from mlefw.report.references import exact_names
from mlefw.report.sentences import chosen, fitted_by, model_name, verdict
from mlefw.system.number_format import number, p_value

_GAPS = {
    "gap_nats": "minus the exact estimate",
    "gap_se": "± standard error",
    "skill": "skill",
    "null_gap_nats": "minus the null model",
    "null_gap_se": "± its standard error",
}
_STAGES = ("before", "after")
_WHEN = {"before": "of the density", "after": "of conformal intervals"}
_LEADING = ("nll_nats", "nll_bits", "nll_se")


def run_report(
    name: str,
    summary: Mapping[str, Any],
    baseline: Mapping[str, Any] | None,
    configuration: str,
    pictures: Sequence[Picture],
    texts: Sequence[Section] = (),
) -> str:
    """The report of a run as HTML.

    Args:
        name: name of the run.
        summary: the content of `summary.json`.
        baseline: the content of `baseline.json`.
        configuration: the text of `config.yaml`.
        pictures: the pictures, in the order in which they are shown.
        texts: sections that are shown behind the pictures.
    """
    sections = [Section("Negative log-likelihood", [nll_table(summary)])]
    if "calibration" in summary:
        sections.append(_recalibration(summary))
    if pictures:
        sections.append(Section("Pictures", pictures=pictures))
    sections += texts
    sections.append(Section("Figures", [_figures(summary)], note=_kept(summary)))
    if summary.get("distance"):
        sections.append(Section("Distance from the exact estimate", [_distance(summary)]))
    if baseline is not None:
        sections += _estimates(baseline)
    sections.append(Section("Configuration", text=configuration))
    sections.append(Section("Time and versions", [_time(summary)]))
    words = verdict(summary) or "There is no exact estimate to be compared with."
    return Page(
        f"mlefw run {name}",
        words,
        about(summary),
        sections,
        other_warnings(summary),
        f"mlefw {summary['versions']['mlefw']}. All NLL in {nats(summary)}, constants included, in units of the "
        "target.",
    ).html()


def failure_report(name: str, reason: str, configuration: str, warnings: Sequence[str]) -> str:
    """The report of a failed run as HTML, with the reason in place of a verdict."""
    sections, footer = [Section("Configuration", text=configuration)], f"mlefw {version('mlefw')}"
    return Page(f"mlefw run {name}", f"The run failed: {reason}", "", sections, warnings, footer).html()


def other_warnings(summary: Mapping[str, Any]) -> list[str]:
    """The warnings of a run that its verdict does not say."""
    return [text for text in summary.get("warnings", ()) if text != summary.get("misfit", {}).get("sentence")]


def about(summary: Mapping[str, Any]) -> str:
    """The main settings and the size of a model, in one line."""
    words = ", ".join(f"{key} {summary[key]}" for key in chosen(summary, "seed"))
    return f"{words}; {summary['num_parameters']} parameters, {summary['num_features']} features"


def nll_table(summary: Mapping[str, Any]) -> Table:
    """The NLL of the model, the exact estimates and the null model on each split, and the gaps between them."""
    splits = list(summary["metrics"])
    rows = []
    for key, name in exact_names(summary).items():
        line = summary.get(key)
        if line is None:
            continue
        if line.get("exists", True) is not False:
            rows.append(Row(name, _cells(splits, {split: line.get(split, {}).get("nll_nats") for split in splits})))
        else:
            infimum = f"infimum {number(line['nll_infimum'])}" if "nll_infimum" in line else "-"
            rows.append(Row(f"{name}: none", [infimum, *["-"] * (len(splits) - 1)]))
    for key, name in zip(
        _LEADING, (f"{model_name(summary)}, {nats(summary)}", "in bits", "± standard error"), strict=True
    ):
        values = {split: figures.get(key) for split, figures in summary["metrics"].items()}
        if any(value is not None for value in values.values()):
            rows.append(Row(name, _cells(splits, values), strong=key == "nll_nats"))
    distance = summary.get("distance", {})
    for key, name in _GAPS.items():
        if distance.get(key):
            rows.append(
                Row(name, _cells(splits, distance[key], sign=key.endswith("gap_nats")), strong=key == "gap_nats")
            )
    return Table(["", *_headers(summary)], rows)


def _headers(summary: Mapping[str, Any]) -> list[str]:
    return [f"{split}: {', '.join(sizes(summary, split))}" for split in summary["metrics"]]


def _recalibration(summary: Mapping[str, Any]) -> Section:
    content, splits = summary["calibration"], list(summary["metrics"])
    if "keeps_density" in content:
        return _intervals(summary)
    lines = [
        (f"{nats(summary)} {key}", {s: content[key].get(s, {}).get("nll_nats") for s in splits}) for key in _STAGES
    ]
    rows = [Row(name, _cells(splits, values), strong=name.endswith("after")) for name, values in lines]
    header = ["", *_headers(summary)]
    note = f"{fitted_by(content)}, whose figures are therefore optimistic"
    return Section("Recalibration", [Table(header, rows)], note=note)


def _intervals(summary: Mapping[str, Any]) -> Section:
    """Figures of intervals before and after a recalibration that leaves the density as it is."""
    content, splits = summary["calibration"], list(summary["metrics"])
    names = dict.fromkeys(name for line in content["after"].values() for name in line if name != "nll_nats")
    rows = [
        Row(
            f"{name} {_WHEN[stage]}",
            _cells(splits, {split: content[stage].get(split, {}).get(name) for split in splits}),
            strong=stage == "after",
        )
        for name in names
        for stage in _STAGES
    ]
    note = (
        f"{fitted_by(content)}. An interval covers a new row with at least its level, if the row and those rows are "
        "exchangeable and the model does not depend on them; that the epoch was chosen by them costs a little of it. "
        "The NLL and all figures but those of intervals are of the density."
    )
    return Section("Conformal intervals", [Table(["", *_headers(summary)], rows)], note=note)


def _figures(summary: Mapping[str, Any]) -> Table:
    splits = list(summary["metrics"])
    names = dict.fromkeys(name for figures in summary["metrics"].values() for name in figures)
    rows = [
        Row(name, _cells(splits, {split: figures.get(name) for split, figures in summary["metrics"].items()}))
        for name in names
        if name not in _LEADING
    ]
    return Table(["", *splits], rows, file="summary.json")


def _kept(summary: Mapping[str, Any]) -> str:
    return "of the state that was kept, by split" + (", recalibrated" if "calibration" in summary else "")


def _distance(summary: Mapping[str, Any]) -> Table:
    rows = []
    for name, value in summary["distance"].items():
        if name in _GAPS:
            continue
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, content in parts:
            text = content if isinstance(content, str) else number(content)
            rows.append(Row(f"{name} {part}".replace("_", " ").strip(), [text]))
    return Table(["", "value"], rows)


def _estimates(baseline: Mapping[str, Any]) -> list[Section]:
    """Sections for the exact estimate, and under a prior also for the MLE and the ridge MAP."""
    name = "MLE" if baseline.get("prior", "none") == "none" else "MAP"
    left_out = baseline.get("left_out", {}).get(name.lower())
    sections = [
        _estimate(f"Exact linear {name}", baseline)
        if left_out is None
        else Section(f"Exact linear {name}", note=f"Left out: {left_out}.")
    ]
    if "mle" in baseline:
        sections.append(_estimate("Exact linear MLE", baseline["mle"]))
    if "ridge" in baseline:
        sections.append(_estimate(f"Linear ridge MAP, prior scale {baseline['ridge']['scale']:g}", baseline["ridge"]))
    return sections


def _estimate(title: str, content: Mapping[str, Any]) -> Section:
    title += f" on {content['features']}" if "features" in content else ""
    if content["exists"] is False:
        return Section(title, note=f"There is none: {content['reason']}.")
    statistic = "t" if "t quantiles" in content["standard_errors"] else "z"
    header = ["", "estimate", "std. error", statistic, "p", "95 % low", "95 % high"]
    keys = ("estimate", "std_error", "z", "p_value", "ci_low", "ci_high")
    tables = []
    for parameter, coefficients in shown(content["coefficients"]).items():
        rows = []
        for row in coefficients:
            cells = ["-" if row.get(key) is None else f"{float(row[key]):.5g}" for key in keys]
            if row.get("p_value") is not None:
                cells[3] = p_value(row["p_value"])
            rows.append(Row(str(row["name"]), cells))
        tables.append(Table(header, rows, str(parameter), file="baseline.json"))
    sure = "stationary" if content["converged"] else "not converged"
    sure += "" if content["exists"] else f", existence not shown ({content['reason']})"
    note = (
        f"{content['num_rows']} rows, log-likelihood {number(content['log_likelihood'])} nats; {content['solver']}: "
        f"{sure}, residual {content['residual']:.1e}; original units; standard errors: {content['standard_errors']}"
    )
    if content["dropped"]:
        note += f"; left out (constant or collinear): {', '.join(content['dropped'][:50])}"
    return Section(title, tables, note=note)


def _time(summary: Mapping[str, Any]) -> Table:
    rows = [Row(name.replace("_", " "), [number(value)]) for name, value in summary.get("time", {}).items()]
    rows += [Row(key.replace("_", " "), [str(summary[key])]) for key in ("num_epochs", "num_steps") if key in summary]
    rows += [Row(name, [str(version)]) for name, version in summary["versions"].items()]
    return Table(["", ""], rows)


def _cells(splits: Sequence[str], values: Mapping[str, float | None], sign: bool = False) -> list[str]:
    return [number(values.get(split), sign=sign) for split in splits]
