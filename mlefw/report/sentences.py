"""Results of a run and of an evaluation in sentences and lines of text."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from mlefw.report.observation import nats, observation
from mlefw.report.references import REFERENCES, against, compared, exact_names, has_tables, reference_name
from mlefw.system.number_format import number, percent, robust_difference


def evaluation_lines(content: Mapping[str, Any]) -> list[str]:
    """Lines with the figures of an evaluation, after those of the null model and the exact estimates if known."""
    on = f"{content['split']} rows" if "split" in content else "rows"
    sizes = [f"{content['num_rows']} {on}"]
    if observation(content) != "row":
        sizes.append(f"{content['num_observations']:.10g} {observation(content)}s")
    if content.get("nll_se_unit", "rows") != "rows":
        sizes.append(content["nll_se_unit"])
    lines = [f"{content['run']}: {', '.join(sizes)}"]
    rows = [(name, content[key].get("nll_nats")) for key, name in exact_names(content).items() if key in content]
    if "calibration" in content and "keeps_density" not in content["calibration"]:
        rows.append(("before recalibration", content["calibration"]["before"].get("nll_nats")))
    rows = [(f"{name}, in nats", value) for name, value in rows] + list(content["metrics"].items())
    if content.get("calibration", {}).get("keeps_density"):
        before = content["calibration"]["before"]
        rows += [(f"{name} of the density", value) for name, value in before.items() if name != "nll_nats"]
    width = max(len(name) for name, _ in rows)
    method = content.get("uncertainty", "")
    averaged = content.get(method, {})
    if averaged:
        lines.append(f"  {'':<{width}}{'as fitted':>14}{method:>14}")
    for name, value in rows:
        beside = f"{number(averaged[name]):>14}" if name in averaged else ""
        lines.append(f"  {name:<{width}}{number(value):>14}{beside}")
    distance = content.get("distance", {})
    reference = distance.get("reference")
    names = {"gap": reference_name(content, reference) if reference in REFERENCES else "", "null_gap": "null model"}
    for key, name in names.items():
        if f"{key}_nats" in distance:
            error = number(distance.get(f"{key}_se"))
            lines.append(f"minus {name}: {number(distance[f'{key}_nats'], sign=True)} ± {error} {nats(content)}")
    if content.get("calibration", {}).get("fitted_on") == content.get("split", ""):
        lines.append(f"The recalibration ({content['calibration']['method']}) was fitted on these rows.")
    if "num_unseen" in content:
        lines.append(f"{content['num_unseen']} {observation(content)}s that training never saw are in no figure.")
    if "misfit" in content:
        lines.append(content["misfit"]["sentence"])
    return lines + ensemble_lines(content.get("ensemble", {}))


def ensemble_lines(content: Mapping[str, Any]) -> list[str]:
    """What the members of a mixture say each and together: `ensemble` of an evaluation; none where there is none."""
    if not content:
        return []
    each = ", ".join(number(member["nll_nats"]) for member in content["members"])
    lines = [f"mixture of {content['num_members']} members, whose own NLL is {each} nats per row"]
    if "runs" in content:
        lines.append("weights: " + ", ".join(f"{number(one['weight'])} of {one['run']}" for one in content["runs"]))
    if "gain_nats" in content:
        lines.append(f"mean of the members minus mixture: {number(content['gain_nats'], sign=True)} nats per row")
    for name, one in content.get("targets", {"": content}).items():
        of = f" of {name}" if name else ""
        lines.append(
            f"entropy{of}: {number(one['entropy_nats'])} nats per row, of which {number(one['disagreement_nats'])} are "
            "the members' disagreement"
        )
    return lines


def verdict(summary: Mapping[str, Any]) -> str:
    """The result of a run in a few sentences."""
    distance = summary.get("distance", {})
    baseline = summary.get("baseline") or {}
    sentences = []
    if baseline.get("exists") is False and not has_tables(summary):
        sentences.append(f"The linear model has no finite MLE: {baseline.get('reason')}.")
    for key, name in compared(summary):
        gaps, errors = distance.get(f"{key}_nats", {}), distance.get(f"{key}_se", {})
        few = distance.get("decisive", {}) if key == "gap" else {}
        split = next((split for split in ("test", "validation", "train") if split in gaps or split in few), None)
        if split is not None:
            gap, error, without = robust_difference(gaps.get(split), errors.get(split, float("inf")), few.get(split))
            sentences.append(against(name, gap, error, split + without, nats(summary)))
    if "misfit" in summary:
        sentences.append(summary["misfit"]["sentence"])
    loss = summary.get("loss", "plain")
    if loss != "plain":
        sentences.append(_of_loss(loss, summary.get("estimate")))
    if "augment" in summary:
        change = summary["augment"]
        sentences.append(
            f"Training descended the expected NLL over random changes of its images, {change}; every NLL here is of "
            "images as they are."
        )
    elif loss != "plain":
        pass
    elif "parameter" in distance or ("excess_objective" in distance and has_tables(summary)):
        sentences.append(_of_excess(distance["excess_objective"], summary))
    elif "head_refit_gap" in distance:
        refit = distance["head_refit_gap"]
        sentences.append(f"Refitting the last layer exactly would gain {refit:.2g} {nats(summary)} on train.")
    if "calibration" in summary:
        sentences.append(recalibration(summary["calibration"], nats(summary)))
    if "ensemble" in summary:
        sentences.append(of_members(summary["ensemble"]))
    return " ".join(sentences)


def _of_loss(loss: str, estimate: str | None) -> str:
    """What another loss than the NLL means for the figures, and for the gap to the MLE."""
    text = f"Training descended another loss, {loss}; every NLL here is the plain one."
    if estimate is None:
        return text
    return f"{text} Its minimum is the {estimate} estimate: the gap to the MLE is not an error of the optimisation."


def _of_excess(excess: float, summary: Mapping[str, Any]) -> str:
    """Whether the training of a linear model reached the exact estimate."""
    excess = excess if abs(excess) > 1e-12 else 0.0
    # Of a table with pairs that never occur no logits attain the infimum.
    least = "infimum" if has_tables(summary) and not summary["baseline"]["exists"] else "optimum"
    end = f"reached the exact {least}" if abs(excess) < 1e-6 else f"stopped short of the exact {least}"
    return f"Training {end} ({excess:.2g} {nats(summary)} above it)."


def of_members(content: Mapping[str, Any]) -> str:
    """What mixing members has gained, in a sentence: `ensemble` of `summary.json`."""
    text = f"The mixture is of {content['num_finished']} of {content['num_members']} members"
    split = next((split for split in ("test", "validation") if "gain_nats" in content["splits"].get(split, {})), None)
    if split is not None:
        known = content["splits"][split]
        text += f", whose NLL on {split} is {number(known['mean_member_nll_nats'])} on average, "
        text += f"{number(known['gain_nats'])} more than that of the mixture"
        if "disagreement_nats" in known:
            text += f"; they disagree by {number(known['disagreement_nats'])} nats per row"
    if "out_of_fold" in content:
        out = content["out_of_fold"]
        text += f". Out of fold: {number(out['nll_nats'])} ± {number(out.get('nll_se'))} nats per row"
    if "intervals" in content:
        text += (
            f". Intervals and quantiles are {content['intervals']['method']} (CV+), by "
            f"{content['intervals']['num_scores']:g} out-of-fold rows: one of level 1 − α is promised to cover about "
            "1 − 2α, and usually covers 1 − α; the NLL is that of the mixture"
        )
    return f"{text}."


def recalibration(content: Mapping[str, Any], unit: str = "nats per row") -> str:
    """A sentence on a recalibration and its effect, from `calibration` of `summary.json`; `unit`: of NLL, in words."""
    if "keeps_density" in content:
        return of_intervals(content)
    text = f"Recalibrated {fitted_by(content)}"
    test = [content[key].get("test", {}).get("nll_nats") for key in ("before", "after")]
    if None in test:
        return f"{text}, so that no figure on them is an independent one."
    return f"{text}: {number(test[0])} became {number(test[1])} {unit} on test."


def of_intervals(content: Mapping[str, Any]) -> str:
    """A sentence on intervals that are recalibrated under a density that is not, from `calibration`."""
    text = f"Intervals and quantiles are {fitted_by(content).removeprefix('by ')}; the NLL is that of the density"
    test = [content[key].get("test", {}).get("coverage_90") for key in ("before", "after")]
    if None in test:
        return f"{text}."
    return f"{text}. On test, 90 % intervals covered {percent(test[0])} and now cover {percent(test[1])}."


def fitted_by(content: Mapping[str, Any]) -> str:
    """A clause with the method of a recalibration, its parameters, and the rows that it was fitted on."""
    known = content["parameters"]
    words = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in known.items()]
    parameters = ", ".join(words) if len(known) > 1 else f"{next(iter(known.values())):.4g}"
    return f"by {content['method']} ({parameters}), fitted on the {content['fitted_on']} rows"


def _has_other_inputs(summary: Mapping[str, Any]) -> bool:
    """Whether the model gets other inputs than the features, held within bounds or not."""
    return "inputs" in summary and summary["inputs"]["num_inputs"] != summary["num_features"]


def model_name(summary: Mapping[str, Any], split: str | None = None) -> str:
    """The model, its inputs if they are not the features, its recalibration, and whether that knows the split."""
    name = str(summary.get("model", ""))
    if _has_other_inputs(summary):
        name += f" on {summary['inputs']['method']} inputs"
    if "ensemble" in summary:
        name = f"mixture of {summary['ensemble']['num_finished']} {name}"
    if "calibration" not in summary:
        return name
    fitted = " (fitted on these rows)" if summary["calibration"]["fitted_on"] == split else ""
    return f"{name} + {summary['calibration']['method']}{fitted}"


def chosen(summary: Mapping[str, Any], *more: str) -> list[str]:
    """The keys of the main settings of a run; the loss only if it is not the NLL."""
    keys = ("head", "prior", "loss", "batch", "augment", "model", *more)
    return [key for key in keys if key in summary and (key != "loss" or summary[key] != "plain")]


def heading(summary: Mapping[str, Any]) -> str:
    """One line on what was trained: main settings, inputs, seed and number of parameters."""
    words = [f"{key}={summary[key]}" for key in chosen(summary)]
    words += [f"inputs={summary['inputs']['method']}"] if _has_other_inputs(summary) else []
    return escape(f"{'  '.join(words)}  seed={summary['seed']}  ({summary['num_parameters']} parameters)")
