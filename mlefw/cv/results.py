"""Collects the results of the folds of a cross-validation: `rows.parquet`, and the content of `cv.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from mlefw.configuration.settings import Settings
from mlefw.cv.base import Fold
from mlefw.cv.figures import figures
from mlefw.data.base import Source
from mlefw.head.base import Head
from mlefw.reading.split import Split
from mlefw.reading.table import Table
from mlefw.report.references import REFERENCES, reference_name
from mlefw.report.sentences import model_name
from mlefw.rows.shape import RowShape
from mlefw.run import build, row_scores
from mlefw.run.build import Data
from mlefw.run.directory import summary_of
from mlefw.sweep.record import Job
from mlefw.system.atomic import Json, write_atomically

Scores = tuple[np.ndarray, np.ndarray | None]
"""NLL of the rows that a fold holds out, (m,) in nats, and their NLL under the baseline, (m,); None without one."""


@dataclass(frozen=True)
class ExactScores:
    """Leave-one-out scores of all rows by an exact formula.

    Attributes:
        nll: NLL of each row under the fit to all others, (n,) in nats; NaN if unknown.
        null: NLL of each row under the intercept-only fit to all others, (n,).
        press: weighted sum of squared leave-one-out residuals.
    """

    nll: np.ndarray
    null: np.ndarray
    press: float

    @property
    def unknown(self) -> set[int]:
        """Positions of the rows whose NLL the formula does not give, which have to be fitted."""
        return set(np.flatnonzero(~np.isfinite(self.nll)).tolist())


@dataclass(frozen=True)
class Plan:
    """A cross-validation before its folds are fitted.

    Attributes:
        command: `train` or `baseline`.
        config: the settings of all folds.
        split: the rule of `data.split`.
        table: all rows.
        data: all rows, coded as training rows.
        folds: the rows that each fold holds out.
        identifier: the column of `data.id`; None for none.
    """

    command: str
    config: Settings
    split: Split
    table: Table
    data: Data
    folds: Sequence[Fold]
    identifier: str | None

    @classmethod
    def of(
        cls, command: str, config: Settings, source: Source, table: Table, data: Data, folds: Sequence[Fold]
    ) -> "Plan":
        """The plan for the rows that a source has read."""
        return cls(command, config, source.splitter, table, data, folds, source.id)

    @property
    def weight(self) -> np.ndarray:
        """The weight of every row, (n,): the sum over its observations."""
        return self.data.train.row_weight.numpy()

    @property
    def shape(self) -> RowShape:
        """The shape of a row."""
        return self.data.schema.row_shape

    def numbers_in_repeat(self) -> np.ndarray:
        """The number of each fold within its repeat, (folds,)."""
        repeats = np.array([fold.repeat for fold in self.folds])
        return np.arange(len(repeats)) - np.searchsorted(repeats, repeats)

    def write(self, root: Path, scored: Mapping[int, Scores]) -> None:
        """Write `rows.parquet`: every row that a fold holds out, with the fold, and its NLL as far as it is known.

        Args:
            root: the directory of the cross-validation.
            scored: scores by number of fold; rows of other folds have NaN.
        """
        held = [fold.test for fold in self.folds]
        index, sizes = np.concatenate(held), [len(one) for one in held]
        first = np.cumsum([0, *sizes])
        nll, beside = np.full(len(index), np.nan), np.full(len(index), np.nan)
        for number, (found, other) in scored.items():
            nll[first[number] : first[number + 1]] = found
            if other is not None:
                beside[first[number] : first[number + 1]] = other
        repeats = [fold.repeat for fold in self.folds]
        columns = {"row": index, "number": self.table.row_numbers(index)}
        if self.identifier is not None:
            columns["id"] = self.table.columns[self.identifier][index]
        columns |= {"repeat": np.repeat(repeats, sizes), "fold": np.repeat(self.numbers_in_repeat(), sizes)}
        columns |= {"weight": self.weight[index], "nll_nats": nll, "baseline_nll_nats": beside}
        content = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
        write_atomically(root / "rows.parquet", lambda file: parquet.write_table(content, file))


def gather(plan: Plan, jobs: Sequence[Job], known: ExactScores | None) -> tuple[Json, dict[int, Scores]]:
    """The content of `cv.json`, and the scores of held-out rows by number of fold; failed folds have no scores.

    Args:
        plan: the cross-validation.
        jobs: the folds that were run.
        known: scores of folds that were not run; None if all were.
    """
    scored: dict[int, Scores] = {}
    if known is not None:
        for number, fold in enumerate(plan.folds):
            if number not in known.unknown:
                scored[number] = (known.nll[fold.test], known.null[fold.test])
    of_fold: list[Json] = []
    in_repeat = plan.numbers_in_repeat().tolist()
    for job in jobs:
        found, reason = _scores(job)
        fold = plan.folds[job.number]
        one: Json = {
            **{"number": job.number, "repeat": fold.repeat, "fold": in_repeat[job.number]},
            **{"status": "failed" if found is None else "finished", "run_dir": job.run_dir.name},
            **{"num_train": len(fold.train(plan.table.num_rows)), "num_test": len(fold.test)},
        }
        if found is None:
            one["reason"] = reason
        else:
            scored[job.number] = found
            weight = plan.weight[fold.test]
            if weight.any():
                one["nll_nats"] = float(np.average(found[0], weights=weight))
                if found[1] is not None and np.isfinite(found[1]).all():
                    one["baseline_nll_nats"] = float(np.average(found[1], weights=weight))
        of_fold.append(one)
    failed = [one for one in of_fold if one["status"] == "failed"]
    content = _description(plan, jobs) | {
        "status": "incomplete" if failed else "finished",
        "exact": known is not None,
        **({} if known is None or failed else {"press": known.press} if not known.unknown else {}),
        "folds": of_fold,
        "failed": [{name: one[name] for name in ("number", "repeat", "fold", "reason")} for one in failed],
    }
    return content | _figures(plan, scored, _baseline(plan, jobs)), scored


def _scores(job: Job) -> tuple[Scores | None, str]:
    """The scores that a fold has written, or None and the reason why there are none."""
    if not job.is_done:
        return None, job.reason or job.status
    found = row_scores.read(job.run_dir, "test")
    if found is None:
        return None, _why_no_scores(job.run_dir)
    nll = found.nll.numpy()
    if not np.isfinite(nll).all():
        return None, f"the NLL of {int((~np.isfinite(nll)).sum())} held-out rows is not finite"
    return (nll, row_scores.baseline_nll(job.run_dir)), ""


def _why_no_scores(run_dir: Path) -> str:
    """Why a finished fold has no scores, from its `baseline.json`."""
    try:
        content = json.loads((run_dir / "baseline.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it left no figures of its held-out rows"
    left_out = next(iter(content.get("left_out", {}).values()), "it left no figures of its held-out rows")
    return f"no finite estimate: {content['reason']}" if content.get("exists") is False else str(left_out)


def _description(plan: Plan, jobs: Sequence[Job]) -> Json:
    """The part of `cv.json` that says what was fitted, and by which scheme it was validated."""
    config = plan.config
    summary = next((found for job in jobs if (found := summary_of(job.run_dir)).get("status") == "finished"), {})
    head: Head = build.head_of(config.head, plan.data.schema.targets)
    estimate = "linear MLE" if config.prior["_target_"].endswith("NoPrior") else "linear MAP"
    own = {name: value for name, value in config.cv.items() if name not in ("_target_", "fold", "jobs")}
    return {
        "command": plan.command,
        "name": estimate if plan.command == "baseline" else model_name(summary) if summary else config.choice("model"),
        "cv": {"scheme": config.choice("cv"), **own, "split": plan.split.rule},
        **{name: config.choice(name) for name in ("head", "prior")},
        **({"model": config.choice("model"), "seed": config.seed} if plan.command == "train" else {}),
        "target": plan.data.schema.target,
        "measure": "mass" if head.support.is_discrete else "density",
        "num_rows": plan.table.num_rows,
        **({"observation": plan.shape.observation} if plan.shape.positions else {}),
    }


def _baseline(plan: Plan, jobs: Sequence[Job]) -> str:
    """The name of what the model is compared with, which differs between folds if an estimate exists in some only."""
    if plan.command == "baseline":
        return "null model"
    done = [summary_of(job.run_dir) for job in jobs if job.is_done]
    found = {summary.get("distance", {}).get("reference") for summary in done}
    if len(found) != 1:
        return "linear MLE, MAP or ridge MAP"
    name = found.pop()
    return reference_name(done[0], name) if name in REFERENCES else "linear estimate"


def _figures(plan: Plan, scored: Mapping[int, Scores], baseline: str) -> Json:
    """The part of `cv.json` with means and standard errors over all held-out rows."""
    content: Json = {"num_held_out": len({int(row) for number in scored for row in plan.folds[number].test})}
    if not scored:
        return content
    index = np.concatenate([plan.folds[number].test for number in scored])
    fold = np.repeat(list(scored), [len(plan.folds[number].test) for number in scored])
    nll = np.concatenate([found for found, _ in scored.values()])
    beside = np.concatenate(
        [np.full(len(found), np.nan) if other is None else other for found, other in scored.values()]
    )
    ratio = float(np.mean([_ratio(plan, number) for number in scored]))
    group = plan.split.groups(plan.table)[1] if plan.split.rule == "group" else None
    moment = plan.split.moments(plan.table) if plan.split.rule == "time" else None

    def of(values: np.ndarray) -> Json:
        kept = np.isfinite(values) & (plan.weight[index] > 0)
        rows = index[kept]
        times, groups = (None if column is None else column[rows] for column in (moment, group))
        known = (values[kept], plan.weight[rows], rows, fold[kept], ratio, groups, times, bool(plan.shape.positions))
        return figures(*known) if len(rows) else {}

    content["nll"] = of(nll)
    if np.isfinite(beside).any():
        content |= {"baseline": {"name": baseline, **of(beside)}, "difference": of(nll - beside)}
    return content


def _ratio(plan: Plan, number: int) -> float:
    """Number of test rows over number of training rows of a fold."""
    fold = plan.folds[number]
    return len(fold.test) / len(fold.train(plan.table.num_rows))
