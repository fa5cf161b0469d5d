"""The end of an ensemble: figures of the mixture on each split, those of its members, and the summary."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from mlefw.configuration.settings import Settings, TableSettings
from mlefw.objective.objective import Evaluation
from mlefw.run import exhibit_explanation, row_scores
from mlefw.run.conclude import write_summary
from mlefw.run.directory import MEMBERS, summary_of
from mlefw.run.essentials import CHOSEN_BY, essentials
from mlefw.run.exhibit_arrays import shown_split
from mlefw.run.held_out import parts_of
from mlefw.run.new_data import read_blocks
from mlefw.run.pooled import MemberTally, Pooled, load_pooled
from mlefw.run.prepare import Prepared
from mlefw.run.source import open_source
from mlefw.score.distances import gaps
from mlefw.score.figures import StreamedFigures
from mlefw.score.yardstick import Yardstick
from mlefw.system.atomic import Json, write_atomically
from mlefw.system.trust import trusted


def conclude(
    config: Settings,
    root: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    baseline: Json | None,
    failed: Mapping[int, str],
    started: float,
) -> Json:
    """Evaluate the mixture of the finished members, and write its summary and report; the summary.

    Args:
        config: the settings of the ensemble.
        root: the directory of the ensemble.
        prepared: the rows of the ensemble.
        yardstick: the exact estimates on the rows of each split.
        baseline: content of `baseline.json`; None where there is none.
        failed: why members failed, by number.
        started: when the ensemble began, in seconds of `time.monotonic`.
    """
    trained = replace(load_pooled(root, trusted()), config=config)
    figures, evaluations, each = {}, {}, {}
    for split in prepared.data.splits:
        figures[split], evaluations[split], each[split] = _evaluated(trained, split)
    splits, schema = prepared.data.splits, prepared.data.schema
    at_test = yardstick.at_reference("test", splits["test"]).nll if config.cv and yardstick.reference else None
    out = _out_of_fold(config, root, trained)
    scored, rows = dict(evaluations), dict(splits)
    if out is not None and len(out.nll) == splits["train"].num_rows:
        scored[row_scores.OUT_OF_FOLD], rows[row_scores.OUT_OF_FOLD] = Evaluation(None, out.nll), splits["train"]
    row_scores.store(root, scored, rows, schema.labels, at_test)
    summary = essentials(config, prepared, yardstick, figures, trained.objective.head)
    chosen_by = summary_of(root).get("inputs", {}).get(CHOSEN_BY)
    if chosen_by is not None:
        # `prepared` was built with the first candidate, and another one may have been chosen.
        models: list[Any] = [member.objective.model for member in trained.members]
        most = max(model.num_inputs for model in models)
        summary["inputs"] = {"method": config.choice("inputs"), "num_inputs": most, CHOSEN_BY: chosen_by}
        summary["num_parameters"] = sum(p.numel() for p in trained.members[0].objective.parameters())
    summary["distance"] = gaps(evaluations, splits, yardstick)
    summary["ensemble"] = _described(config, root, trained, each, failed)
    summary["ensemble"] |= {} if out is None else {row_scores.OUT_OF_FOLD: out.figures()}
    times = [summary_of(root / MEMBERS / str(number)).get("time", {}) for number in range(config.ensemble["members"])]
    summary["time"] = {
        "fit_s": sum(one.get("fit_s", 0.0) for one in times),
        "baseline_s": yardstick.exact.seconds,
        "total_s": time.monotonic() - started,
    }
    explained = exhibit_explanation.sections(config, root, trained, shown_split(splits))
    summary["time"]["total_s"] = time.monotonic() - started
    return write_summary(config, root, summary, baseline, explained)


@torch.no_grad()
def _evaluated(trained: Pooled, split: str) -> tuple[dict[str, float], Evaluation, Json]:
    """Figures of the mixture on a split, its evaluation (NLL of each row), and the figures of `MemberTally`."""
    tally = StreamedFigures(trained.objective, trained.metrics())
    members = MemberTally(trained, splits_entropy=split != "train")
    nll = []
    for block in read_blocks(trained, TableSettings(), split, prediction=False):
        rows = trained.rows(block.table, whole=False)
        tally.add(rows)
        nll.append(members.add(rows))
    figures = {name: value for name, value in tally.figures().items() if name not in ("penalty", "objective")}
    return figures, Evaluation(None, torch.cat(nll)), members.figures(figures.get("nll_nats"))


def _described(
    config: Settings, root: Path, trained: Pooled, each: Mapping[str, Json], failed: Mapping[int, str]
) -> Json:
    """`ensemble` of `summary.json`: status and metrics of each member, and by split the figures over all members."""
    places = {member.path.parent.parent.name: position for position, member in enumerate(trained.members)}
    members = []
    for number in range(config.ensemble["members"]):
        one: Json = {"number": number, "run_dir": f"{MEMBERS}/{number}"}
        one["seed"] = summary_of(root / MEMBERS / str(number)).get("seed")
        if str(number) in places:
            known = {split: content["members"][places[str(number)]] for split, content in each.items()}
            metrics = {split: {k: v for k, v in values.items() if k != "run"} for split, values in known.items()}
            one |= {"status": "finished", "metrics": metrics}
        else:
            one |= {"status": "failed", "reason": failed.get(number, "it was not trained to its end")}
        members.append(one)
    others = {
        split: {name: value for name, value in content.items() if name not in ("members", "num_members")}
        for split, content in each.items()
    }
    counts = {"num_members": len(members), "num_finished": len(trained.members)}
    content: Json = {"method": config.choice("ensemble"), **counts, "members": members, "splits": others}
    kept = [one.calibration for one in trained.members if one.calibration and not one.calibration.changes_density]
    if kept:
        num_scores = sum(one.figures()["num_scores"] for one in kept)
        content["intervals"] = {"method": config.choice("calibrate"), "num_scores": num_scores}
    return content


@dataclass(frozen=True)
class _OutOfFold:
    """Nats and weights of the rows that members validate on, in the order of the table, each (n,)."""

    nll: torch.Tensor
    weight: torch.Tensor

    def figures(self) -> Json:
        """Their number, their mean and its standard error."""
        count = float(self.weight.sum())
        mean = float(self.weight @ self.nll) / count
        variance = float(self.weight @ (self.nll - mean).square()) / count
        content: Json = {"num_rows": len(self.nll), "nll_nats": mean}
        return content | ({"nll_se": float(np.sqrt(variance / (count - 1)))} if count > 1 else {})


def _out_of_fold(config: Settings, root: Path, trained: Pooled) -> _OutOfFold | None:
    """The rows that members validate on, each under the one member that was not trained on it, written to their file.

    None where the members validate on the same rows.
    """
    scores = [row_scores.read(member.path.parent.parent, "validation") for member in trained.members]
    known = [score for score in scores if score is not None]
    if len({score.rows for score in known}) < max(2, len(trained.members)):
        return None
    source = open_source(config)
    table = source.read()
    held = [parts_of(member.config, source, table)["validation"][1] for member in trained.members]
    index = np.concatenate(held)
    nll, weight = torch.cat([score.nll for score in known]), torch.cat([score.weight for score in known])
    columns = {"row": index, "number": table.row_numbers(index)}
    if source.id is not None and source.id not in columns:
        columns[source.id] = table.columns[source.id][index]
    sizes = [len(rows) for rows in held]
    columns["member"] = np.repeat([int(member.path.parent.parent.name) for member in trained.members], sizes)
    columns |= {"weight": weight.numpy(), "nll_nats": nll.numpy()}
    content = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    write_atomically(root / "out_of_fold.parquet", lambda file: parquet.write_table(content, file))
    order = torch.from_numpy(np.argsort(index))
    return _OutOfFold(nll[order], weight[order])
