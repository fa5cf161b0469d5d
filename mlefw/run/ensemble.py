"""The end of an ensemble: figures of the mixture on each split, those of its members, and the summary."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from mlefw.configuration.settings import Settings, TableSettings
from mlefw.objective.objective import Evaluation
from mlefw.run import conclude as single
from mlefw.run import row_scores
from mlefw.run.directory import MEMBERS, summary_of
from mlefw.run.essentials import CHOSEN_BY, essentials
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

_SCORES = {"weight": "weight", "nll_nats": "nll"}
"""Columns of the file of out-of-fold rows, and where they come from."""


def conclude(
    config: Settings,
    root: Path,
    prepared: Prepared,
    yardstick: Yardstick,
    baseline: Json | None,
    failed: Mapping[int, str],
    started: float,
) -> Json:
    """Evaluate the mixture of the members that were trained, and write its summary and report; the summary.

    Args:
        config: of the whole.
        root: its directory.
        prepared: rows and exact estimates of the whole.
        yardstick: the exact estimates on these rows.
        baseline: content of `baseline.json`.
        failed: why members failed, by number.
        started: when the whole began, in seconds of the monotonic clock.
    """
    trained = replace(load_pooled(root, trusted()), config=config)
    figures, evaluations, each = {}, {}, {}
    for split in prepared.data.splits:
        figures[split], evaluations[split], each[split] = _evaluated(trained, split)
    splits, schema = prepared.data.splits, prepared.data.schema
    at_test = yardstick.at_reference("test", splits["test"]).nll if config.cv and yardstick.reference else None
    row_scores.store(root, evaluations, splits, schema.labels, at_test)
    summary = essentials(config, prepared, yardstick, figures, trained.objective.head)
    chosen_by = summary_of(root).get("inputs", {}).get(CHOSEN_BY)
    if chosen_by is not None:
        # The whole was prepared with the first of the candidates.
        models: list[Any] = [member.objective.model for member in trained.members]
        most = max(model.num_inputs for model in models)
        summary["inputs"] = {"method": config.choice("inputs"), "num_inputs": most, CHOSEN_BY: chosen_by}
        summary["num_parameters"] = sum(p.numel() for p in trained.members[0].objective.parameters())
    summary["distance"] = gaps(evaluations, splits, yardstick)
    summary["ensemble"] = _described(config, root, trained, each, failed)
    out = _out_of_fold(config, root, trained)
    summary["ensemble"] |= {} if out is None else {"out_of_fold": out}
    times = [summary_of(root / MEMBERS / str(number)).get("time", {}) for number in range(config.ensemble["members"])]
    summary["time"] = {
        "fit_s": sum(one.get("fit_s", 0.0) for one in times),
        "baseline_s": yardstick.exact.seconds,
        "total_s": time.monotonic() - started,
    }
    return single.write(config, root, summary, baseline, [])


@torch.no_grad()
def _evaluated(trained: Pooled, split: str) -> tuple[dict[str, float], Evaluation, Json]:
    """Figures of the mixture on a split, its NLL row by row, and what `MemberTally` says of the members."""
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
    """`ensemble` of `summary.json`: the members one by one, and by split what is said of all of them."""
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
    return {"method": config.choice("ensemble"), **counts, "members": members, "splits": others}


def _out_of_fold(config: Settings, root: Path, trained: Pooled) -> Json | None:
    """NLL of the rows that members validate on, each under the one member that was not trained on it; and their file.

    None where they validate on the same rows.
    """
    scores = [row_scores.read(member.path.parent.parent, "validation") for member in trained.members]
    known = [score for score in scores if score is not None]
    if len({score.rows for score in known}) < max(2, len(trained.members)):
        return None
    nll, weight = torch.cat([score.nll for score in known]), torch.cat([score.weight for score in known])
    count = float(weight.sum())
    mean = float(weight @ nll) / count
    variance = float(weight @ (nll - mean).square()) / count
    _store(config, root, trained, known)
    content: Json = {"num_rows": len(nll), "nll_nats": mean}
    return content | ({"nll_se": float(np.sqrt(variance / (count - 1)))} if count > 1 else {})


def _store(config: Settings, root: Path, trained: Pooled, scores: Sequence[row_scores.RowScores]) -> None:
    """Write `out_of_fold.parquet`: each row with the member that validates on it, and its NLL there."""
    source = open_source(config)
    table = source.read()
    held = [parts_of(member.config, source, table)["validation"][1] for member in trained.members]
    index, sizes = np.concatenate(held), [len(rows) for rows in held]
    columns = {"row": index, "number": table.row_numbers(index)}
    if source.id is not None and source.id not in columns:
        columns[source.id] = table.columns[source.id][index]
    columns["member"] = np.repeat([int(member.path.parent.parent.name) for member in trained.members], sizes)
    columns |= {name: torch.cat([getattr(one, key) for one in scores]).numpy() for name, key in _SCORES.items()}
    content = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    write_atomically(root / "out_of_fold.parquet", lambda file: parquet.write_table(content, file))
