"""The end of a run: figures, distances, pictures, and the summary."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlefw import archive, build, console, recalibration, score
from mlefw.atomic import write_json
from mlefw.command import exhibit, fitting, judgement, row_scores
from mlefw.forecast import Sample, forecast
from mlefw.objective import Evaluation, Objective, evaluate
from mlefw.preparation import Prepared
from mlefw.rows import Rows
from mlefw.run_posterior import keep_posterior
from mlefw.warn import collect, collected, warn

Splits = Mapping[str, Rows]


@dataclass(frozen=True)
class Seen:
    """What a trained model says of the rows of each split, and its figures."""

    evaluations: dict[str, Evaluation]
    figures: dict[str, dict[str, float]]


def see(config: dict[str, Any], objective: Objective, evaluations: dict[str, Evaluation], splits: Splits) -> Seen:
    """The same with the figures of known evaluations."""
    metrics = build.build_metrics(config, objective.head)
    figures = {split: score.figures(objective, evaluations[split], rows, metrics) for split, rows in splits.items()}
    return Seen(evaluations, figures)


def conclude(
    config: dict[str, Any],
    run_dir: Path,
    prepared: Prepared,
    yardstick: score.Yardstick,
    baseline: dict[str, Any] | None,
    fit: fitting.Fit,
    started: float,
    seen: Seen | None = None,
) -> dict[str, Any]:
    """Write what is left to be written of a run that began at `started`; its summary.

    `seen`: what the model says before a recalibration, where that is known.
    """
    data, estimand, exact, lines = prepared.data, prepared.estimand, yardstick.exact, yardstick.lines
    objective = estimand.objective.eval()
    if fit.keeper.best_epoch <= 0 and fit.trainer.current_epoch > 10 and "validation" in data.splits:
        when = "before training" if fit.keeper.best_epoch < 0 else "after the first epoch"
        prior = ", a prior" if objective.prior.flat else ""
        warn(
            f"the validation NLL was least {when}: the model extrapolates badly, or learns too fast "
            f"(try a smaller optimizer.lr{prior}, or transformed features)"
        )
    before = seen.evaluations if seen else {split: evaluate(objective, rows) for split, rows in data.splits.items()}
    final, evaluations, calibration = _recalibrate(config, run_dir, prepared, before)
    if seen is None or calibration is not None:
        seen = see(config, final, evaluations, data.splits)
    row_scores.store(run_dir, evaluations, data.splits, data.schema.labels)
    misfit = judgement.judge(config, final, data.splits, seen.figures)
    if misfit is not None:
        # The verdict says it; a line of its own on the terminal would say it twice.
        collect(misfit["sentence"])
    steps = fit.trainer.global_step
    summary: dict[str, Any] = {
        "status": "finished",
        **{name: choice(config, name) for name in ("head", "prior", "batch", "model")},
        "loss": described(config, "loss"),
        "measure": "mass" if final.head.support.is_discrete else "density",
        "seed": config["seed"],
        "num_rows": {split: rows.num_rows for split, rows in data.splits.items()},
        "num_features": data.schema.num_features,
        "num_parameters": prepared.num_parameters,
        "metrics": seen.figures,
        "misfit": misfit,
        "calibration": calibration,
        "null": {split: {"nll_nats": value} for split, value in lines["null"].items()},
        "baseline_num_features": len(estimand.asked) if estimand.is_subset else None,
        "baseline": score.describe(exact.mle, lines.get("mle")),
        "baseline_map": score.describe(exact.map, lines.get("map")),
        **keep_posterior(config, run_dir, objective, data.splits),
        "distance": score.distances(objective, before, data.splits, yardstick, (final, evaluations)),
        "time": {
            "total_s": time.monotonic() - started,
            "fit_s": fit.seconds,
            "baseline_s": exact.seconds,
            "rows_per_s": fit.rows_per_s,
        },
        "versions": archive.versions(),
        "best_epoch": fit.keeper.best_epoch,
        "num_epochs": fit.trainer.current_epoch,
        "num_steps": steps,
        "warnings": collected(),
    }
    summary = {name: value for name, value in summary.items() if value is not None}
    clock = time.monotonic()
    pictures = _finish(config, run_dir, prepared, fit, summary, final)
    summary["time"] |= {"total_s": time.monotonic() - started, "pictures_s": time.monotonic() - clock}
    summary["warnings"] = collected()
    if config["report"]:
        exhibit.report(run_dir, summary, baseline, pictures)
    write_json(run_dir / "summary.json", summary)
    return summary


def choice(config: dict[str, Any], group: str) -> str:
    """The name under which a member of a group was chosen."""
    return str(config["choices"].get(group, group))


def described(config: dict[str, Any], group: str) -> str:
    """The same with its settings: `focal(gamma=2.0)`."""
    settings = {name: value for name, value in (config.get(group) or {}).items() if name != "_target_"}
    words = ", ".join(f"{name}={value}" for name, value in settings.items())
    return choice(config, group) + (f"({words})" if words else "")


def _finish(
    config: dict[str, Any],
    run_dir: Path,
    prepared: Prepared,
    fit: fitting.Fit,
    summary: dict[str, Any],
    final: Objective,
) -> list[exhibit.Exhibit]:
    """Pictures, and the last words to TensorBoard."""
    best = fit.keeper.best_epoch
    sample = fit.board.sample if "calibration" not in summary else _unseen(prepared.data)
    seen, pictures = None, list[exhibit.Exhibit]()
    if config["plots"]:
        # Curves are those of the training: the errors of a recalibrated model's gaps are not theirs.
        pictures += exhibit.curves(fit.log, best, {} if "calibration" in summary else summary["distance"])
    if config["plots"] and config["report"]:
        if fit.recorder is not None:
            pictures += exhibit.coefficients(fit.recorder, fit.recorder.solution, prepared.data.schema, best)
        seen = forecast(final, evaluate(final, sample.rows).eta, sample.rows)
        if seen is not None:
            pictures += exhibit.predictive(sample, seen, summary["metrics"][sample.split])
    pictures = exhibit.told(pictures) if "calibration" in summary else pictures
    if pictures:
        exhibit.store(run_dir / "plots", pictures)
    settings: dict[str, str | float | bool] = {
        name: summary[name] for name in ("head", "prior", "batch", "model", "seed")
    }
    settings |= {"optimizer": choice(config, "optimizer"), "loss": summary["loss"]}
    settings |= {"calibrate": summary["calibration"]["method"]} if "calibration" in summary else {}
    lr = config["optimizer"].get("lr")
    settings |= {"lr": lr} if lr is not None else {}
    results = {
        f"final/{split}_{name}": values[name]
        for split, values in summary["metrics"].items()
        for name in ("nll_nats", "nll_bits")
    }
    gaps = summary["distance"].get("gap_nats", {})
    results |= {f"final/{split}_gap_nats": value for split, value in gaps.items()}
    page = console.markdown(console.run_table(summary), console.verdict(summary))
    images = {name: picture.content for name, picture in pictures}
    # TensorBoard draws its own of the rows of every epoch, which those of a recalibrated model are not.
    seen = seen if sample is fit.board.sample else None
    fit.board.finish(fit.trainer, settings, results, {"result": page}, images, seen)
    return pictures


def _recalibrate(
    config: dict[str, Any], run_dir: Path, prepared: Prepared, before: dict[str, Evaluation]
) -> tuple[Objective, dict[str, Evaluation], dict[str, Any] | None]:
    """The model that is kept, its evaluations, and what recalibrated it; `best.ckpt` then holds that, too."""
    objective, calibration, splits = prepared.estimand.objective, prepared.calibration, prepared.data.splits
    if calibration is None:
        return objective, before, None
    held = recalibration.FITTED_ON
    final = recalibration.fit(objective, calibration, before[held], splits[held])
    after = {split: evaluate(final, rows) for split, rows in splits.items()}
    archive.amend(run_dir / "checkpoints" / "best.ckpt", calibration=dict(calibration.state_dict()))
    return final, after, recalibration.describe(choice(config, "calibrate"), calibration, before, after, splits)


def _unseen(data: build.Data) -> Sample:
    """Rows to look at after a recalibration: those of the test, else the ones it was fitted on, and called so."""
    held = "test" if "test" in data.splits else recalibration.FITTED_ON
    sample = Sample.of({held: data.splits[held]}, data.schema.target, data.schema.labels)
    note = "" if held == "test" else ", recalibrated on them"
    return replace(sample, description=sample.description.replace(")", f"{note})"))
